"""The serial port: always read, kept in a ring and a log, given to any number of clients.

A reader that stalls would stall the guest, so the guest's bytes go through the supervisor, and a
client that does not read loses its own view, never the guest's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from qlaunch.host.sockets import connect_unix
from qlaunch.store.machines import LOG_LIMIT, open_log

RING = 64 << 10
# Beyond this a client is too slow and is cut off with a word.
CLIENT_BACKLOG = 1 << 20


class Console:
    """One serial port of a running machine."""

    def __init__(self, ident: str, log_path: str) -> None:
        self.ident = ident
        self._log_path = log_path
        self._log = open_log(log_path)
        self._logged = os.fstat(self._log).st_size
        self._ring = bytearray()
        self._clients: set[asyncio.StreamWriter] = set()
        self._port: asyncio.WriteTransport | None = None
        self._ended = False

    async def connect(self, path: str) -> None:
        """Connect to the port's socket. Raises: NotFoundError when QEMU is gone."""
        sock = await connect_unix(path)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(
            lambda: _Port(self._received, self._lost), sock=sock
        )
        self._port = transport

    def write(self, data: bytes) -> None:
        """Type `data` into the port."""
        if self._port is not None and not self._port.is_closing():
            self._port.write(data)

    @property
    def backlog(self) -> bytes:
        """The last output, for a client that comes now."""
        return bytes(self._ring)

    def add(self, client: asyncio.StreamWriter) -> None:
        """Send all output to `client` from now on, the backlog first."""
        client.write(self.backlog)
        if self._ended:
            client.close()
        else:
            self._clients.add(client)

    def remove(self, client: asyncio.StreamWriter) -> None:
        self._clients.discard(client)

    def close(self) -> None:
        """End all clients' views and the log."""
        self._ended = True
        if self._port is not None:
            self._port.abort()
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _received(self, data: bytes) -> None:
        self._ring += data
        del self._ring[:-RING]
        self._write_log(data)
        for client in tuple(self._clients):
            if client.transport.get_write_buffer_size() > CLIENT_BACKLOG:
                client.transport.abort()
                self._clients.discard(client)
            else:
                client.write(data)

    def _write_log(self, data: bytes) -> None:
        if self._log < 0:
            return
        with contextlib.suppress(OSError):  # a full disk must not stop the guest
            self._logged += os.write(self._log, data)
            if self._logged > LOG_LIMIT:
                os.close(self._log)
                self._log = -1
                self._log, self._logged = open_log(self._log_path), 0

    def _lost(self) -> None:
        self._ended = True
        for client in self._clients:
            client.close()
        self._clients.clear()


class _Port(asyncio.Protocol):
    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._received, self._gone = received, lost

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
