"""A QMP session: one connection to one QEMU's monitor."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from qemu.qmp import ConnectError, ExecuteError, QMPError

from qlaunch import aio
from qlaunch.errors import CommandError, SessionLostError, TimedOutError
from qlaunch.qmp.client import Client
from qlaunch.qmp.events import MOST_EVENTS, Event, Expectation, read_event
from qlaunch.qmp.printable import printable
from qlaunch.qmp.sockets import connect_unix, sender_pid

__all__ = ["COMMAND_TIMEOUT", "GREETING_TIMEOUT", "Event", "Expectation", "Session"]

# Seconds. A QEMU greets after 60 ms, the last of 60 that start at once on two cores after several
# seconds.
GREETING_TIMEOUT = 30.0
# Seconds. QEMU answers in 0.5 ms; a command that waits for its disks may need far longer.
COMMAND_TIMEOUT = 30.0
# Seconds; the connection is cut and nothing waits for QEMU.
CLOSE_TIMEOUT = 5.0

EventCallback = Callable[[Event], None]
LostCallback = Callable[[], None]


class Session:
    """One connection to a QEMU that has greeted and takes commands. Made by `connect`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.peer_pid = 0
        self.lost = asyncio.Event()
        self._client = Client(self._take_event, self._end)
        self._side: socket.socket | None = None
        self._fd_lock = asyncio.Lock()
        self._fd_in_doubt = False
        self._closing = False
        self._backlog: deque[Event] | None = deque()
        self._expectations: list[Expectation] = []
        self._event_callbacks: list[EventCallback] = []
        self._lost_callbacks: list[LostCallback] = []

    @classmethod
    async def connect(cls, path: str, *, name: str, timeout: float = GREETING_TIMEOUT) -> Session:
        """Connect to the monitor that listens at `path` and wait for QEMU's greeting.

        `name` is the machine's, for messages. The path may have any length. `peer_pid` is then the
        process that sent the greeting. The listener may be one that QEMU has yet to take over.

        Raises: TimedOutError when nothing greets within `timeout` seconds, SessionLostError when
        nobody listens, or what answers is no QEMU.
        """
        session = cls(name)
        try:
            async with asyncio.timeout(timeout):
                await session._connect(path)
        except TimeoutError:
            raise TimedOutError(
                f"{name}: QEMU did not greet within {timeout:g} s at {path}",
                hint="another program may hold the monitor; a monitor has room for one",
            ) from None
        except BlockingIOError:
            raise TimedOutError(f"{name}: too many wait for QEMU's monitor at {path}") from None
        except EOFError:
            raise SessionLostError(f"{name}: QEMU closed the connection at once") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise SessionLostError(f"{name}: no QEMU answers at {path}: {reason}") from error
        except ConnectError:
            reason = session._client.fault or "what answers does not speak QMP"
            raise SessionLostError(f"{name}: no QEMU at {path}: {reason}") from None
        return session

    async def _connect(self, path: str) -> None:
        with ExitStack() as undo:
            connected = undo.enter_context(connect_unix(path))
            self.peer_pid = await sender_pid(connected)
            # The library asserts at the end that the connection it has made still stands.
            with suppress(AssertionError):
                await self._client.connect(connected)
            if self.lost.is_set():
                await self.close()
                raise EOFError
            self._side = connected.dup()
            undo.pop_all()

    # ---- commands -------------------------------------------------------------------------------

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float = COMMAND_TIMEOUT,
    ) -> Any:
        """Give QEMU a command and return its answer.

        After TimedOutError, SessionLostError or a cancellation it may still be carried out: ask
        QEMU what is so. After TimedOutError the session goes on.

        Raises: CommandError with QEMU's words, TimedOutError, SessionLostError.
        """
        known = None if arguments is None else dict(arguments)
        _check_text(command, known)
        try:
            async with asyncio.timeout(timeout):
                return await self._client.execute(command, known)
        except TimeoutError:
            raise TimedOutError(
                f"{self.name}: QEMU did not answer {command} within {timeout:g} s"
            ) from None
        except ExecuteError as error:
            raise CommandError(printable(error), error_class=printable(error.error_class)) from None
        except QMPError:
            if (lost := self._lost_error(command)) is not None:
                raise lost from None
            raise SessionLostError(
                f"{self.name}: QEMU's answer to {command} was not understood"
            ) from None

    # ---- file descriptors -----------------------------------------------------------------------

    async def send_fd(self, fd: int, name: str, *, timeout: float = COMMAND_TIMEOUT) -> None:
        """Give QEMU a duplicate of `fd` under `name` (`getfd`); the caller may close its own.

        The name belongs to this monitor and survives a reconnect.

        Raises: CommandError, TimedOutError, SessionLostError.
        """
        await self._pass_fd(fd, "getfd", {"fdname": name}, timeout)

    async def add_fd(
        self,
        fd: int,
        *,
        fdset: int | None = None,
        opaque: str | None = None,
        timeout: float = COMMAND_TIMEOUT,
    ) -> int:
        """Put a duplicate of `fd` into a set (`add-fd`), a new one unless `fdset` names it.

        Returns the set's number: QEMU then opens `/dev/fdset/<number>`. Sets belong to all
        monitors.

        Raises: CommandError, TimedOutError, SessionLostError.
        """
        arguments: dict[str, object] = {}
        if fdset is not None:
            arguments["fdset-id"] = fdset
        if opaque is not None:
            arguments["opaque"] = opaque
        answer = await self._pass_fd(fd, "add-fd", arguments, timeout)
        number = answer.get("fdset-id") if isinstance(answer, dict) else None
        if not isinstance(number, int):
            raise SessionLostError(f"{self.name}: QEMU's answer to add-fd was not understood")
        return number

    async def remove_fd(self, fdset: int, *, timeout: float = COMMAND_TIMEOUT) -> None:
        """Have QEMU close a set's descriptors (`remove-fd`), and drop the set when none is in use.

        QEMU 7.2 does it while the guest runs; in a paused one they stay open until the next chance.

        Raises: CommandError, TimedOutError, SessionLostError.
        """
        await self.execute("remove-fd", {"fdset-id": fdset}, timeout=timeout)

    async def _pass_fd(
        self, fd: int, command: str, arguments: Mapping[str, object], timeout: float
    ) -> Any:
        _check_text(command, arguments)
        try:
            async with asyncio.timeout(timeout), self._fd_lock:
                if self._fd_in_doubt:
                    # QEMU keeps one descriptor: a second one replaces the first before the command
                    # takes it. Commands are answered in order, so an answer now means that the
                    # command before, which was given up, has had its own.
                    await self.execute("query-version", timeout=timeout)
                if self._side is None:
                    raise self._lost_error(command) or SessionLostError(self.name)
                self._fd_in_doubt = True
                await self._client.send_fd(self._side, fd)
                try:
                    answer = await self.execute(command, arguments, timeout=timeout)
                except CommandError:
                    self._fd_in_doubt = False
                    raise
                self._fd_in_doubt = False
                return answer
        except TimeoutError:
            raise TimedOutError(
                f"{self.name}: QEMU did not take a descriptor for {command} within {timeout:g} s"
            ) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise self._lost_error(command) or SessionLostError(
                f"{self.name}: a descriptor for {command} could not be sent: {reason}"
            ) from error

    # ---- events ---------------------------------------------------------------------------------

    @contextmanager
    def expect(
        self, *names: str, match: Mapping[str, object] | None = None
    ) -> Iterator[Expectation]:
        """Look for events with one of `names` (any event, if none is given) during a block.

        `match` is what their data must contain. Open the block first, then give the command:

            with session.expect("SHUTDOWN") as events:
                await session.execute("system_powerdown")
                event = await events.get(timeout=POWERDOWN_TIMEOUT)
        """
        expectation = Expectation(names, match, self._lost_error)
        self._expectations.append(expectation)
        try:
            yield expectation
        finally:
            self._expectations.remove(expectation)

    def on_event(self, callback: EventCallback) -> None:
        """Have each event handed to `callback`, in order, as soon as the loop turns.

        The first callback also gets what came since the greeting. An event that came before a
        command's answer is handed out before the command returns.
        """
        loop = asyncio.get_running_loop()
        self._event_callbacks.append(callback)
        if self._backlog is not None:
            for event in self._backlog:
                loop.call_soon(callback, event)
            self._backlog = None

    def _take_event(self, message: Mapping[str, object]) -> None:
        event = read_event(message)
        if event is None:
            return
        for expectation in self._expectations:
            expectation.offer(event)
        if self._backlog is not None and len(self._backlog) < MOST_EVENTS:
            self._backlog.append(event)
        # call_soon: a callback's mistake must not look like a mistake of QEMU's.
        loop = asyncio.get_running_loop()
        for callback in self._event_callbacks:
            loop.call_soon(callback, event)

    # ---- the end --------------------------------------------------------------------------------

    def on_lost(self, callback: LostCallback) -> None:
        """Have `callback` called, after the last event, when the connection is lost.

        At once if it is lost already; never because of `close`.
        """
        self._lost_callbacks.append(callback)
        if self.lost.is_set() and not self._closing:
            asyncio.get_running_loop().call_soon(callback)

    async def wait_lost(self) -> None:
        """Wait until the connection is gone, lost or closed."""
        await self.lost.wait()

    @property
    def lost_reason(self) -> str | None:
        """Why the connection is gone, in words; None while it stands."""
        return self._client.fault or "it ended" if self.lost.is_set() else None

    def _lost_error(self, command: str = "") -> SessionLostError | None:
        if not self.lost.is_set():
            return None
        during = f" during {command}" if command else ""
        return SessionLostError(f"{self.name}: connection to QEMU lost{during}: {self.lost_reason}")

    def _end(self) -> None:
        self.lost.set()
        if self._side is not None:
            # Nothing of ours is worth waiting for a QEMU that does not read.
            with suppress(OSError):
                self._side.shutdown(socket.SHUT_RDWR)
        for expectation in self._expectations:
            expectation.wake()
        if not self._closing:
            loop = asyncio.get_running_loop()
            for callback in self._lost_callbacks:
                loop.call_soon(callback)

    async def close(self) -> None:
        """End the connection; QEMU goes on. Commands under way end in SessionLostError.

        May be called at any time and again. Raises nothing but a cancellation, afterwards.
        """
        if not self.lost.is_set():
            self._client.fault = "it was closed"
        self._closing = True
        await aio.finish(self._disconnect())

    async def _disconnect(self) -> None:
        # The library raises here what made its reader or writer stop, of whatever class.
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._client.disconnect()
        if self._side is not None:
            self._side.close()
            self._side = None


def _check_text(command: str, arguments: Mapping[str, object] | None) -> None:
    """Refuse what QEMU cannot parse: it would answer without an id and the session would end.

    QEMU 7.2 takes neither half a surrogate pair (a file name that is not UTF-8) nor NaN, and makes
    two strange bytes of a NUL.
    """
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise CommandError(f"{command}: this cannot be said in QMP: {error}") from None
    if b"\\u0000" in text.replace(b"\\\\", b""):
        raise CommandError(f"{command}: this cannot be said in QMP: it contains a NUL")
