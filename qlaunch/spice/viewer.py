"""A SPICE client that talks to the agent in the guest: clipboard, and the size of the screen."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from attrs import frozen

from qlaunch.errors import PhaseError, SessionLostError, TimedOutError
from qlaunch.spice import link

CONNECT_TIMEOUT = 10.0
# How long the agent in the guest may take to answer.
AGENT_TIMEOUT = 5.0
CLOSE_TIMEOUT = 2.0
LARGEST_CLIPBOARD = 64 << 20
_MOST_MESSAGE = LARGEST_CLIPBOARD + 4096
_CHUNK = 2048  # of an agent's message, on its way
_TOKENS = 1 << 30

_SET_ACK, _PING, _INIT = 3, 4, 103
_AGENT_CONNECTED, _AGENT_GONE, _AGENT_DATA, _AGENT_TOKEN, _AGENT_CONNECTED_TOKENS = (
    107, 108, 109, 110, 115,
)  # fmt: skip
_ACK_SYNC, _ACK, _PONG = 1, 2, 3
_START, _SEND = 106, 107
_MONITORS, _CLIPBOARD, _CAPABILITIES, _GRAB, _REQUEST, _RELEASE = 2, 4, 6, 7, 8, 9
_CAN_BY_DEMAND, _CAN_SELECT = 5, 6
_UTF8 = 1
_SELECTION = struct.pack("<I", 0)  # the clipboard, not X11's middle button


@frozen
class Happening:
    """What is told of the clipboard: the guest has `copied` something new, it `wants` the text that
    was offered, here is the `text` that was asked for, or there is `nothing`."""

    kind: Literal["copied", "wants", "text", "nothing"]
    text: str = ""


def _meaning(kind: int, data: bytes) -> Happening | None:
    """What a message of the agent means for the clipboard, if anything."""
    if data[:4] != _SELECTION:
        return None
    if kind == _GRAB:
        return Happening("copied")
    if kind == _REQUEST:
        return Happening("wants")
    if kind != _CLIPBOARD:
        return None
    if int.from_bytes(data[4:8], "little") != _UTF8:
        return Happening("nothing")
    return Happening("text", data[8:].decode(errors="replace"))


class Viewer:
    """One connection. `agent` is whether the guest's agent is there."""

    def __init__(self, path: str) -> None:
        self._socket = link.open_main(path, CONNECT_TIMEOUT)
        self._window = self._unacknowledged = 0
        self._tokens = 0
        self._partial = b""
        self._started = False
        self._inbox: list[tuple[int, bytes]] = []
        self.agent = False
        try:
            self._until(lambda: self._started, AGENT_TIMEOUT)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def forget(self) -> None:
        """Let go of a connection that another process goes on with."""
        self._socket.close()

    def close(self) -> None:
        """Hang up when all that was sent has been read."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.settimeout(CLOSE_TIMEOUT)
            while self._socket.recv(1 << 16):
                pass
        except OSError:
            pass  # it has gone first
        self._socket.close()

    # ---- what can be asked ----------------------------------------------------------------------

    def resize(self, width: int, height: int) -> None:
        """Ask for one screen of this size. QEMU hands it to the card's driver or to the agent."""
        monitor = struct.pack("<IIIII", height, width, 32, 0, 0)
        self._send_agent(_MONITORS, struct.pack("<II", 1, 0) + monitor)

    def meet_agent(self) -> None:
        """Tell the agent that we can exchange texts. Raises: PhaseError when it is not there."""
        if not self.agent:
            raise PhaseError("the SPICE agent is not connected")
        able = struct.pack("<II", 1, 1 << _CAN_BY_DEMAND | 1 << _CAN_SELECT)
        self._send_agent(_CAPABILITIES, able)
        self._expect(_CAPABILITIES)

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self) -> None:
        """Ask for the text that the guest has copied: `pump` brings it. An agent that told an
        earlier client of it does not tell it again, so it is asked in any case."""
        self._send_agent(_REQUEST, _SELECTION + struct.pack("<I", _UTF8))

    def offer(self) -> None:
        """Tell the guest that there is a text to paste: `pump` tells when it wants it."""
        self._send_agent(_GRAB, _SELECTION + struct.pack("<I", _UTF8))

    def give(self, text: str) -> None:
        """The text that the guest wants."""
        self._send_agent(_CLIPBOARD, _SELECTION + struct.pack("<I", _UTF8) + text.encode())

    def release(self) -> None:
        """There is nothing to paste any more."""
        self._send_agent(_RELEASE, _SELECTION)

    def pump(self) -> list[Happening]:
        """Take the next message, which has come, and say what it means for the clipboard.

        Raises: SessionLostError.
        """
        self._socket.settimeout(CONNECT_TIMEOUT)
        self._take(*self._receive())
        found, self._inbox = self._inbox, []
        return [each for each in (_meaning(*message) for message in found) if each is not None]

    # ---- messages -------------------------------------------------------------------------------

    def _expect(self, wanted: int) -> bytes:
        end = time.monotonic() + AGENT_TIMEOUT
        while True:
            try:
                kind, data = self._next_agent(end - time.monotonic())
            except TimeoutError:
                raise TimedOutError(
                    f"the SPICE agent did not answer within {AGENT_TIMEOUT:g} s"
                ) from None
            if kind == wanted:
                return data

    def _next_agent(self, timeout: float | None) -> tuple[int, bytes]:
        """The agent's next message. Raises: TimeoutError, SessionLostError."""
        self._until(lambda: bool(self._inbox), timeout)
        return self._inbox.pop(0)

    def _until(self, done: Callable[[], bool], timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        while not done():
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            # A message is read to its end: half of one would be lost with the time that is left.
            if not select.select([self._socket], [], [], left)[0]:
                raise TimeoutError
            self._socket.settimeout(CONNECT_TIMEOUT)
            self._take(*self._receive())

    def _receive(self) -> tuple[int, bytes]:
        try:
            kind, size = struct.unpack("<HI", link.read(self._socket, 6))
            if size > _MOST_MESSAGE:
                raise SessionLostError(f"SPICE sent a message of {size} bytes")
            return int(kind), link.read(self._socket, size)
        except (OSError, EOFError):
            raise SessionLostError("SPICE hung up: another viewer came, or QEMU ended") from None

    def _take(self, kind: int, data: bytes) -> None:
        if self._window:
            self._unacknowledged += 1
            if self._unacknowledged >= self._window:
                self._unacknowledged = 0
                self._send(_ACK, b"")
        if kind == _SET_ACK:
            generation, self._window = struct.unpack("<II", data[:8])
            self._send(_ACK_SYNC, struct.pack("<I", generation))
        elif kind == _PING:
            self._send(_PONG, data[:12])
        elif kind == _INIT:
            words = struct.unpack("<8I", data[:32])
            self._tokens = words[5]
            self._started = True
            self._agent_comes(there=bool(words[4]))
        elif kind == _AGENT_CONNECTED_TOKENS:
            self._tokens = int.from_bytes(data[:4], "little")
            self._agent_comes(there=True)
        elif kind == _AGENT_CONNECTED:
            self._agent_comes(there=True)
        elif kind == _AGENT_GONE:
            self.agent = False
        elif kind == _AGENT_TOKEN:
            self._tokens += int.from_bytes(data[:4], "little")
        elif kind == _AGENT_DATA:
            self._gather(data)

    def _agent_comes(self, *, there: bool) -> None:
        self.agent = there
        if there:
            self._send(_START, struct.pack("<I", _TOKENS))

    def _gather(self, data: bytes) -> None:
        """Put an agent's message together again."""
        self._partial += data
        while len(self._partial) >= 20:
            _protocol, kind, _opaque, size = struct.unpack("<IIQI", self._partial[:20])
            if size > LARGEST_CLIPBOARD:
                raise SessionLostError(f"the SPICE agent sent {size} bytes at once")
            if len(self._partial) < 20 + size:
                return
            self._inbox.append((kind, self._partial[20 : 20 + size]))
            self._partial = self._partial[20 + size :]

    def _send_agent(self, kind: int, data: bytes) -> None:
        message = struct.pack("<IIQI", 1, kind, 0, len(data)) + data
        for start in range(0, len(message), _CHUNK):
            self._until(lambda: self._tokens > 0, AGENT_TIMEOUT)
            self._tokens -= 1
            self._send(_SEND, message[start : start + _CHUNK])

    def _send(self, kind: int, data: bytes) -> None:
        try:
            self._socket.settimeout(CONNECT_TIMEOUT)
            self._socket.sendall(struct.pack("<HI", kind, len(data)) + data)
        except OSError as error:
            raise SessionLostError(f"SPICE hung up: {error}") from error
