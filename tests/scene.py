"""A fake QMP server, or guest agent, that plays a script on a real unix socket.

    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.event("STOP")
        await stage.answer("query-status", {"running": False, "status": "paused"})

    async with scene(path, script) as stages:
        session = await Session.connect(path, name="xp")

Each client that connects gets the next script, in its own turn. A script that ends leaves the
connection open; `hang_up` closes it. A script that heard something unexpected fails the test.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from qlaunch.errors import QlaunchError
from qlaunch.qmp.session import Session
from qlaunch.qmp.sockets import readable

GREETING: dict[str, object] = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "fake"},
        "capabilities": ["oob"],
    }
}
_CHUNK = 1 << 16

Script = Callable[["Stage"], Awaitable[None]]


class Stage:
    """One client's connection, seen from the server."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""
        self.heard: list[dict[str, Any]] = []
        # QEMU keeps the newest descriptor until a command takes it.
        self.descriptor: int | None = None

    # ---- speaking -------------------------------------------------------------------------------

    async def say(self, message: Mapping[str, object] | bytes) -> None:
        """Send a message as one line, or bytes as they are."""
        line = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\r\n"
        await asyncio.get_running_loop().sock_sendall(self._socket, line)

    async def repeat(self, words: bytes) -> None:
        """Send the same bytes until the client hangs up."""
        chunk = words * max(1, _CHUNK // len(words))
        try:
            while True:
                await asyncio.sleep(0)
                await self.say(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass

    async def event(self, name: str, data: Mapping[str, object] | None = None) -> None:
        stamp = {"seconds": 1_700_000_000, "microseconds": 250_000}
        await self.say({"event": name, "data": dict(data or {}), "timestamp": stamp})

    async def reply(self, value: object = None, *, to: Mapping[str, Any] | None = None) -> None:
        """Answer the command heard last, or `to`."""
        command = self.heard[-1] if to is None else to
        await self.say({"return": {} if value is None else value, "id": command.get("id")})

    async def refuse(self, reason: str, error_class: str = "GenericError") -> None:
        """Answer the command heard last with an error."""
        error = {"class": error_class, "desc": reason}
        await self.say({"error": error, "id": self.heard[-1].get("id")})

    def hang_up(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    # ---- hearing --------------------------------------------------------------------------------

    async def hear(self, command: str | None = None) -> dict[str, Any]:
        """The next command, which must be `command` if that is given."""
        while (message := self._next()) is None:
            await self._fill()
        self.heard.append(message)
        if command is not None:
            assert message.get("execute") == command, f"expected {command}, heard {message}"
        return message

    def _next(self) -> dict[str, Any] | None:
        text = self._buffer.replace(b"\xff", b" ").decode().lstrip()
        try:
            message, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return None
        self._buffer = text[end:].encode()
        assert isinstance(message, dict)
        return message

    async def _fill(self) -> None:
        await readable(self._socket)
        data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, 4)
        for descriptor in descriptors:
            self.forget_descriptor()
            self.descriptor = descriptor
        if not data:
            raise EOFError
        self._buffer += data

    def forget_descriptor(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    # ---- whole passages -------------------------------------------------------------------------

    async def greet(self) -> None:
        """Greet and negotiate, as every QEMU does."""
        await self.say(GREETING)
        await self.answer("qmp_capabilities")

    async def answer(self, command: str, value: object = None) -> dict[str, Any]:
        """Hear `command` and answer it."""
        heard = await self.hear(command)
        await self.reply(value)
        return heard

    async def serve(self, answers: Mapping[str, object]) -> None:
        """Answer commands from a table until the client hangs up; others are not found."""
        while True:
            name = (await self.hear())["execute"]
            if name in answers:
                await self.reply(answers[name])
            else:
                await self.refuse(f"The command {name} has not been found", "CommandNotFound")

    async def synchronize(self) -> int:
        """Hear and answer guest-sync-delimited, as a guest agent does."""
        number = (await self.hear("guest-sync-delimited"))["arguments"]["id"]
        await self.say(b"\xff" + json.dumps({"return": number}).encode() + b"\n")
        return int(number)

    def close(self) -> None:
        self.forget_descriptor()
        self._socket.close()


@asynccontextmanager
async def scene(path: str | os.PathLike[str], *scripts: Script) -> AsyncIterator[list[Stage]]:
    """Listen at `path` and play a script to each client; gives the stages that came about.

    What a script raised comes out at the end, or in a note on what the test raised.
    """
    stages: list[Stage] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(os.fspath(path))
        listener.listen(8)
        play = asyncio.create_task(_play(listener, scripts, stages))
        try:
            yield stages
        except BaseException as error:
            if play.done() and not play.cancelled() and (failure := play.exception()):
                error.add_note(f"the scene ended before that: {failure!r}")
            raise
        else:
            if play.done():
                play.result()
        finally:
            play.cancel()
            await asyncio.gather(play, return_exceptions=True)
            for stage in stages:
                stage.close()
            os.unlink(path)


async def _play(listener: socket.socket, scripts: tuple[Script, ...], stages: list[Stage]) -> None:
    for script in scripts:
        connected, _ = await asyncio.get_running_loop().sock_accept(listener)
        stage = Stage(connected)
        stages.append(stage)
        try:
            await script(stage)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the client hung up


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No descriptor stays open, and no task's exception is left for the loop to complain about."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert not complaints
    assert sorted(os.listdir("/proc/self/fd")) == before


@asynccontextmanager
async def session_in(path: str, *scripts: Script) -> AsyncIterator[tuple[Session, list[Stage]]]:
    """A session with the first script, and the stages; closed at the end."""
    async with scene(path, *scripts) as stages:
        session = await Session.connect(path, name="xp", timeout=2)
        try:
            yield session, stages
        finally:
            await session.close()


async def failure_of(work: Awaitable[object]) -> QlaunchError | None:
    """What `work` ends in, as a result: a task group would end with it."""
    try:
        await work
    except QlaunchError as error:
        return error
    return None
