"""Netlink, as far as it is needed here: messages, attributes, dumps, the kernel's own words.

Blocking on purpose: the kernel answers in 20 to 60 µs, and a hop to another thread costs more.
(pyroute2 0.9 takes 150 ms to import and three times as long for a bridge with a TAP.)
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType

from attrs import frozen

NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_CAPPED, _WITH_WORDS = 0x100, 0x200
_DUMP_INTERRUPTED = 0x10
_EXT_ACK, _GET_STRICT_CHK = 11, 12
_SOL_NETLINK = 270
_HEADER = struct.Struct("=IHHII")
_DUMP_TRIES = 5
_BUFFER = 1 << 18

Attributes = Mapping[int, bytes]


class NetlinkError(OSError):
    """The kernel said no; `str` has what was asked, the error and the kernel's own words."""


@frozen
class Message:
    """One request; `about` says it for a person."""

    kind: int
    flags: int
    body: bytes
    about: str


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute with its header and padding."""
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + bytes(-size % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def text(word: str) -> bytes:
    return word.encode() + b"\0"


def number(value: int) -> bytes:
    return struct.pack("=I", value)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by their type; the last of several."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & _TYPE_MASK] = data[at + 4 : at + size]
        at += size + -size % 4
    return found


def read_text(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="replace")


def read_number(data: bytes | None) -> int:
    return int(struct.unpack("=I", data[:4])[0]) if data and len(data) >= 4 else 0


class Netlink:
    """A connection to the kernel's routing tables, in the network namespace of its first moment."""

    def __init__(self, groups: int = 0, protocol: int = socket.NETLINK_ROUTE) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self.socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self.socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        if protocol == socket.NETLINK_ROUTE:
            self.socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        self.socket.bind((0, groups))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def try_all(self, messages: Sequence[Message]) -> list[NetlinkError | None]:
        """Send `messages` in one system call, and return what became of each. It is no transaction:
        the later ones are carried out even where an earlier one fails."""
        if not messages:
            return []
        data, numbers = b"", []
        for message in messages:
            self._sequence += 1
            numbers.append(self._sequence)
            data += self._packed(message.kind, message.flags | ACK, message.body)
        self.socket.send(data)
        results: dict[int, NetlinkError | None] = {}
        while len(results) < len(numbers):
            for kind, flags, sequence, body in self._receive():
                if kind == NLMSG_ERROR and sequence in numbers:
                    about = messages[numbers.index(sequence)].about
                    results[sequence] = _outcome(flags, body, about)
        return [results[each] for each in numbers]

    def do(self, *messages: Message, but: Collection[int] = ()) -> None:
        """Send `messages`; errors whose number is in `but` do not count.

        Raises: NetlinkError, the first.
        """
        for error in self.try_all(messages):
            if error is not None and error.errno not in but:
                raise error

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Every object of a table. Raises: NetlinkError."""
        for _ in range(_DUMP_TRIES):
            found = self._dump(kind, body)
            if found is not None:
                return found
        raise NetlinkError(errno.EBUSY, "the kernel's tables change all the time")

    def _dump(self, kind: int, body: bytes) -> list[bytes] | None:
        """Every object, None when the table was changed meanwhile."""
        self._sequence += 1
        self.socket.send(self._packed(kind, DUMP, body))
        found: list[bytes] = []
        whole = True
        while True:
            for answer, flags, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & _DUMP_INTERRUPTED
                if answer == NLMSG_DONE:
                    return found if whole else None
                if answer == NLMSG_ERROR:
                    raise _outcome(flags, data, "dump") or NetlinkError(errno.EIO, "dump")
                found.append(data)

    def _packed(self, kind: int, flags: int, body: bytes) -> bytes:
        size = _HEADER.size + len(body)
        header = _HEADER.pack(size, kind, flags | REQUEST, self._sequence, 0)
        return header + body + bytes(-size % 4)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        yield from unpacked(self.socket.recv(_BUFFER))


def unpacked(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message in `data`."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + size]
        at += size + -size % 4


def _outcome(flags: int, body: bytes, about: str) -> NetlinkError | None:
    code = -int(struct.unpack_from("=i", body)[0])
    if not code:
        return None
    words = os.strerror(code)
    if flags & _WITH_WORDS:
        # The kernel's words follow the header that it sends back, or the whole of the request.
        size = 16 if flags & _CAPPED else int(struct.unpack_from("=I", body, 4)[0])
        said = read_text(attributes(body[4 + size + -size % 4 :]).get(1))
        words = f"{words} ({said})" if said else words
    return NetlinkError(code, f"{about}: {words}")
