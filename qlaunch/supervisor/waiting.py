"""Waiting for what a machine does, and the supervisor's own verb."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from qlaunch.errors import PhaseError, TimedOutError, UsageError
from qlaunch.store import machines, paths
from qlaunch.supervisor.request import Request

if TYPE_CHECKING:
    from qlaunch.supervisor.server import Server


async def wait(request: Request) -> Any:
    wanted = request.optional_text("for") or "stopped"
    if wanted not in ("stopped", "running"):
        raise UsageError(f"cannot wait for {wanted!r}", hint="wait for stopped or running")
    name = paths.check_name(request.text("name"))
    limit = request.seconds("timeout")
    server = request.server
    await server.adopt_strays()
    try:
        async with asyncio.timeout(limit):
            if wanted == "running":
                await _wait_running(server, name)
            elif (actor := server.actors.get(name)) is not None:
                await actor.gone.wait()
    except TimeoutError:
        there = server.actors.get(name)
        state = there.state if there else "stopped"
        raise TimedOutError(f"{name} is {state}, not {wanted}, after {limit:g} s") from None
    return {"name": name, "state": wanted}


async def _wait_running(server: Server, name: str) -> None:
    """Wait until `name` runs, also when nobody has started it yet.

    Raises: PhaseError when it ends instead.
    """
    seen = server.actors.get(name)
    while seen is None or seen.state != "running":
        if seen is not None and seen.gone.is_set():
            last = machines.last_end(name) or {}
            raise PhaseError(f"{name} does not run: {last.get('reason', 'its start failed')}")
        await server.change()
        seen = server.actors.get(name, seen)


async def supervisor(request: Request) -> Any:
    action = request.optional_text("action") or "status"
    server = request.server
    if action not in ("status", "stop"):
        raise UsageError(f"the supervisor cannot {action!r}", hint="status or stop")
    request.last = action == "stop"
    return {
        "pid": os.getpid(),
        "version": server.version,
        "since": server.started,
        "machines": sorted(server.actors),
        "socket": server.path,
    }
