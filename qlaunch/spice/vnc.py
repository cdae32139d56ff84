"""A VNC client for the clipboard alone: where QEMU itself talks to the SPICE agent.

The text goes by the "extended clipboard" of RFB, which is UTF-8 (github.com/rfbproto/rfbproto).
"""

from __future__ import annotations

import socket
import struct
import zlib
from types import TracebackType
from typing import Self

from qlaunch.errors import SessionLostError
from qlaunch.spice import link
from qlaunch.spice.viewer import Happening

CONNECT_TIMEOUT = 10.0
LARGEST_CLIPBOARD = 64 << 20
_VERSION = b"RFB 003.008\n"
_NO_PASSWORD = 1
_EXTENDED_CLIPBOARD, _RAW = 0xC0A1E5CE, 0
_SET_ENCODINGS, _CLIENT_CUT = 2, 6
_BELL, _SERVER_CUT = 2, 3
_TEXT = 1
_CAPS, _REQUEST, _PEEK, _NOTIFY, _PROVIDE = (1 << bit for bit in range(24, 29))


class VncClipboard:
    """One connection, which shares the screen with other viewers and never asks for a picture."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(CONNECT_TIMEOUT)
        try:
            self._socket.connect(path)
            self._greet()
        except (OSError, EOFError) as error:
            self._socket.close()
            raise SessionLostError(f"VNC does not answer at {path}: {error}") from error
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
        self._socket.close()

    def forget(self) -> None:
        """Let go of a connection that another process goes on with."""
        self._socket.close()

    def _greet(self) -> None:
        self._read(len(_VERSION))
        self._socket.sendall(_VERSION)
        if _NO_PASSWORD not in self._read(self._read(1)[0]):
            raise SessionLostError("VNC asks for a password")
        self._socket.sendall(bytes([_NO_PASSWORD]))
        self._read(4)
        self._socket.sendall(b"\1")  # shared
        (size,) = struct.unpack(">20xI", self._read(24))
        self._read(size)
        encodings = struct.pack(">II", _EXTENDED_CLIPBOARD, _RAW)
        self._socket.sendall(struct.pack(">BxH", _SET_ENCODINGS, 2) + encodings)
        # QEMU answers with what it can do; a text that it has not heard of it would not take.
        while self._take() is None:
            continue

    # ---- what can be asked ----------------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self) -> None:
        """Ask for the text that the guest has copied, of which QEMU has told: `pump` brings it."""
        self._send(_REQUEST | _TEXT)

    def offer(self) -> None:
        """Tell the guest that there is a text to paste: `pump` tells when it wants it."""
        self._send(_NOTIFY | _TEXT)

    def give(self, text: str) -> None:
        """The text that the guest wants. Without the zero byte at its end that RFB has there: QEMU
        (7.2, 10.0) hands it on to the guest."""
        raw = text.encode()
        self._send(_PROVIDE | _TEXT, zlib.compress(struct.pack(">I", len(raw)) + raw))

    def release(self) -> None:
        """There is nothing to paste any more."""
        self._send(_NOTIFY)

    def pump(self) -> list[Happening]:
        """Take the next message, which has come, and say what it means for the clipboard.

        Raises: SessionLostError.
        """
        found = self._take()
        if found is None:
            return []
        flags, data = found
        if flags & _REQUEST:
            return [Happening("wants")]
        if flags & _PROVIDE and flags & _TEXT:
            return [Happening("text", _unpacked(data))]
        return [Happening("copied")] if flags & _NOTIFY else []

    # ---- messages -------------------------------------------------------------------------------

    def _send(self, flags: int, data: bytes = b"") -> None:
        message = struct.pack(">I", flags) + data
        try:
            self._socket.settimeout(CONNECT_TIMEOUT)
            self._socket.sendall(struct.pack(">Bxxxi", _CLIENT_CUT, -len(message)) + message)
        except OSError as error:
            raise SessionLostError(f"VNC hung up: {error}") from error

    def _take(self) -> tuple[int, bytes] | None:
        """The next message, if it is about the clipboard: its flags and its data."""
        try:
            self._socket.settimeout(CONNECT_TIMEOUT)
            return self._message()
        except (OSError, EOFError):
            raise SessionLostError("VNC hung up: QEMU ended") from None

    def _message(self) -> tuple[int, bytes] | None:
        kind = self._read(1)[0]
        if kind == _BELL:
            return None
        if kind != _SERVER_CUT:
            raise SessionLostError(f"VNC sent a message of an unknown kind ({kind})")
        (size,) = struct.unpack(">3xi", self._read(7))
        if abs(size) > LARGEST_CLIPBOARD:
            raise SessionLostError(f"VNC sent {abs(size)} bytes at once")
        data = self._read(abs(size))
        return (int.from_bytes(data[:4]), data[4:]) if size < 0 else None

    def _read(self, size: int) -> bytes:
        return link.read(self._socket, size)


def _unpacked(data: bytes) -> str:
    """The text of a clipboard that was provided."""
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(data, LARGEST_CLIPBOARD)
    size = int.from_bytes(raw[:4])
    return raw[4 : 4 + size].rstrip(b"\0").decode(errors="replace")
