"""Room on a file system, kept for a file before it is written."""

from __future__ import annotations

import os

from qlaunch.host.newfile import FULL

_KEEP_SIZE = 1


def reserve(fd: int, size: int) -> bool:
    """Keep `size` bytes for the file `fd`, whose length stays as it is.

    Returns: whether there is so much room. A file system that cannot keep any is believed what it
    says of its free space.
    """
    import ctypes  # late: the supervisor lives without it

    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(fd, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size))
    if done == 0:
        return True
    if ctypes.get_errno() in FULL:
        return False
    found = os.fstatvfs(fd)
    return found.f_bavail * found.f_frsize >= size


def give_back(fd: int) -> None:
    """Give back what is kept beyond the end of the file `fd`. Raises: OSError."""
    end = os.fstat(fd).st_size
    # A file system need not look beyond the end unless the file becomes shorter.
    os.ftruncate(fd, end + 1)
    os.ftruncate(fd, end)
