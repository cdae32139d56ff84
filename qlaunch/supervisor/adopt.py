"""Finding machines that an earlier supervisor started: saved plan, process, QMP socket.

Whatever is damaged or missing of what was saved: a QEMU that lives is never taken for stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable

from attrs import evolve

from qlaunch import records
from qlaunch.aio import finish
from qlaunch.errors import BusyError, QlaunchError
from qlaunch.host.process import Process, ProcessId
from qlaunch.host.procfs import find_machine
from qlaunch.machine import stop
from qlaunch.machine.cables import Cables, note_passts
from qlaunch.machine.console import Console
from qlaunch.machine.gateway import Gateway
from qlaunch.machine.log import MachineLog
from qlaunch.machine.machine import Machine
from qlaunch.plan.model import Plan
from qlaunch.qmp.session import Session
from qlaunch.store import events, files, machines, paths
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.tasks import Tasks, guarded, note

ADOPT_TIMEOUT = 3.0
CUT_OFF = "its start was cut off by the end of its supervisor"


async def adopt_all(tasks: Tasks, host: dict[str, Actor], changed: Callable[[Actor], None]) -> None:
    """Adopt every machine that may run and that nobody else hosts, all side by side."""

    async def one(name: str) -> None:
        try:
            actor = Actor(name, tasks, changed)
        except BusyError:
            return  # a `qlaunch run` in the foreground hosts it
        except QlaunchError as error:
            note(f"{name}: not adopted: {error.message}")
            return
        host[name] = actor
        try:
            with actor.operate("adopting"):
                actor.note_state("adopting")
                await _adopt(actor, tasks)
        except QlaunchError as error:
            note(f"{name}: not adopted: {error.message}")
        finally:
            if actor.process is None:
                actor.release()

    found = [name for name in machines.running_names() if name not in host]
    await asyncio.gather(*(guarded(one(name)) for name in found))


def remove_left_sockets() -> None:
    """Remove the sockets of starts that were cut off before they were noted: no QEMU has them."""
    for name in machines.names():
        folder = paths.machine_runtime(name)
        if not os.path.isdir(folder):
            continue
        with contextlib.suppress(QlaunchError):
            handle = machines.lock(name)
            try:
                running = name in machines.running_names()
                if not running and find_machine(name, machines.log_path(name)) is None:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


async def _adopt(actor: Actor, tasks: Tasks) -> None:
    """Make `actor` the host of its machine if that still runs; else its end is noted."""
    name = actor.name
    files.remove(paths.run_socket(name))  # of a `qlaunch run` that was killed: we have its lock
    plan, record = machines.load_plan(name), machines.load_run(name)
    session = await _session(plan) if plan is not None else None
    process = _process(name, record, session)
    if process is None:
        if session is not None:
            await session.close()
        _note_end(name, "ended while no supervisor looked")
        return
    known = record or machines.RunRecord(started=time.time())
    plain = records.to_plain(process.id)
    if record is None or known.process != plain:
        known = evolve(known, process=plain)
        await finish(asyncio.to_thread(machines.save_run, name, known))
    actor.warnings = known.warnings
    if plan is None:
        note(f"{name}: QEMU (pid {process.pid}) runs, but its saved plan is damaged")
        actor.watch_orphan(process)
    else:
        await _take_over(actor, tasks, _machine(plan, known, process, session, tasks), known)
    actor.since = known.started


def _machine(
    plan: Plan,
    record: machines.RunRecord,
    process: Process,
    session: Session | None,
    tasks: Tasks,
) -> Machine:
    log = MachineLog.open_if_possible(plan.name)
    helpers = [_recorded(plain) for plain in record.helpers]
    return Machine(
        plan=plan,
        log=log,
        process=process,
        session=session,
        gateway=Gateway.of(plan, say=log.say, group=tasks),
        cables=Cables(name=plan.name, log=log, group=tasks),
        consoles={
            ident: Console(ident, machines.console_log_path(plan.name, ident), recall=True)
            for ident in plan.serials
        },
        helpers=[helper for helper in helpers if helper is not None],
        started=record.started,
        landlock=record.landlock,
        tcp=record.tcp,
    )


async def _take_over(
    actor: Actor, tasks: Tasks, machine: Machine, record: machines.RunRecord
) -> None:
    state = await machine.run_state()
    if state in ("prelaunch", "inmigrate") and not record.begun:
        # Nobody was told that it started, and the guest has not executed an instruction.
        machine.log.say(CUT_OFF)
        await finish(stop.force(machine, lambda name, text: machine.log.say(text)))
        await machine.clear_away()
        _note_end(actor.name, CUT_OFF)
        return
    machine.log.say(f"adopted QEMU (pid {machine.process.pid}), which is {state}")
    actor.tell("adopted", pid=machine.process.pid)
    for endpoint in machine.plan.display.endpoints:
        try:
            machine.gateway.bind(endpoint)
        except QlaunchError as error:
            machine.log.say(f"no {endpoint.protocol}: {error.message}")
    assert machine.cables is not None
    await machine.cables.adopt(machine.plan.nics, record.passts)
    with contextlib.suppress(QlaunchError):  # a full disk: that passt lives with its QEMU anyway
        await note_passts(machine)
    actor.watch(machine)
    if machine.session is not None:
        await machine.heed_policy()  # the one before may have ended in the middle of a reset
        try:
            await machine.reopen()
        except QlaunchError as error:
            machine.log.say(f"while adopting: {error.message}")
    actor.note_state(state)
    if state == "io-error":
        from qlaunch.supervisor import full_disk

        await full_disk.note_adopted(actor, machine)


async def _session(plan: Plan) -> Session | None:
    path = plan.chardev("qmp").path
    try:
        return await Session.connect(path, name=plan.name, timeout=ADOPT_TIMEOUT)
    except QlaunchError:
        return None


def _process(
    name: str, record: machines.RunRecord | None, session: Session | None
) -> Process | None:
    """The QEMU: who answers on the socket, who was recorded and lives, or who says that it is."""
    found = _by_pid(session.peer_pid) if session is not None else None
    if found is None and record is not None and record.process is not None:
        found = _recorded(record.process)
        if found is None and _is_identity(record.process):
            return None
    return found or _by_name(name)


def _recorded(plain: object) -> Process | None:
    try:
        return Process.adopt(records.from_plain(ProcessId, plain))
    except records.RecordError:
        return None


def _is_identity(plain: object) -> bool:
    try:
        records.from_plain(ProcessId, plain)
    except records.RecordError:
        return False
    return True


def _by_pid(pid: int) -> Process | None:
    try:
        return Process.adopt(ProcessId.of(pid))
    except OSError:
        return None


def _by_name(name: str) -> Process | None:
    """A QEMU that was spawned and not yet noted, or the note about which is damaged."""
    pid = find_machine(name, machines.log_path(name))
    return None if pid is None else _by_pid(pid)


def _note_end(name: str, reason: str) -> None:
    """QEMU ended while nobody looked."""
    shutil.rmtree(paths.machine_runtime(name), ignore_errors=True)
    events.note(name, "ended", reason=reason, failed=False)
    with contextlib.suppress(QlaunchError):
        machines.end_run(name, reason, time.time())
