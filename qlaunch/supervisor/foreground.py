"""`qlaunch run`: the supervisor in the foreground, for one machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from qlaunch.errors import BusyError, ConflictError, QlaunchError
from qlaunch.host.notify import notify
from qlaunch.machine.held import running_pid
from qlaunch.machine.launch import Order
from qlaunch.machine.prepare import Prepared, prepare
from qlaunch.store import machines, paths
from qlaunch.supervisor import power
from qlaunch.supervisor.actor import Actor, Tell
from qlaunch.supervisor.server import Server

# How much longer than the guest may take a service manager is asked to wait for us.
PATIENCE = 30.0
# Ends that are the guest's own and no good ones.
CRASHES = ("guest-panic",)


def run_foreground(profile: str, overrides: Sequence[str] = (), *, name: str | None = None) -> int:
    """Run the machine of `profile` until it ends. Ctrl-C and SIGTERM stop it gracefully, a second
    one at once.

    Returns: 0 when the guest ended well, 1 when it panicked or QEMU failed.
    Raises: as a start does.
    """
    os.umask(0o077)
    return asyncio.run(_run(profile, overrides, name))


async def _run(profile: str, overrides: Sequence[str], name: str | None) -> int:
    prepared = await prepare(profile, name=name, overrides=overrides)
    machine = prepared.plan.name
    paths.ensure_private(paths.runtime_dir())
    if (pid := running_pid(machine)) is not None:
        raise ConflictError(f"{machine} runs already (pid {pid})", hint="`qlaunch ps` shows it")
    prepared.raise_errors()
    server, ready = Server(paths.run_socket(machine), foreground=True), asyncio.Event()
    server.listen()
    outcome: int | QlaunchError = 1
    # An error that left the group's body would come out wrapped in a group.
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(adopt=False, ready=ready))
        await ready.wait()
        try:
            outcome = await _host(server, prepared)
            await server.settle()
        except QlaunchError as error:
            outcome = error
        finally:
            server.stop()
    if isinstance(outcome, QlaunchError):
        raise outcome
    return outcome


async def _host(server: Server, prepared: Prepared) -> int:
    """Start the machine and look after it to its end, or to its stop by a signal."""
    actor = server.host(prepared.plan.name)
    for finding in prepared.resolution.warnings:
        _say(f"qlaunch: warning: {finding.where}: {finding.message}")
    signals = _Signals(asyncio.get_running_loop())
    stopper = server.tasks.create_task(_stop_when_asked(actor, signals, _teller(actor.name)))
    try:
        await actor.start(_order(server, prepared))
        server.tidy(prepared.plan.name)
        _say(f"{actor.name} runs; Ctrl-C stops it")
        notify(READY=1, STATUS=f"{actor.name} runs")
        await actor.gone.wait()
    finally:
        stopper.cancel()
        signals.close()
    last = machines.last_end(actor.name) or {}
    _say(f"{actor.name} ended: {last.get('reason', 'unknown')}")
    failed = actor.state == "failed" or last.get("reason") in CRASHES
    return 1 if failed else 0


def _order(server: Server, prepared: Prepared) -> Order:
    return Order(
        plan=prepared.plan,
        leases=prepared.resolution.leases,
        group=server.tasks,
        swtpm=prepared.facts.host.swtpm,
        qemu_img=prepared.facts.host.qemu_img,
        environment=dict(os.environ),
        warnings=tuple(finding.to_dict() for finding in prepared.resolution.warnings),
        step=_teller(prepared.plan.name),
    )


def _teller(machine: str) -> Tell:
    def tell(name: str, text: str, seconds: float) -> None:
        _say(f"{machine}  {name:<8} {text}")
        notify(STATUS=f"{machine}: {text}")

    return tell


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Signals:
    """The requests to stop, one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: asyncio.Queue[None] = asyncio.Queue()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked.put_nowait, None)

    async def next(self) -> None:
        await self._asked.get()

    def close(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)


async def _stop_when_asked(actor: Actor, signals: _Signals, step: Tell) -> None:
    await signals.next()
    limit = actor.machine.plan.lifecycle.stop_timeout if actor.machine is not None else 0.0
    notify(STOPPING=1, EXTEND_TIMEOUT_USEC=int((limit + PATIENCE) * 1e6))
    async with asyncio.TaskGroup() as group:
        graceful = group.create_task(_quietly_down(actor, step))
        while not actor.gone.is_set():
            await signals.next()
            await _quietly_kill(actor, step)
        graceful.cancel()


async def _quietly_down(actor: Actor, step: Tell) -> None:
    try:
        await power.down(actor, timeout=None, force=True, tell=step)
    except BusyError:
        return  # a second signal ended it
    except QlaunchError as error:
        _say(f"qlaunch: {error.message}")


async def _quietly_kill(actor: Actor, step: Tell) -> None:
    try:
        await power.kill(actor, step)
    except QlaunchError as error:
        _say(f"qlaunch: {error.message}")
