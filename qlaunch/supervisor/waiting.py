"""Waiting for what a machine does, and the supervisor's own verb."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from qlaunch.aio import first_of
from qlaunch.errors import PhaseError, QlaunchError, TimedOutError, UsageError
from qlaunch.machine.machine import Machine
from qlaunch.plan.forwards import Forward
from qlaunch.qmp.agent import Agent
from qlaunch.store import machines, paths
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.request import Request

if TYPE_CHECKING:
    from qlaunch.supervisor.server import Server

Condition = Callable[[Machine, str], Coroutine[Any, Any, None]]
WAITS = "wait for running, stopped, agent, ssh, serial:TEXT or port:NUMBER"
# What cannot tell of itself is asked again so often, while somebody waits for it.
PAUSE = 0.5
AGENT_TIMEOUT = 3.0
CONNECT_TIMEOUT = 3.0
# A connection that is open for so long was taken by the guest.
STAYS = 1.0


async def wait(request: Request) -> Any:
    wanted = request.optional_text("for") or "stopped"
    name = paths.check_name(request.text("name"))
    limit = request.seconds("timeout")
    server = request.server
    kind, _, about = wanted.partition(":")
    if kind not in _CONDITIONS and wanted not in ("stopped", "running"):
        raise UsageError(f"cannot wait for {wanted!r}", hint=WAITS)
    await server.adopt_strays()
    try:
        async with asyncio.timeout(limit):
            if wanted != "stopped":
                await _wait_running(server, name)
            elif (actor := server.actors.get(name)) is not None:
                await actor.gone.wait()
            if kind in _CONDITIONS:
                await _until(server.actors[name], _CONDITIONS[kind], about)
    except TimeoutError:
        there = server.actors.get(name)
        state = there.state if there else "stopped"
        raise TimedOutError(f"{name} is {state}, not {wanted}, after {limit:g} s") from None
    return {"name": name, "state": wanted}


async def _until(actor: Actor, condition: Condition, about: str) -> None:
    """Wait for the condition, or for the machine's end. Raises: PhaseError, UsageError."""
    if await first_of(condition(actor.running(), about), actor.gone.wait()):
        last = machines.last_end(actor.name) or {}
        raise PhaseError(f"{actor.name} has ended: {last.get('reason', 'unknown')}")


# ---- what can be waited for ---------------------------------------------------------------------


async def _agent(machine: Machine, about: str) -> None:
    """The guest agent answers."""
    if machine.plan.agent is None:
        hint = "agents.guest = true in its profile; the guest needs qemu-guest-agent"
        raise UsageError(f"{machine.name} has no guest agent's channel", hint=hint)
    path = machine.plan.chardev(machine.plan.agent).path
    while not await _answers(path):  # noqa: ASYNC110 -- nobody tells
        await asyncio.sleep(PAUSE)


async def _answers(path: str) -> bool:
    try:
        agent = await Agent.connect(path)
    except QlaunchError:
        return False
    try:
        await agent.ping(AGENT_TIMEOUT)
    except QlaunchError:
        return False
    finally:
        await agent.close()
    return True


async def _serial(machine: Machine, about: str) -> None:
    """The guest writes `about` (or has written it) to its first serial port."""
    if not machine.consoles:
        raise UsageError(f"{machine.name} has no serial port")
    if not about:
        raise UsageError("wait for which text?", hint="--for serial:'login:'")
    console, wanted = next(iter(machine.consoles.values())), about.encode()
    tail, found = bytearray(console.backlog), asyncio.Event()

    def heard(data: bytes) -> None:
        tail.extend(data)
        if wanted in tail:
            found.set()
        del tail[: -len(wanted)]

    heard(b"")
    with console.listening(heard):
        await found.wait()


async def _port(machine: Machine, about: str) -> None:
    """Something in the guest takes connections on the TCP port `about`."""
    if not about.isdigit() or not 0 < int(about) < 65536:
        raise UsageError(f"{about!r} is not a port", hint="--for port:80")
    await _reached(machine, int(about), banner=b"")


async def _ssh(machine: Machine, about: str) -> None:
    """The guest's SSH server greets."""
    await _reached(machine, 22, banner=b"SSH-")


async def _reached(machine: Machine, port: int, *, banner: bytes) -> None:
    ways = _ways(machine, port)
    if not ways:
        raise UsageError(
            f"no way leads from here to port {port} of {machine.name}",
            hint=f'forward = ["{port + 2000 if port < 60000 else port}:{port}"] at its [[nic]]',
        )
    while not any([await _greets(way, banner) for way in ways]):  # noqa: ASYNC110 -- nobody tells
        await asyncio.sleep(PAUSE)


def _ways(machine: Machine, port: int) -> list[tuple[str, int]]:
    """Addresses and ports on which that port of the guest can be reached from here."""
    found = []
    for nic in machine.plan.nics:
        for text in nic.forwards or (nic.attachment.forwards if nic.attachment else ()):
            forward = Forward.parse(text)
            if (forward.proto, forward.to_port) == ("tcp", port):
                to_any = {"0.0.0.0": "127.0.0.1", "::": "::1"}
                found.append((to_any.get(forward.address, forward.address), forward.port))
        if nic.attachment is not None and nic.attachment.ipv4:
            found.append((nic.attachment.ipv4.partition("/")[0], port))
    return found


async def _greets(way: tuple[str, int], banner: bytes) -> bool:
    """Whether somebody is there. Who forwards takes every connection and hangs up when the guest
    refuses it: so one that only stays open counts as taken."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            reader, writer = await asyncio.open_connection(*way)
    except (OSError, TimeoutError):
        return False
    said = b""
    try:
        async with asyncio.timeout(STAYS):
            said = await reader.read(len(banner) or 1)
    except TimeoutError:
        return not banner
    except OSError:
        return False
    finally:
        writer.transport.abort()
    return bool(said) and said.startswith(banner)


_CONDITIONS: dict[str, Condition] = {
    "agent": _agent, "ssh": _ssh, "serial": _serial, "port": _port
}  # fmt: skip


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
    if action not in ("status", "stop", "restart"):
        raise UsageError(f"the supervisor cannot {action!r}", hint="status, stop or restart")
    if action == "restart" and server.foreground:
        raise UsageError("a `qlaunch run` cannot be restarted", hint="its machine would end")
    request.last, request.anew = action != "status", action == "restart"
    return {
        "pid": os.getpid(),
        "version": server.version,
        "since": server.started,
        "machines": sorted(server.actors),
        "socket": server.path,
    }
