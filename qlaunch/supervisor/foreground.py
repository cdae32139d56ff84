"""`qlaunch run`: the supervisor in the foreground, for one machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from qlaunch import records
from qlaunch.errors import ConflictError, QlaunchError, TimedOutError
from qlaunch.host.process import Process, ProcessId
from qlaunch.machine.launch import Order
from qlaunch.machine.prepare import Prepared, prepare
from qlaunch.store import machines, paths
from qlaunch.supervisor.actor import Actor, Tell
from qlaunch.supervisor.server import Server


def run_foreground(profile: str, overrides: Sequence[str] = (), *, name: str | None = None) -> int:
    """Run the machine of `profile` until it ends. Ctrl-C and SIGTERM stop it gracefully, a second
    one at once.

    Returns: 0 when the guest ended well, 1 when it failed. Raises: as a start does.
    """
    os.umask(0o077)
    return asyncio.run(_run(profile, overrides, name))


async def _run(profile: str, overrides: Sequence[str], name: str | None) -> int:
    prepared = await prepare(profile, name=name, overrides=overrides)
    paths.ensure_private(paths.runtime_dir())
    if prepared.plan.name in machines.running_names() and not _is_stale(prepared.plan.name):
        raise ConflictError(f"{prepared.plan.name} runs already", hint="`qlaunch ps` shows it")
    prepared.raise_errors()
    server = Server(paths.run_socket(prepared.plan.name), foreground=True)
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(adopt=False, ready=ready))
        await ready.wait()
        try:
            return await _host(server, prepared)
        finally:
            server.stop()
            await asyncio.wait({serving})


def _is_stale(name: str) -> bool:
    """Whether the machine's record is left over from a supervisor and a QEMU that are both gone."""
    record = machines.load_run(name)
    if record is None or record.process is None:
        return True
    process = Process.adopt(records.from_plain(ProcessId, dict(record.process)))
    if process is None:
        return True
    process.close()
    return False


async def _host(server: Server, prepared: Prepared) -> int:
    actor = server.host(prepared.plan.name)
    asked = _Signals(asyncio.get_running_loop())

    def step(name: str, text: str, seconds: float) -> None:
        print(f"{actor.name}  {name:<8} {text}", file=sys.stderr, flush=True)

    for finding in prepared.resolution.warnings:
        print(f"qlaunch: warning: {finding.where}: {finding.message}", file=sys.stderr)
    await actor.start(
        Order(
            plan=prepared.plan,
            leases=prepared.resolution.leases,
            group=server.tasks,
            swtpm=prepared.facts.host.swtpm,
            qemu_img=prepared.facts.host.qemu_img,
            environment=dict(os.environ),
            step=step,
        )
    )
    print(f"{actor.name} runs; Ctrl-C stops it", file=sys.stderr, flush=True)
    stopper = server.tasks.create_task(_stop_when_asked(actor, asked, step))
    await actor.gone.wait()
    stopper.cancel()
    asked.close()
    last = machines.last_end(actor.name) or {}
    print(f"{actor.name} ended: {last.get('reason', 'unknown')}", file=sys.stderr, flush=True)
    return 1 if actor.state == "failed" else 0


class _Signals:
    """Counts the requests to stop."""

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


async def _stop_when_asked(actor: Actor, asked: _Signals, step: Tell) -> None:
    await asked.next()
    graceful = asyncio.ensure_future(actor.down(timeout=None, force=True, tell=step))
    second = asyncio.ensure_future(asked.next())
    await asyncio.wait({graceful, second}, return_when=asyncio.FIRST_COMPLETED)
    if not graceful.done():
        try:
            await actor.kill(step)
        except (QlaunchError, TimedOutError) as error:
            print(f"qlaunch: {error.message}", file=sys.stderr)
    second.cancel()
    await asyncio.gather(graceful, second, return_exceptions=True)
