"""The serial port: always read, kept in a ring and a log, given to any number of clients.

A reader that stalls would stall the guest, so the guest's bytes go through the supervisor, and a
client that does not read loses its own view, never the guest's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator

from qlaunch.errors import HostError
from qlaunch.host.sockets import connect_unix
from qlaunch.store.machines import LOG_LIMIT, open_log

RING = 64 << 10
# Beyond this a client is too slow and is cut off.
CLIENT_BACKLOG = 1 << 20
# What a client has to read the rest when the port is gone.
FLUSH_TIME = 5.0


class Console:
    """One serial port of a running machine. `recall` shows clients what an earlier supervisor has
    logged of it."""

    def __init__(self, ident: str, log_path: str, *, recall: bool = False) -> None:
        self.ident = ident
        self._log_path = log_path
        self._log = self._logged = -1
        self._open_log()
        self._ring = bytearray(_tail(log_path) if recall else b"")
        self._clients: set[asyncio.StreamWriter] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._ears: list[Callable[[bytes], None]] = []
        self._port: asyncio.WriteTransport | None = None
        self._ended = False
        self._takes = asyncio.Event()
        self._takes.set()

    async def connect(self, path: str) -> None:
        """Connect to the port's socket. Raises: NotFoundError when QEMU is gone."""
        sock = await connect_unix(path)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(
            lambda: _Port(self._received, self._lost, self._takes), sock=sock
        )
        self._port = transport

    @property
    def connected(self) -> bool:
        return self._port is not None

    async def write(self, data: bytes) -> None:
        """Type `data` into the port, and wait while the guest does not read."""
        if self._port is not None and not self._port.is_closing():
            self._port.write(data)
            await self._takes.wait()

    @property
    def backlog(self) -> bytes:
        """The last output, for a client that comes now."""
        return bytes(self._ring)

    def claim(self, client: asyncio.StreamWriter, *, take: bool = False) -> bool:
        """Be the one who types, or who does so once those before have left; `take` comes first.

        Returns: whether `client` may type now.
        """
        self._writers.insert(0 if take else len(self._writers), client)
        return self.may_write(client)

    def may_write(self, client: asyncio.StreamWriter) -> bool:
        """Whether `client` is the one who types: two at once would only garble it."""
        return self._writers[:1] == [client]

    def add(self, client: asyncio.StreamWriter) -> None:
        """Send all output to `client` from now on, the backlog first."""
        client.write(self.backlog)
        if self._ended:
            _hang_up(client)
        else:
            self._clients.add(client)

    @contextlib.contextmanager
    def listening(self, heard: Callable[[bytes], None]) -> Iterator[None]:
        """Have `heard` told all output from now on."""
        self._ears.append(heard)
        try:
            yield
        finally:
            self._ears.remove(heard)

    def remove(self, client: asyncio.StreamWriter) -> None:
        self._clients.discard(client)
        self._writers = [each for each in self._writers if each is not client]

    def close(self) -> None:
        """End all clients' views and the log."""
        if self._port is not None:
            self._port.abort()
        self._lost()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _received(self, data: bytes) -> None:
        self._ring += data
        del self._ring[:-RING]
        self._write_log(data)
        for heard in tuple(self._ears):
            heard(data)
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
            self._open_log()

    def _open_log(self) -> None:
        """Open the log, if there can be one: the port works without."""
        try:
            self._log = open_log(self._log_path)
        except HostError:
            self._log = -1
        else:
            self._logged = os.fstat(self._log).st_size

    def _lost(self) -> None:
        self._ended = True
        self._takes.set()
        for client in self._clients:
            _hang_up(client)
        self._clients.clear()


def _tail(log_path: str) -> bytes:
    """The last output that was logged."""
    try:
        with open(log_path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - RING))
            return log.read(RING)
    except OSError:
        return b""


def _hang_up(client: asyncio.StreamWriter) -> None:
    """Close `client` when it has read what it was sent, or when its time for that is up."""
    client.close()
    asyncio.get_running_loop().call_later(FLUSH_TIME, client.transport.abort)


class _Port(asyncio.Protocol):
    """Our end of the connection; `takes` says whether the port takes more at the moment."""

    def __init__(
        self, received: Callable[[bytes], None], lost: Callable[[], None], takes: asyncio.Event
    ) -> None:
        self._received, self._gone, self._takes = received, lost, takes

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def pause_writing(self) -> None:
        self._takes.clear()

    def resume_writing(self) -> None:
        self._takes.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
