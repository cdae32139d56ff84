"""Unix sockets as both clients of this room need them: connected at once, however long the path."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

# sockaddr_un holds 108 bytes, one of them the NUL at the end.
_LONGEST_PATH = 107
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


def connect_unix(path: str) -> socket.socket:
    """A non-blocking socket connected to the listener at `path`.

    What its peer sends carries the peer's credentials: see `sender_pid`.

    Raises: OSError; BlockingIOError among them when the listener's queue is full.
    """
    folder: int | None = None
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Before connecting: a greeting that was sent without credentials has none later.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        address = path
        if len(os.fsencode(path)) > _LONGEST_PATH:
            parent, name = os.path.split(path)
            folder = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            address = f"/proc/self/fd/{folder}/{name}"
        connected.connect(address)
    except BaseException:
        connected.close()
        raise
    finally:
        if folder is not None:
            os.close(folder)
    return connected


async def sender_pid(connected: socket.socket) -> int:
    """Wait for the first byte and say which process sent it; the byte stays to be read.

    SO_PEERCRED would name the process that called listen() last before we connected: ourselves,
    when we bound the listener and QEMU had not yet taken it over.

    Raises: EOFError when the peer closed, OSError.
    """
    await readable(connected)
    data, ancillary, _, _ = connected.recvmsg(
        1, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_PEEK
    )
    if not data:
        raise EOFError
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(_CREDENTIALS.unpack_from(content)[0])
    raise OSError("the kernel does not say who sent the greeting")


async def readable(connected: socket.socket) -> None:
    """Wait until there is something to read, the end included."""
    loop = asyncio.get_running_loop()
    await _ready(connected, loop.add_reader, loop.remove_reader)


async def writable(connected: socket.socket) -> None:
    """Wait until something can be written."""
    loop = asyncio.get_running_loop()
    await _ready(connected, loop.add_writer, loop.remove_writer)


async def _ready(
    connected: socket.socket,
    add: Callable[..., None],
    remove: Callable[[int], bool],
) -> None:
    ready = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    number = connected.fileno()
    add(number, tell)
    try:
        await ready
    finally:
        remove(number)
