"""From a plan to a running QEMU. What is made is undone in reverse when anything fails."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from attrs import Factory, define, evolve

from qlaunch import records
from qlaunch.aio import Spawner, finish, first_of
from qlaunch.argv import build, scope_prefix
from qlaunch.errors import HostError, LaunchError, SessionLostError, TimedOutError
from qlaunch.host.images import create_image
from qlaunch.host.process import Process
from qlaunch.machine.console import Console
from qlaunch.machine.gateway import Gateway
from qlaunch.machine.handles import Opened, open_all
from qlaunch.machine.log import MachineLog, last_words
from qlaunch.machine.machine import Machine, ensure_folder
from qlaunch.machine.secrets import check_password, read_secret
from qlaunch.machine.stop import end_process
from qlaunch.machine.tpm import start_swtpm
from qlaunch.plan import Leases, Plan
from qlaunch.qmp.session import Session
from qlaunch.store import machines, paths
from qlaunch.units import format_size

GREETING_TIMEOUT = 30.0
Step = Callable[[str, str, float], None]


@define(kw_only=True)
class Order:
    """What `launch` is to start and how. `step(step, text, seconds)` is told of each step."""

    plan: Plan
    leases: Leases
    group: Spawner
    swtpm: str | None = None
    qemu_img: str | None = None
    paused: bool = False
    environment: Mapping[str, str] = Factory(dict)
    warnings: tuple[Mapping[str, Any], ...] = ()
    restarts: tuple[float, ...] = ()
    step: Step = lambda step, text, seconds: None


async def launch(order: Order) -> Machine:
    """Start the machine of `order.plan` and return it with its guest running.

    The caller holds the machine's lock. On failure and on cancellation nothing is left: no
    process, no socket, no half-made image.

    Raises: LaunchError with QEMU's own words, HostError, ConflictError, TimedOutError.
    """
    plan = order.plan
    async with AsyncExitStack() as undo:
        log = MachineLog.open(plan.name)
        undo.callback(log.close)
        since = log.position()
        await _make_images(order, log)
        password = _password(order)
        _sockets_folder(plan, undo)
        gateway = Gateway(say=log.say, group=order.group)
        undo.callback(gateway.close)
        for endpoint in plan.display.endpoints:
            gateway.bind(endpoint)
        machine = await _spawn(order, log, gateway, undo)
        begun = time.monotonic()
        machine.session = await _greet(machine, since)
        undo.push_async_callback(machine.session.close)
        order.step(
            "qemu", f"pid {machine.process.pid}, {plan.board.accel}", time.monotonic() - begun
        )
        for ident in plan.serials:
            console = Console(ident, machines.console_log_path(plan.name, ident))
            undo.callback(console.close)
            machine.consoles[ident] = console
        await _begin(machine, order, password, since)
        undo.pop_all()
        return machine


def _password(order: Order) -> str | None:
    secret = order.plan.display.password
    if secret is None:
        return None
    return check_password(
        read_secret(secret, order.environment, what="display.password"), what="display.password"
    )


def _sockets_folder(plan: Plan, undo: AsyncExitStack) -> None:
    paths.ensure_private(os.path.dirname(plan.places.runtime))
    paths.ensure_private(plan.places.runtime)
    undo.callback(_remove_folder, plan.places.runtime)


def _remove_folder(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


async def _make_images(order: Order, log: MachineLog) -> None:
    """Make the disks and the NVRAM that do not exist yet. They stay when the start fails: a disk
    is the user's wish, and an empty one is made again just so."""
    plan = order.plan
    ensure_folder(plan.places.data)
    for creation in plan.creations():
        begun = time.monotonic()
        ensure_folder(os.path.dirname(creation.path))
        await create_image(
            creation.path,
            image_format=creation.format,
            size=creation.size,
            backing=creation.backing,
            backing_format=creation.backing_format,
            template=creation.template,
            template_format=creation.template_format,
            qemu_img=order.qemu_img,
        )
        size = f" {format_size(creation.size)}" if creation.size else ""
        text = f"made {os.path.basename(creation.path)},{size} {creation.format}"
        log.say(text)
        order.step("disk", text, time.monotonic() - begun)


async def _spawn(order: Order, log: MachineLog, gateway: Gateway, undo: AsyncExitStack) -> Machine:
    """Start QEMU. Before that everything is on disk by which another supervisor finds it."""
    plan, opened, helpers = order.plan, Opened(), []
    undo.callback(opened.close)
    open_all(plan, opened)
    if plan.tpm is not None:
        helper = start_swtpm(order.swtpm or "swtpm", plan.tpm, opened.pair("tpm-chr"), log.fd)
        undo.push_async_callback(end_process, helper)
        helpers.append(helper)
    record = machines.RunRecord(
        started=time.time(), warnings=order.warnings, restarts=order.restarts
    )
    await asyncio.to_thread(_save, plan, order.leases, record)
    undo.callback(machines.drop_run, plan.name)
    argv = [word for option in build(plan, opened.handles) for word in option]
    log.say(
        f"starting {plan.name} with QEMU {plan.qemu_version}"
        f" ({plan.board.machine}, {plan.board.accel})"
    )
    process = Process.spawn(
        [*scope_prefix(plan), *argv],
        pass_fds=opened.descriptors,
        stdout_fd=log.fd,
        stderr_fd=log.fd,
        cwd="/",
    )
    undo.push_async_callback(end_process, process)
    opened.close()
    identity = records.to_plain(process.id)
    await asyncio.to_thread(machines.save_run, plan.name, evolve(record, process=identity))
    return Machine(
        plan=plan,
        log=log,
        process=process,
        session=None,
        gateway=gateway,
        helpers=helpers,
        started=record.started,
    )


def _save(plan: Plan, leases: Leases, record: machines.RunRecord) -> None:
    machines.save_leases(plan.name, leases)
    machines.save_plan(plan)
    machines.save_run(plan.name, record)


async def _greet(machine: Machine, since: int) -> Session:
    """The session with a QEMU that has just been started.

    Raises: LaunchError when it ended instead, TimedOutError when it says nothing.
    """
    sessions: list[Session] = []

    async def connect() -> None:
        path = machine.plan.chardev("qmp").path
        sessions.append(await Session.connect(path, name=machine.name, timeout=GREETING_TIMEOUT))

    try:
        await first_of(connect(), machine.process.wait())
    except SessionLostError:
        # It hung up: it is about to end, and its reason is worth waiting for.
        await _wait_for_end(machine)
    except TimedOutError as error:
        raise TimedOutError(
            f"{machine.name}: QEMU (pid {machine.process.pid}) said nothing"
            f" for {GREETING_TIMEOUT:.0f} s",
            hint=f"its output: qlaunch logs {machine.name}",
        ) from error
    if not sessions:
        raise _launch_error(machine, since)
    return sessions[0]


async def _wait_for_end(machine: Machine) -> None:
    try:
        await machine.process.wait(timeout=GREETING_TIMEOUT)
    except TimeoutError:
        return


def _launch_error(machine: Machine, since: int) -> LaunchError:
    status = machine.process.exit_status
    words = last_words(machine.log.qemu_words(since))
    how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
    machine.log.say(f"QEMU did not start ({how}): {words}")
    return LaunchError(
        f"{machine.name}: QEMU ended at once: {words}",
        hint=f"`qlaunch argv {machine.name}` shows its command line,"
        f" `qlaunch logs {machine.name}` its output",
    )


async def _begin(machine: Machine, order: Order, password: str | None, since: int) -> None:
    try:
        await machine.begin(paused=order.paused, password=password)
    except SessionLostError:
        await _wait_for_end(machine)
        raise _launch_error(machine, since) from None
    name = machine.name
    record = machines.load_run(name)
    if record is not None:
        await finish(asyncio.to_thread(machines.save_run, name, evolve(record, begun=True)))
    else:
        raise HostError(f"{name}: its run record vanished from {machines.places(name).state}")
    machine.log.say("running" if not order.paused else "paused before its first instruction")
