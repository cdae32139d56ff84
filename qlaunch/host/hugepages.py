"""A process's huge pages, given back after its memory was protected page by page.

While QEMU writes a guest's memory behind it, the kernel splits every huge page (2 MiB). Small pages
slow the guest, and the next save: before memory is protected QEMU reads a byte of each page, with
the guest stopped; 400 MiB of small pages take 25 ms, of huge ones 5 (QEMU 7.2, Linux 6.18).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable

_HUGE = 2 << 20
_END = (1 << 47) - 4096  # of the addresses that programs have on x86-64

# PAGEMAP_SCAN of Linux 6.7 (include/uapi/linux/fs.h): struct pm_scan_arg and its categories.
_ARGUMENT = struct.Struct("=12Q")
_REGION = struct.Struct("=3Q")
_SCAN = (3 << 30) | (_ARGUMENT.size << 16) | (ord("f") << 8) | 16
_IS_FILE, _IS_ZERO, _IS_HUGE = 1 << 2, 1 << 5, 1 << 6
_MOST_REGIONS = 1024

_PROCESS_MADVISE = 440  # Linux 5.10
_MADV_COLLAPSE = 25  # Linux 6.1
# In one call: a process that changes its mappings waits for it.
_PIECE = 32 << 20
# A page was in use just then, or there was no room for a huge one; the next piece may do.
_PASSING = frozenset({errno.EAGAIN, errno.EBUSY, errno.ENOMEM, errno.EINVAL})

Ranges = tuple[tuple[int, int], ...]


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def find(pid: int) -> Ranges:
    """Where the process `pid` has private memory in huge pages: pairs of start and end.

    Empty where the kernel does not tell: before Linux 6.7, or of another user's process.
    """
    found: list[tuple[int, int]] = []
    regions = ctypes.create_string_buffer(_REGION.size * _MOST_REGIONS)
    start = 0
    try:
        with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
            while start < _END:
                argument = bytearray(_ARGUMENT.pack(
                    _ARGUMENT.size, 0, start, _END, 0, ctypes.addressof(regions), _MOST_REGIONS,
                    0, _IS_FILE | _IS_ZERO, _IS_HUGE | _IS_FILE | _IS_ZERO, 0, _IS_HUGE,
                ))  # fmt: skip
                count = fcntl.ioctl(pagemap, _SCAN, argument)
                for at in range(count):
                    low, high, _ = _REGION.unpack_from(regions, at * _REGION.size)
                    found.append((low, high))
                start = _ARGUMENT.unpack(argument)[4]
    except OSError:
        return ()
    return tuple(found)


def give_back(pid: int, ranges: Iterable[tuple[int, int]]) -> int:
    """Have the kernel make huge pages of what the process `pid` has in `ranges`.

    Only of what was huge before: elsewhere it would fill what the guest never used or has given
    back. Returns: for how many bytes it was done; 0 where this user may not (CAP_SYS_NICE) or the
    kernel cannot. Blocks for 0.15 s a GiB; the process goes on meanwhile.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return 0
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        done = 0
        for base, length in _pieces(ranges):
            piece, one = _Piece(base, length), ctypes.c_size_t(1)
            result = libc.syscall(
                _PROCESS_MADVISE, handle, ctypes.byref(piece), one, _MADV_COLLAPSE, 0
            )
            if result >= 0:
                done += length
            elif ctypes.get_errno() not in _PASSING:
                break
        return done
    finally:
        os.close(handle)


def _pieces(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    for start, end in ranges:
        base = -(-start // _HUGE) * _HUGE
        while base + _HUGE <= end:
            length = min(_PIECE, (end - base) // _HUGE * _HUGE)
            yield base, length
            base += length
