"""Finding machines that an earlier supervisor started: saved plan, process, QMP socket."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable

from attrs import evolve

from qlaunch import records
from qlaunch.errors import BusyError, QlaunchError
from qlaunch.host.process import Process, ProcessId
from qlaunch.machine.console import Console
from qlaunch.machine.gateway import Gateway
from qlaunch.machine.log import MachineLog
from qlaunch.machine.machine import Machine
from qlaunch.plan.model import Plan
from qlaunch.qmp.session import Session
from qlaunch.store import machines
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.tasks import Tasks

ADOPT_TIMEOUT = 5.0


async def adopt(actor: Actor, tasks: Tasks) -> bool:
    """Make `actor` the host of its machine, if that still runs.

    Returns: False when it has ended; its end is then noted.
    """
    name = actor.name
    plan, record = machines.load_plan(name), machines.load_run(name)
    session = await _session(plan) if plan is not None else None
    process = _process(record, session)
    if plan is None or record is None or process is None:
        _note_end(name, plan)
        return False
    log = MachineLog.open(name)
    machine = Machine(
        plan=plan,
        log=log,
        process=process,
        session=session,
        gateway=Gateway(say=log.say, group=tasks),
        started=record.started,
    )
    actor.warnings = record.warnings
    log.say(f"adopted QEMU (pid {process.pid})")
    await _furnish(machine, begun=record.begun)
    if not record.begun or record.process is None:
        plain = records.to_plain(process.id)
        machines.save_run(name, evolve(record, process=plain, begun=True))
    actor.watch(machine)
    actor.note_state(await machine.run_state())
    actor.since = record.started
    return True


async def _session(plan: Plan) -> Session | None:
    path = plan.chardev("qmp").path
    try:
        return await Session.connect(path, name=plan.name, timeout=ADOPT_TIMEOUT)
    except QlaunchError:
        return None


def _process(record: machines.RunRecord | None, session: Session | None) -> Process | None:
    """The QEMU: who answers on the socket, else who was recorded and still lives."""
    if session is not None:
        with contextlib.suppress(ProcessLookupError, OSError):
            return Process.adopt(ProcessId.of(session.peer_pid))
    if record is None or record.process is None:
        return None
    return Process.adopt(records.from_plain(ProcessId, dict(record.process)))


async def _furnish(machine: Machine, *, begun: bool) -> None:
    """Consoles and display clients again; a start that was cut off is finished."""
    plan = machine.plan
    for ident in plan.serials:
        machine.consoles[ident] = Console(ident, machines.console_log_path(plan.name, ident))
    try:
        for endpoint in plan.display.endpoints:
            machine.gateway.bind(endpoint)
    except QlaunchError as error:
        machine.log.say(f"no display: {error.message}")
    if machine.session is None:
        machine.log.say("QEMU does not answer")
        return
    try:
        if not begun and await machine.run_state() == "prelaunch":
            await machine.begin()
            return
        for ident, console in machine.consoles.items():
            await console.connect(plan.chardev(f"{ident}-chr").path)
        machine.gateway.open(machine.session, password=plan.display.password is not None)
    except QlaunchError as error:
        machine.log.say(f"while adopting: {error.message}")


def _note_end(name: str, plan: Plan | None) -> None:
    """QEMU ended while nobody looked."""
    if plan is not None:
        shutil.rmtree(plan.places.runtime, ignore_errors=True)
    with contextlib.suppress(QlaunchError):
        machines.end_run(name, "ended while no supervisor looked", time.time())


async def adopt_all(tasks: Tasks, host: dict[str, Actor], changed: Callable[[Actor], None]) -> None:
    """Adopt every machine that may run and that nobody else hosts, all side by side."""

    async def one(name: str) -> None:
        try:
            actor = Actor(name, tasks, changed)
        except BusyError:
            return  # a `qlaunch run` in the foreground hosts it
        host[name] = actor
        if not await adopt(actor, tasks):
            actor.release()

    await asyncio.gather(*(one(name) for name in machines.running_names()))
