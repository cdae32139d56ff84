"""`python -m qlaunch.machine.tls FD RUNTIME LISTEN NAME...`: speaks TLS with display clients.

FD leads to the supervisor: from there come clients, each with its key, and back go their plain
sides once they have shaken hands. It serves its connections to their end, also when the supervisor
is gone, and ends with the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import time
from typing import cast

from qlaunch.errors import QlaunchError
from qlaunch.machine import certificates
from qlaunch.spice.frames import Frames

HANDSHAKE_TIMEOUT = 10.0
LARGEST_MESSAGE = 256
# How much may wait for a side that reads slowly.
BUFFER = 1 << 20
# How often it is looked whether the certificate has to be made anew, at the next client.
RENEWAL_CHECK = 3600.0


class Side(asyncio.Protocol):
    """One end of a connection: what comes in goes out at the other end, no faster than it goes."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self.made = asyncio.get_running_loop().create_future()
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER)
        if self.other is None:
            # Nobody is there yet who could take it.
            self.transport.pause_reading()
        if not self.made.done():
            self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        self._tell_other("pause_reading")

    def resume_writing(self) -> None:
        self._tell_other("resume_reading")

    def connection_lost(self, error: Exception | None) -> None:
        self._tell_other("close")
        if not self.gone.done():
            self.gone.set_result(None)

    def _tell_other(self, method: str) -> None:
        if self.other is not None and self.other.transport is not None:
            with contextlib.suppress(RuntimeError):  # it is closing
                getattr(self.other.transport, method)()


class Outside(Side):
    """The client's end: encrypted."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.frames = frames

    def data_received(self, data: bytes) -> None:
        self.frames.hear_client(data)
        super().data_received(data)


class Inside(Side):
    """QEMU's end: each of its messages is written by itself, which makes it a TLS record."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self.frames = frames

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.writelines(self.frames.cut(data))


def join(one: Side, other: Side) -> None:
    """Connect the two; from now on bytes flow."""
    one.other, other.other = other, one
    for side in (one, other):
        if side.transport is not None and not side.transport.is_closing():
            side.transport.resume_reading()
        else:
            side._tell_other("close")


class Server:
    """What runs here."""

    def __init__(self, channel: socket.socket, names: tuple[str, ...]) -> None:
        self.channel = channel
        self.names = names
        self.checked = -RENEWAL_CHECK
        self.loaded = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.over = asyncio.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def refresh(self) -> None:
        """Have a certificate that is good. Raises: HostError."""
        now = time.monotonic()
        if now - self.checked < RENEWAL_CHECK:
            return
        found = certificates.ensure(self.names)
        made = os.stat(found.server).st_mtime_ns
        if made != self.loaded:
            self.context.load_cert_chain(found.server)
            self.loaded = made
        self.checked = now

    def tell(self, text: str, fds: tuple[int, ...] = ()) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone
            socket.send_fds(self.channel, [text.encode()[:LARGEST_MESSAGE]], list(fds))

    def hear(self) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self.channel, LARGEST_MESSAGE, 1)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        loop = asyncio.get_running_loop()
        if not data:
            loop.remove_reader(self.channel.fileno())
            self.over.set()
            return
        for fd in fds:
            task = loop.create_task(self.serve(data.decode(), socket.socket(fileno=fd)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def serve(self, key: str, client: socket.socket) -> None:
        """One client, from its handshake to its end."""
        frames = Frames()
        outside, inside = Outside(frames), Inside(frames)
        loop = asyncio.get_running_loop()
        try:
            self.refresh()
            client.settimeout(0)
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                await loop.connect_accepted_socket(
                    lambda: outside,
                    client,
                    ssl=self.context,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                    ssl_shutdown_timeout=1.0,
                )
        except (OSError, QlaunchError) as error:  # OSError: TLS and time limits, too
            reason = getattr(error, "reason", None) or str(error) or "it said nothing"
            self.tell(f"failed {key} {reason}")
            client.close()
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._name(ours, key)
            ours.settimeout(0)
            await loop.connect_accepted_socket(lambda: inside, ours)
            join(outside, inside)
            self.tell(f"plain {key}", (theirs.fileno(),))
        await asyncio.wait({outside.gone, inside.gone})

    def _name(self, plain: socket.socket, key: str) -> None:
        """Give our end a name: QEMU, asked who its clients are, says it."""
        with contextlib.suppress(OSError):  # without a name it is served all the same
            plain.bind(key)
            os.unlink(key)


async def main() -> None:
    fd, runtime, listen, *more = sys.argv[1:]
    os.chdir(runtime)  # the names of sockets have to be short
    channel = socket.socket(fileno=int(fd))
    channel.settimeout(0)
    server = Server(channel, certificates.names_for([listen], more))
    try:
        server.refresh()
    except (QlaunchError, OSError) as error:
        server.tell(f"says {error}")
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(channel.fileno(), server.hear)
    server.tell("ready")
    await server.over.wait()
    while server.tasks:
        await asyncio.wait(set(server.tasks))


if __name__ == "__main__":
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(main())
