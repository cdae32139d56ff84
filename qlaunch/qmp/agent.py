"""The guest agent (qemu-ga), spoken to through a virtio-serial port.

Who answers is the guest: its bytes may be anything, its strings are data and never a reason to
trust it. The agent may also not run, or not yet: then nothing answers, ever.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from qlaunch.errors import QlaunchError, TimedOutError
from qlaunch.qmp.hostile import LONGEST_REPLY, NonsenseError, read_object
from qlaunch.qmp.printable import printable
from qlaunch.qmp.sockets import connect_unix

__all__ = ["AGENT_TIMEOUT", "PING_TIMEOUT", "Agent", "AgentError", "printable"]

# Seconds. Calls cost 1 to 30 ms in an idle Linux guest.
AGENT_TIMEOUT = 5.0
# Seconds, for the question whether an agent is there at all.
PING_TIMEOUT = 2.0
# Seconds in which an agent that will not shut down says so; one that does says nothing.
REFUSAL_TIMEOUT = 0.5

_CHUNK = 1 << 16  # bytes
_DELIMITER = b"\xff"  # occurs in no UTF-8, so it marks where an answer begins


class AgentError(QlaunchError):
    """The guest agent refused, answered nonsense or is out of reach.

    `error_class` is the agent's own when it was the agent that refused, else None.
    """

    kind = "agent"

    def __init__(
        self, message: str, *, error_class: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.error_class = error_class


class Agent:
    """A connection to the agent's port; one call at a time, others wait. Made by `connect`.

    It survives the agent's and the guest's restart, and every nonsense; it ends with QEMU.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._lock = asyncio.Lock()
        self._buffer = bytearray()
        self._in_step = False
        self._last_id = 0

    @classmethod
    async def connect(cls, path: str) -> Agent:
        """Connect to the port's socket at `path`; whether an agent runs, only `ping` can say.

        Raises: AgentError when QEMU does not listen there.
        """
        try:
            return cls(connect_unix(path))
        except OSError as error:
            reason = error.strerror or str(error)
            raise AgentError(f"no guest agent's port at {path}: {reason}") from error

    async def ping(self, timeout: float = PING_TIMEOUT) -> None:
        """Ask whether an agent answers.

        Raises: TimedOutError when none does, AgentError.
        """
        await self.execute("guest-ping", timeout=timeout)

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float = AGENT_TIMEOUT,
    ) -> Any:
        """Give the agent a command and return its answer, of at most 1 MiB.

        After TimedOutError the guest may still carry it out. What comes back was written by the
        guest: check its shape, and show its strings through `printable` only.

        Raises: AgentError with the agent's words or when the answer is nonsense, TimedOutError.
        """
        async with self._turn(command, timeout):
            await self._write(_line(command, arguments))
            return await self._answer(command)

    async def shutdown(self, mode: str = "powerdown", timeout: float = AGENT_TIMEOUT) -> None:
        """Have the guest shut itself down: `powerdown`, `halt` or `reboot`.

        An agent that does so never answers; one that refuses is heard if it is quick. Wait for
        QEMU's SHUTDOWN to know.

        Raises: AgentError when it refuses, TimedOutError when no agent answers.
        """
        command = "guest-shutdown"
        async with self._turn(command, timeout):
            await self._write(_line(command, {"mode": mode}))
            with suppress(TimeoutError, EOFError):
                async with asyncio.timeout(REFUSAL_TIMEOUT):
                    await self._answer(command)

    async def close(self) -> None:
        """End the connection; the agent goes on. A call under way ends in AgentError."""
        if self._socket.fileno() != -1:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            try:
                # Who waits on the socket wakes up and leaves it before it is closed.
                async with self._lock:
                    pass
            finally:
                self._socket.close()

    # ---- the protocol ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self, command: str, timeout: float) -> AsyncIterator[None]:
        """Our turn, in step with the agent, for a command; what goes wrong comes out in words."""
        try:
            async with asyncio.timeout(timeout), self._lock:
                if not self._in_step:
                    await self._synchronize()
                # In doubt until the answer is there: a late one would look like the next one's.
                self._in_step = False
                yield
        except TimeoutError:
            raise TimedOutError(
                f"the guest agent did not answer {command} within {timeout:g} s",
                hint="is qemu-guest-agent installed and running in the guest?",
            ) from None
        except NonsenseError as error:
            self._in_step = False
            raise AgentError(f"the guest agent answered {command} with {error}") from None
        except EOFError:
            raise AgentError(f"{command}: the connection to the guest agent ended") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise AgentError(f"{command}: the guest agent is out of reach: {reason}") from error

    async def _synchronize(self) -> None:
        """Skip whatever earlier calls, of whichever program, left in the pipe."""
        # Larger than all before since this computer started, also those of a supervisor before us.
        self._last_id = max(self._last_id + 1, time.monotonic_ns())
        # The agent forgets a half command when it reads the delimiter.
        await self._write(_DELIMITER + _line("guest-sync-delimited", {"id": self._last_id}))
        while True:
            await asyncio.sleep(0)
            await self._skip_past_delimiter()
            try:
                answer = read_object(await self._read_line(_DELIMITER)).get("return")
            except NonsenseError:
                continue
            if answer == self._last_id and not isinstance(answer, bool | float):
                return

    async def _answer(self, command: str) -> object:
        answer = read_object(await self._read_line())
        self._in_step = True
        return _result(command, answer)

    async def _write(self, line: bytes) -> None:
        if self._socket.fileno() == -1:
            raise EOFError
        await asyncio.get_running_loop().sock_sendall(self._socket, line)

    async def _skip_past_delimiter(self) -> None:
        while (at := self._buffer.find(_DELIMITER)) < 0:
            self._buffer.clear()
            await self._fill()
        del self._buffer[: at + 1]

    async def _read_line(self, restart: bytes = b"") -> bytes:
        """The next line. With `restart`, whatever stands before that byte within it is dropped."""
        start = 0
        while (at := self._buffer.find(b"\n", start)) < 0:
            if len(self._buffer) > LONGEST_REPLY:
                self._buffer.clear()
                raise NonsenseError(f"a line of more than {LONGEST_REPLY >> 20} MiB")
            start = len(self._buffer)
            await self._fill()
        line = bytes(self._buffer[:at])
        del self._buffer[: at + 1]
        return line.rpartition(restart)[2] if restart else line

    async def _fill(self) -> None:
        # A guest that never stops writing must leave a turn to others, the time limit included.
        await asyncio.sleep(0)
        chunk = await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK)
        if not chunk:
            raise EOFError
        self._buffer += chunk


def _line(command: str, arguments: Mapping[str, object] | None) -> bytes:
    message: dict[str, object] = {"execute": command}
    if arguments is not None:
        message["arguments"] = dict(arguments)
    return json.dumps(message).encode() + b"\n"


def _result(command: str, answer: Mapping[str, object]) -> object:
    if "return" in answer:
        return answer["return"]
    error = answer.get("error")
    if not isinstance(error, dict):
        raise NonsenseError("neither a result nor an error")
    raise AgentError(
        f"the guest agent refused {command}: {printable(error.get('desc', 'it gives no reason'))}",
        error_class=printable(error.get("class", "GenericError")),
    )
