"""A connection to a port of a guest, carried over the control socket: a door that nobody else sees.

Where the guest is on a network of ours, the network service connects. On QEMU's user network a
forward on a free port of loopback is made for it, and taken away once the guest has answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from qlaunch.aio import finish
from qlaunch.argv import cables as words
from qlaunch.control.words import encode
from qlaunch.errors import HostError, QlaunchError, RefusedError, UsageError
from qlaunch.machine import nic_plan, reach
from qlaunch.machine.machine import Machine
from qlaunch.plan.forwards import LOOPBACK, Forward
from qlaunch.plan.model import Nic, Plan
from qlaunch.supervisor.request import Request

# How long this computer's own QEMU may take to accept a connection.
CONNECT_TIMEOUT = 5.0
# Ports that somebody else may take between the question for a free one and its use.
TRIES = 5
_BLOCK = 1 << 16


async def dial(request: Request) -> Any:
    """Answer, then carry bytes between the client and a port of the guest, until either hangs
    up."""
    port = request.args.get("port")
    if type(port) is not int or not 0 < port < 65536:
        raise UsageError("a port is 1 to 65535")
    machine = (await request.actor()).running()
    nic = _card(machine.plan, request.optional_text("nic"), port)
    if nic.backend == "user":
        await _through_user(request, machine, nic, port)
        return None
    sock = await reach.dial(machine.name, nic, port)
    await _carry(request, nic, sock)
    return None


def _card(plan: Plan, wanted: str | None, port: int) -> Nic:
    """The card behind which a connection can be made. Raises: NotFoundError, RefusedError."""
    cards = [nic_plan.card_of(plan, wanted)] if wanted else list(plan.nics)
    usable = [nic for nic in cards if nic.attachment is not None or nic.backend == "user"]
    if not usable:
        raise RefusedError(
            f"{plan.name}: no card of it can be connected to without a forward",
            hint=f"`qlaunch forward {plan.name} {port + 8000 if port < 1024 else port}:{port}`",
        )
    # A card without a cable in leads nowhere.
    return next((nic for nic in usable if nic.link == "up"), usable[0])


async def _through_user(request: Request, machine: Machine, nic: Nic, port: int) -> None:
    """By a forward that is there for as long as it takes the guest to answer."""
    each = await _make_forward(machine, nic, port)
    undone = False

    async def undo() -> None:
        nonlocal undone
        if not undone and not machine.process.ended:
            undone = True
            with contextlib.suppress(QlaunchError):
                await _monitor(machine, words.remove_forward(nic.id, each))

    try:
        sock = await _connect(each)
        await _carry(request, nic, sock, answered=undo)
    finally:
        await finish(undo())


async def _make_forward(machine: Machine, nic: Nic, port: int) -> Forward:
    answer = ""
    for _ in range(TRIES):
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            free = int(probe.getsockname()[1])
        each = Forward("tcp", LOOPBACK, free, port)
        answer = await _monitor(machine, words.add_forward(nic.id, each))
        if not answer:
            return each
    raise HostError(f"{machine.name}: QEMU makes no forward: {answer}")


async def _monitor(machine: Machine, line: str) -> str:
    arguments = {"command-line": line}
    return str(await machine.talk().execute("human-monitor-command", arguments)).strip()


async def _connect(each: Forward) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await asyncio.get_running_loop().sock_connect(sock, (each.address, each.port))
    except (OSError, TimeoutError) as error:
        sock.close()
        raise HostError(f"QEMU does not accept a connection: {error}") from error
    except BaseException:
        sock.close()
        raise
    return sock


async def _nothing() -> None:
    """What is to be done when the guest has answered."""


async def _carry(request: Request, nic: Nic, sock: socket.socket, answered: Any = _nothing) -> None:
    """Say where it leads, then carry bytes both ways until the first of both has ended."""
    reader, writer = await asyncio.open_connection(sock=sock)
    request.writer.write(encode({"result": {"name": request.text("name"), "nic": nic.id}}))

    async def inwards() -> None:
        while data := await request.reader.read(_BLOCK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        await asyncio.Event().wait()  # what the guest still says is waited for

    async def outwards() -> None:
        first = True
        while data := await reader.read(_BLOCK):
            if first:
                first = False
                await answered()
            request.writer.write(data)
            await request.writer.drain()

    tasks = [asyncio.ensure_future(inwards()), asyncio.ensure_future(outwards())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await finish(asyncio.wait(tasks))
        for task in tasks:
            if not task.cancelled():
                task.exception()  # a connection that broke is the end of it, and no more
        writer.close()
