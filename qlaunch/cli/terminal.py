"""The user's terminal joined to a guest's serial console, and given back as it was."""

from __future__ import annotations

import os
import select
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from types import FrameType, TracebackType

ESCAPE = b"\x1d"  # Ctrl-]
SILENCE_MS = 500
_BLOCK = 1 << 16
# What guests like to leave switched on: colours, no cursor, mouse reports, bracketed paste, keypad.
_CALM = b"\x1b[0m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1l\x1b>"


class Raw:
    """The terminal `fd` passes every key on, as long as this context lasts; nothing otherwise.

    SIGTERM and SIGHUP become SystemExit meanwhile, so that the terminal is given back then, too.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[object] | None = None
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Raw:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _leave)
        if os.isatty(self._fd):
            import termios
            import tty

            self._saved = termios.tcgetattr(self._fd)
            tty.setraw(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._saved is not None:
            import termios

            try:
                if os.isatty(1):
                    os.write(1, _CALM)
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            except (OSError, termios.error):
                pass  # The terminal is gone: a hang-up.
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def talk(sock: socket.socket, first: bytes, *, once: bool = False) -> bool:
    """Pass bytes both ways between the terminal (or pipe) and the console's socket.

    Returns: True when the user left, False when the other end did.
    """
    source = sys.stdin.fileno()
    with Raw(source):
        return _Joint(sock, source, once=once).run(first)


class _Joint:
    """The two ways between us and the console."""

    def __init__(self, sock: socket.socket, source: int, *, once: bool) -> None:
        self._socket = sock
        self._source = source
        self._is_tty = os.isatty(source)
        self._once = once
        self._open = True  # the input has not ended
        self._left = False
        self._unsent = b""

    def run(self, first: bytes) -> bool:
        self._socket.settimeout(0)
        _write(first)
        while True:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            # A guest that does not read stops us reading, not us showing what it says.
            if self._open and not self._unsent:
                poll.register(self._source, select.POLLIN)
            last = not self._open and not self._unsent
            ready = dict(poll.poll(SILENCE_MS if self._once and last else None))
            if not ready or (self._left and last):
                return True
            events = ready.get(self._socket.fileno(), 0)
            if events & select.POLLOUT and not self._send():
                return False
            if events & ~select.POLLOUT and not self._receive():
                return False
            if self._source in ready:
                self._take()
            if self._left and not self._unsent:
                return True

    def _take(self) -> None:
        """Read what was typed; Ctrl-] on a terminal ends it."""
        try:
            typed = os.read(self._source, _BLOCK)
        except BlockingIOError:
            return  # somebody made it non-blocking, and somebody else was quicker
        except OSError:
            typed = b""  # the terminal is gone
        if not typed:
            self._open = False
            self._left = self._is_tty
        elif self._is_tty and ESCAPE in typed:
            typed = typed.split(ESCAPE, 1)[0]
            self._open, self._left = False, True
        self._unsent += typed

    def _send(self) -> bool:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(_BLOCK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        _write(data)
        return bool(data)


def _write(data: bytes) -> None:
    """Write all of `data` to standard output, which may be a slow or a non-blocking one."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(1, view) :]
        except BlockingIOError:
            select.select([], [1], [])
