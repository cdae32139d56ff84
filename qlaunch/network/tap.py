"""TAP devices: network cards whose cable is a file descriptor.

A TAP lives as long as somebody has it open, so it goes with its QEMU, however QEMU ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct

from qlaunch.errors import HostError

DEVICE = "/dev/net/tun"
VHOST = "/dev/vhost-net"
NAME = "qlt%d"  # the kernel puts the number in: no race for it
MAX_QUEUES = 16
_TUNSETIFF, _TUNSETOWNER = 0x400454CA, 0x400454CC
_TAP, _NO_PI, _VNET_HDR, _MULTI_QUEUE = 0x2, 0x1000, 0x4000, 0x0100
_SIOCETHTOOL, _STXCSUM = 0x8946, 0x17
_NO_VHOST = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENODEV)


def open_tap(queues: int, owner: int, name: str = NAME) -> tuple[str, list[int]]:
    """Make a TAP with `queues` and return its name and a descriptor for each queue.

    It belongs to `owner`: one that belongs to nobody and has several queues could be opened by any
    user of this computer.

    Raises: HostError.
    """
    flags = _TAP | _NO_PI | _VNET_HDR | (_MULTI_QUEUE if queues > 1 else 0)
    fds: list[int] = []
    try:
        for at in range(queues):
            fds.append(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
            request = struct.pack("16sH22x", name.encode(), flags)
            answer = fcntl.ioctl(fds[-1], _TUNSETIFF, request)
            name = answer[:16].split(b"\0")[0].decode()
            if at == 0:
                fcntl.ioctl(fds[0], _TUNSETOWNER, owner)
    except OSError as error:
        close(fds)
        hint = "load the kernel's module: modprobe tun" if error.errno == errno.ENOENT else None
        raise HostError(f"no TAP can be made: {DEVICE}: {error.strerror}", hint=hint) from error
    return name, fds


def open_vhost(queues: int) -> list[int]:
    """A descriptor of the kernel's own virtio for each queue; none where there is no such thing."""
    fds: list[int] = []
    try:
        for _ in range(queues):
            fd = os.open(VHOST, os.O_RDWR | os.O_CLOEXEC)
            fds.append(fd)
    except OSError as error:
        close(fds)
        if error.errno not in _NO_VHOST:
            raise HostError(f"{VHOST}: {error.strerror}") from error
        return []
    return fds


def no_offload(name: str) -> None:
    """Have the kernel finish checksums before a packet goes to the TAP: its guest's card cannot,
    and old DHCP clients throw away what has none."""
    import ctypes

    value = ctypes.create_string_buffer(struct.pack("=II", _STXCSUM, 0))
    request = struct.pack("16sP", name.encode(), ctypes.addressof(value)).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        with contextlib.suppress(OSError):  # older kernels: the card asks for none anyway
            fcntl.ioctl(control.fileno(), _SIOCETHTOOL, request)


def close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
