"""Bytes between two connections, both ways, for as long as either has something to say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast


class _End(asyncio.Protocol):
    """One of two ends; what it reads the other writes, no faster than that one can."""

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._transport: asyncio.Transport | None = None
        self._peer: _End | None = None
        self._ended = False

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()

    def join(self, peer: _End) -> None:
        self._peer = peer
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._peer is not None:
            self._peer.transport.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        peer = self._peer
        if peer is None or peer._ended:
            self._hang_up()
            return False
        if peer.transport.can_write_eof():
            peer.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._peer is not None and not self._peer.transport.is_closing():
            self._peer.transport.resume_reading()

    def connection_lost(self, problem: Exception | None) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            # What it has not written yet is still written, unless this end broke.
            peer.transport.close() if problem is None else peer.transport.abort()
        self._over()

    def _hang_up(self) -> None:
        self.transport.close()
        if self._peer is not None:
            self._peer.transport.close()


async def join(one: socket.socket, other: socket.socket, over: Callable[[], None]) -> None:
    """Carry bytes between two connected sockets from now on; both are taken over.

    `over` is called when each of them has been closed, so twice. Raises: OSError.
    """
    loop = asyncio.get_running_loop()
    ends = []
    for sock in (one, other):
        _, end = await loop.connect_accepted_socket(lambda: _End(over), sock)
        ends.append(end)
    for end, peer in (ends, reversed(ends)):
        end.join(peer)
