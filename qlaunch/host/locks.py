"""Who holds QEMU's locks on an image, asked without taking any lock.

QEMU (block/file-posix.c) locks byte 100 + n of an image while it uses permission n, and byte
200 + n while it does not share permission n with others; both are read locks.
"""

from __future__ import annotations

import fcntl
import os
import struct

from qlaunch.host.procfs import Holder, describe, holders

_FLOCK = struct.Struct("@hhqqi4x")

_USED, _UNSHARED = 100, 200
_CONSISTENT_READ, _WRITE, _RESIZE = 0, 1, 3

# A reader is in the way of whoever writes; a writer, besides, of whoever forbids writing.
_AGAINST_READING = (_USED + _WRITE, _USED + _RESIZE, _UNSHARED + _CONSISTENT_READ)
_AGAINST_WRITING = (*_AGAINST_READING, _UNSHARED + _WRITE, _UNSHARED + _RESIZE)


def lock_holder(fd: int, *, want_write: bool) -> str | None:
    """Who holds a lock that would stop QEMU from using the open image `fd`, in words; else None.

    `fd` must not carry such a lock itself. A file system without locks counts as free.
    """
    for byte in _AGAINST_WRITING if want_write else _AGAINST_READING:
        pid = _test(fd, byte)
        if pid is not None:
            return _name(fd, byte, pid)
    return None


def _test(fd: int, byte: int) -> int | None:
    """The pid of whoever locks `byte` (-1: known to the kernel only), None when nobody does."""
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    except OSError:
        return None
    kind, _whence, _start, _length, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


def _name(fd: int, byte: int, pid: int) -> str:
    if pid > 0:  # a lock of the old kind, which belongs to a process
        return str(describe(pid))
    image = os.fstat(fd)

    def locks_it(candidate: int, descriptor: str) -> bool:
        there = os.stat(f"/proc/{candidate}/fd/{descriptor}")
        if (there.st_dev, there.st_ino) != (image.st_dev, image.st_ino):
            return False
        with open(f"/proc/{candidate}/fdinfo/{descriptor}", encoding="ascii") as file:
            return any(_covers(line, byte) for line in file)

    found: list[Holder] = [describe(candidate) for candidate in holders(locks_it)]
    # A launcher that passed the descriptor on shares the lock: the QEMU is the answer people want.
    found.sort(key=lambda holder: not holder.name.startswith("qemu"))
    if found:
        return str(found[0])
    if os.geteuid():
        return "a process of another user"
    return "a process in another container or on another computer"


def _covers(line: str, byte: int) -> bool:
    """Whether a line of fdinfo (`lock: 1: OFDLCK ADVISORY READ -1 fe:00:12 100 100`) has `byte`."""
    words = line.split()
    if not words or words[0] != "lock:" or len(words) < 9:
        return False
    first, last = words[-2], words[-1]
    return int(first) <= byte and (last == "EOF" or byte <= int(last))
