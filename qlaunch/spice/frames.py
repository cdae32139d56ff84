"""Where SPICE's messages end, in the bytes that a server sends. Decides only.

A client made with spice-gtk (0.42) waits for its socket to become readable before it looks for the
next message. Of two messages in one TLS record it has the second one in a buffer then, and waits
for ever. QEMU's own TLS never does that, so whoever speaks TLS for it must not either.
"""

from __future__ import annotations

from qlaunch.spice.link import LONGEST_REPLY, MAGIC, MINI_HEADER

_LINK, _REPLY, _RESULT, _MESSAGES = range(4)
_LINK_SIZE, _RESULT_SIZE = 16, 4
_MINI_SIZE, _FULL_SIZE = 6, 18
# Where the size stands in the header of a message.
_SIZES = {_MINI_SIZE: slice(2, 6), _FULL_SIZE: slice(10, 14)}


class Frames:
    """The bytes of one connection."""

    def __init__(self) -> None:
        self._stage = _LINK
        self._head = b""
        self._wanted = _LINK_SIZE  # of the header that is being read
        self._left = 0  # of the message that it began
        self._plain = False
        self._client = b""
        self._client_is_mini = False
        self._size = _FULL_SIZE

    def hear_client(self, data: bytes) -> None:
        """What the client sends, of which the beginning counts: it says which headers it can."""
        if self._stage > _REPLY or len(self._client) > LONGEST_REPLY:
            return
        self._client += data
        body = self._client[_LINK_SIZE:]
        # connection, type, id, number of common and of channel capabilities, where they begin
        start = int.from_bytes(body[14:18], "little")
        common = body[start : start + 4]
        if len(body) >= 18 and body[6:10] != bytes(4) and len(common) == 4:
            self._client_is_mini = _can_mini(common)

    def cut(self, data: bytes) -> list[bytes]:
        """`data` in pieces of which none goes on after the end of a message."""
        pieces, start, at = [], 0, 0
        while at < len(data) and not self._plain:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(self._wanted - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == self._wanted:
                    head, self._head = self._head, b""
                    self._read(head)
            at += step
            if not self._left and not self._head:
                pieces.append(data[start:at])
                start = at
        if start < len(data):
            pieces.append(data[start:])
        return pieces

    def _read(self, head: bytes) -> None:
        """A header, or what is treated as one, is complete."""
        if self._stage == _LINK:
            self._stage, self._wanted = _REPLY, int.from_bytes(head[12:16], "little")
            self._plain = head[:4] != MAGIC or not 178 <= self._wanted <= LONGEST_REPLY
        elif self._stage == _REPLY:
            # error, key, number of common and of channel capabilities, where they begin
            start = int.from_bytes(head[174:178], "little")
            is_mini = self._client_is_mini and head[166:170] != bytes(4)
            is_mini = is_mini and _can_mini(head[start : start + 4])
            self._size = _MINI_SIZE if is_mini else _FULL_SIZE
            self._stage, self._wanted = _RESULT, _RESULT_SIZE
        elif self._stage == _RESULT:
            self._stage, self._wanted = _MESSAGES, self._size
        else:
            self._left = int.from_bytes(head[_SIZES[self._wanted]], "little")


def _can_mini(word: bytes) -> bool:
    return bool(int.from_bytes(word, "little") >> MINI_HEADER & 1)
