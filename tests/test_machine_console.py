"""The serial port's fan-out, with sockets in the place of QEMU and of the clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qlaunch.machine import console as console_module
from qlaunch.machine.console import CLIENT_BACKLOG, RING, Console

PATIENCE = 20.0


@pytest.fixture
def listener(own_place: Path) -> Iterator[socket.socket]:
    """Where QEMU would listen."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(own_place / "port"))
        listening.listen()
        yield listening


@asynccontextmanager
async def connected(listener: socket.socket, log: Path) -> AsyncIterator[tuple[Console, Guest]]:
    """A console and the guest at its other end."""
    console = Console("serial0", str(log))
    await console.connect(listener.getsockname())
    guest, _ = listener.accept()
    guest.setblocking(False)
    try:
        yield console, Guest(guest)
    finally:
        console.close()
        guest.close()


class Guest:
    """The guest's end of the port."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    async def prints(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self.connection, data)

    async def reads(self, size: int) -> bytes:
        data = b""
        async with asyncio.timeout(PATIENCE):
            while len(data) < size:
                data += await asyncio.get_running_loop().sock_recv(self.connection, size)
        return data


class Client:
    """A console client: our end and the one that the console writes to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def gets(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)


@asynccontextmanager
async def client(console: Console) -> AsyncIterator[Client]:
    ours, theirs = socket.socketpair()
    reader, closing = await asyncio.open_unix_connection(sock=ours, limit=1 << 16)
    _, writer = await asyncio.open_unix_connection(sock=theirs)
    console.add(writer)
    try:
        yield Client(reader, writer)
    finally:
        console.remove(writer)
        writer.transport.abort()
        closing.transport.abort()


async def test_a_client_that_never_reads_is_cut_off_and_stops_nobody(
    listener: socket.socket, own_place: Path
) -> None:
    much = b"0123456789abcdef" * (4 * CLIENT_BACKLOG // 16)
    async with connected(listener, own_place / "log") as (console, guest):
        async with client(console) as deaf, client(console) as reader:
            printing = asyncio.ensure_future(guest.prints(much))
            assert await reader.gets(len(much)) == much
            await printing
            assert deaf.writer.transport.is_closing()
            assert not reader.writer.transport.is_closing()
        assert console.backlog == much[-RING:]


async def test_who_comes_later_gets_the_last_output_first(
    listener: socket.socket, own_place: Path
) -> None:
    async with connected(listener, own_place / "log") as (console, guest):
        async with client(console) as first:
            await guest.prints(b"hello ")
            assert await first.gets(6) == b"hello "
        async with client(console) as second:
            await guest.prints(b"world")
            assert await second.gets(11) == b"hello world"


async def test_a_guest_that_does_not_read_holds_the_typist_back(
    listener: socket.socket, own_place: Path
) -> None:
    much = b"x" * (4 << 20)
    async with connected(listener, own_place / "log") as (console, guest):
        typing = asyncio.ensure_future(console.write(much))
        await asyncio.wait({typing}, timeout=0.1)
        assert not typing.done()
        assert await guest.reads(len(much)) == much
        await typing


async def test_a_typist_is_let_go_when_the_port_is_gone(
    listener: socket.socket, own_place: Path
) -> None:
    async with connected(listener, own_place / "log") as (console, guest):
        typing = asyncio.ensure_future(console.write(b"x" * (4 << 20)))
        await asyncio.wait({typing}, timeout=0.1)
        guest.connection.close()
        async with asyncio.timeout(PATIENCE):
            await typing
        async with client(console) as late:
            assert await late.reader.read() == b""


async def test_the_log_is_kept_below_its_limit(
    listener: socket.socket, own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_module, "LOG_LIMIT", 1000)
    monkeypatch.setattr("qlaunch.store.machines.LOG_LIMIT", 1000)
    log = own_place / "log"
    async with connected(listener, log) as (console, guest), client(console) as reader:
        for letter in b"abcdefgh":
            await guest.prints(bytes([letter]) * 300)
            await reader.gets(300)
    assert log.stat().st_size <= 1300
    assert Path(f"{log}.1").stat().st_size <= 1300


async def test_an_adopted_console_remembers_what_was_logged(own_place: Path) -> None:
    log = own_place / "log"
    log.write_bytes(b"old " * RING)
    console = Console("serial0", str(log), recall=True)
    assert console.backlog == log.read_bytes()[-RING:]
    console.close()
    fresh = Console("serial0", str(log))
    assert fresh.backlog == b""
    fresh.close()


async def test_a_console_works_without_a_log(listener: socket.socket, own_place: Path) -> None:
    (own_place / "folder").mkdir()
    async with connected(listener, own_place / "folder") as (console, guest):
        async with client(console) as reader:
            await guest.prints(b"hello")
            assert await reader.gets(5) == b"hello"
