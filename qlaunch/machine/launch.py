"""From a plan to a running QEMU. What is made is undone in reverse when anything fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from attrs import Factory, define, evolve

from qlaunch import records
from qlaunch.aio import Spawner, finish, first_of
from qlaunch.argv import build, confine, scope_prefix
from qlaunch.errors import (
    HostError,
    LaunchError,
    NotFoundError,
    QlaunchError,
    SessionLostError,
    TimedOutError,
)
from qlaunch.host.images import create_image
from qlaunch.host.landlock import TCP, abi
from qlaunch.host.process import Process
from qlaunch.machine import memory_load, scope
from qlaunch.machine.cables import Cables
from qlaunch.machine.clock import rtc_base
from qlaunch.machine.console import Console
from qlaunch.machine.gateway import Gateway
from qlaunch.machine.handles import Opened, open_all
from qlaunch.machine.log import MachineLog, last_words
from qlaunch.machine.machine import Machine, end_process, ensure_folder
from qlaunch.machine.secrets import check_password, environment_for_qemu, read_secret
from qlaunch.machine.tpm import start_swtpm
from qlaunch.plan import Leases, Plan
from qlaunch.qmp.session import Session
from qlaunch.store import machines, paths
from qlaunch.units import format_size

GREETING_TIMEOUT = 30.0
# How long a QEMU that hung up may take to end.
LAST_WORDS_TIMEOUT = 10.0
Step = Callable[[str, str, float], None]


@define(kw_only=True)
class Order:
    """What `launch` is to start and how. `step(step, text, seconds)` is told of each step.

    `incoming` is a memory file: the machine goes on from it instead of booting. `before_go` is
    awaited when nothing can fail any more, just before the guest's first instruction.
    """

    plan: Plan
    leases: Leases
    group: Spawner
    swtpm: str | None = None
    qemu_img: str | None = None
    paused: bool = False
    environment: Mapping[str, str] = Factory(dict)
    warnings: tuple[Mapping[str, Any], ...] = ()
    step: Step = lambda step, text, seconds: None
    incoming: str | None = None
    before_go: Callable[[], Awaitable[None]] | None = None


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
        await _make_images(order, log, undo)
        password = _password(order)
        _sockets_folder(plan, undo)
        gateway = Gateway.of(plan, say=log.say, group=order.group)
        undo.push_async_callback(gateway.ended)
        for endpoint in plan.display.endpoints:
            gateway.bind(endpoint)
        machine, record = await _start(order, log, gateway, undo)
        for ident in plan.serials:
            console = Console(ident, machines.console_log_path(plan.name, ident))
            undo.callback(console.close)
            machine.consoles[ident] = console
        await _begin(machine, order, password, since)
        if order.paused:
            done = evolve(record, begun=True)
            await finish(asyncio.to_thread(machines.save_run, plan.name, done))
        log.say("running" if not order.paused else "paused before its first instruction")
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
    shutil.rmtree(path, ignore_errors=True)


def _remove_if_empty(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)


async def _make_images(order: Order, log: MachineLog, undo: AsyncExitStack) -> None:
    """Make the disks and the NVRAM that do not exist yet. They stay when the start fails: a disk
    is the user's wish, and an empty one is made again just so."""
    plan = order.plan
    ensure_folder(plan.places.data)
    undo.callback(_remove_if_empty, plan.places.data)
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


async def _start(
    order: Order, log: MachineLog, gateway: Gateway, undo: AsyncExitStack
) -> tuple[Machine, machines.RunRecord]:
    """QEMU that has greeted; in a scope of its own, or without one and with a warning."""

    async def attempt(plan: Plan) -> tuple[Machine, machines.RunRecord]:
        begun, since = time.monotonic(), log.position()
        scope.check_program(plan)
        async with AsyncExitStack() as mine:
            machine, record = await _spawn(evolve(order, plan=plan), log, gateway, mine)
            try:
                machine.session = await _greet(machine, since)
            except (LaunchError, TimedOutError):
                scope.check_entered(plan, log, since)
                raise
            mine.push_async_callback(machine.session.close)
            text = f"pid {machine.process.pid}, {plan.board.accel}"
            order.step("qemu", text, time.monotonic() - begun)
            undo.push_async_exit(mine.pop_all())
        return machine, record

    def without_scope(finding: Mapping[str, Any], seconds: float) -> None:
        order.warnings = (*order.warnings, finding)
        log.say(f"warning: {finding['message']}")
        order.step("scope", "none", seconds)

    return await scope.with_scope(order.plan, attempt, without_scope)


async def _spawn(
    order: Order, log: MachineLog, gateway: Gateway, undo: AsyncExitStack
) -> tuple[Machine, machines.RunRecord]:
    """Start QEMU. Before that everything is on disk by which another supervisor finds it."""
    plan, opened = order.plan, Opened()
    undo.callback(opened.close)
    open_all(plan, opened)
    cables = await _cables(order, log, opened, undo)
    environment = environment_for_qemu(os.environ, [plan.display.password])
    helpers = _helpers(order, log, opened, undo)
    record = _record(order, helpers, cables)
    undo.callback(_forget, plan.name)
    # A thread that writes cannot be cancelled: what is undone must not appear again after it.
    await finish(asyncio.to_thread(_save, plan, order.leases, record))
    handles = evolve(opened.handles, rtc_base=rtc_base(plan.board))
    options = build(plan, handles, incoming=order.incoming is not None)
    argv = [word for option in options for word in option]
    log.say(
        f"starting {plan.name} with QEMU {plan.qemu_version}"
        f" ({plan.board.machine}, {plan.board.accel})"
    )
    process = Process.spawn(
        [*scope_prefix(plan), *argv],
        pass_fds=opened.descriptors,
        stdout_fd=log.fd,
        stderr_fd=log.fd,
        env=scope.environment(plan, environment),
        cwd="/",
        confinement=confine.qemu(plan),
    )
    undo.push_async_callback(_end, process)
    opened.close()
    record = evolve(record, process=records.to_plain(process.id))
    await finish(asyncio.to_thread(machines.save_run, plan.name, record))
    machine = Machine(
        plan=plan,
        log=log,
        process=process,
        session=None,
        gateway=gateway,
        cables=cables,
        helpers=helpers,
        started=record.started,
        landlock=record.landlock,
        tcp=record.tcp,
    )
    return machine, record


def _record(order: Order, helpers: list[Process], cables: Cables) -> machines.RunRecord:
    landlock = abi() if order.plan.sandbox else 0
    return machines.RunRecord(
        started=time.time(),
        landlock=landlock,
        tcp=landlock < TCP or confine.uses_tcp(order.plan),
        warnings=order.warnings,
        helpers=tuple(records.to_plain(helper.id) for helper in helpers),
        passts=cables.saved(),
    )


async def _end(process: Process) -> None:
    # Whoever cancels a start twice must not leave its QEMU behind.
    await finish(end_process(process))


def _helpers(order: Order, log: MachineLog, opened: Opened, undo: AsyncExitStack) -> list[Process]:
    """The programs that QEMU needs beside it."""
    if order.plan.tpm is None:
        return []
    theirs = opened.pair("tpm-chr")
    environment = environment_for_qemu(os.environ, [order.plan.display.password])
    helper = start_swtpm(order.swtpm or "swtpm", order.plan.tpm, theirs, log.fd, environment)
    undo.push_async_callback(_end, helper)
    return [helper]


async def _cables(order: Order, log: MachineLog, opened: Opened, undo: AsyncExitStack) -> Cables:
    """What the network cards are plugged into, open for QEMU."""
    cables = Cables(name=order.plan.name, log=log, group=order.group)
    undo.callback(cables.close)
    undo.push_async_callback(_end_cables, cables)
    await cables.open(order.plan, opened, order.step)
    return cables


async def _end_cables(cables: Cables) -> None:
    await finish(cables.clear_away())


def _forget(name: str) -> None:
    with contextlib.suppress(HostError):  # the next supervisor will see that nothing runs
        machines.drop_run(name)


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
    except SessionLostError as error:
        raise await _why_lost(machine, since, error) from None
    except TimedOutError as error:
        raise TimedOutError(
            f"{machine.name}: QEMU (pid {machine.process.pid}) said nothing"
            f" for {GREETING_TIMEOUT:.0f} s",
            hint=f"its output: qlaunch logs {machine.name}",
        ) from error
    except BaseException:
        for session in sessions:
            await session.close()
        raise
    if not sessions:
        raise _launch_error(machine, since)
    return sessions[0]


async def _why_lost(machine: Machine, since: int, error: SessionLostError) -> QlaunchError:
    """QEMU hung up: it is about to end, and its reason is worth waiting for."""
    try:
        await machine.process.wait(timeout=LAST_WORDS_TIMEOUT)
    except TimeoutError:
        return error
    return _launch_error(machine, since)


def _launch_error(machine: Machine, since: int) -> LaunchError:
    status = machine.process.exit_status
    words = last_words(machine.log.qemu_words(since))
    how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
    machine.log.say(f"QEMU did not start ({how}): {words}")
    hint = (
        f"`qlaunch argv {machine.name}` shows its command line,"
        f" `qlaunch logs {machine.name}` its output"
    )
    if machine.landlock and "ermission denied" in words:
        hint = f"it may be confined too far: security.read and security.write open more; {hint}"
    return LaunchError(f"{machine.name}: QEMU ended at once: {words}", hint=hint)


async def _begin(machine: Machine, order: Order, password: str | None, since: int) -> None:
    try:
        if order.incoming is not None:
            begun = time.monotonic()
            await memory_load.load_incoming(machine.talk(), order.incoming)
            order.step("memory", "loaded", time.monotonic() - begun)
        await machine.begin(
            paused=order.paused,
            password=password,
            continued=order.incoming is not None,
            before_go=order.before_go,
        )
    except (SessionLostError, NotFoundError) as error:
        lost = error if isinstance(error, SessionLostError) else SessionLostError(error.message)
        raise await _why_lost(machine, since, lost) from None
