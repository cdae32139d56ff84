"""TAP descriptors of a network namespace that nobody else has; it goes with the last of them."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests import prerequisites

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_MULTI_QUEUE, _IFF_VNET_HDR = 0x0002, 0x1000, 0x0100, 0x4000


@contextmanager
def tap(queues: int = 1) -> Iterator[tuple[int, ...]]:
    """The descriptors of a new TAP, one for each pair of queues."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = os.fork()
        if child == 0:
            try:
                _send(theirs, queues)
            finally:
                os._exit(0)
        theirs.close()
        words, fds, _, _ = socket.recv_fds(ours, 200, 16)
        os.waitpid(child, 0)
    prerequisites.require("netns", len(fds) == queues, f"no TAP here: {words.decode()}")
    try:
        yield tuple(fds)
    finally:
        for fd in fds:
            os.close(fd)


def _send(sock: socket.socket, queues: int) -> None:
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    try:
        _unshare(_CLONE_NEWNET | (_CLONE_NEWUSER if os.geteuid() else 0))
        fds = []
        for _ in range(queues):
            fds.append(os.open("/dev/net/tun", os.O_RDWR))
            fcntl.ioctl(fds[-1], _TUNSETIFF, struct.pack("16sH14x", b"qt0", flags))
        socket.send_fds(sock, [b"here"], fds)
    except OSError as error:
        sock.send(str(error).encode())


def _unshare(flags: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
