"""Copying an image byte for byte, holes as holes, to another file system."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Callable

from qlaunch.errors import HostError
from qlaunch.host.newfile import part_file, publish, remove_stale, write_error

_BLOCK = 4 << 20
Progress = Callable[[int, int], None]


async def copy_image(old: str, new: str, progress: Progress) -> None:
    """Copy `old` to `new`, which appears when it is complete and on the disk. A cancellation ends
    it and leaves nothing.

    Raises: HostError, ConflictError when `new` exists, BusyError.
    """
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_copy, old, new, stop, progress))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({work})
        with contextlib.suppress(HostError):
            work.result()
        raise


def _copy(old: str, new: str, stop: threading.Event, progress: Progress) -> None:
    remove_stale(new)
    try:
        source = os.open(old, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{old} cannot be read: {error.strerror}") from error
    try:
        with part_file(new) as (part, target):
            try:
                if _fill(source, target, stop, progress):
                    os.fchmod(target, os.fstat(source).st_mode & 0o777)
                    publish(target, part, new)
            except OSError as error:
                raise write_error(new, error) from error
    finally:
        os.close(source)


def _fill(source: int, target: int, stop: threading.Event, progress: Progress) -> bool:
    """Returns: False when it was told to stop."""
    found = os.fstat(source)
    os.ftruncate(target, found.st_size)
    at = done = 0
    while at < found.st_size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                break
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            if stop.is_set():
                return False
            data = os.pread(source, min(_BLOCK, end - at), at)
            if not data:
                return True
            at += os.pwrite(target, data, at)
            done += len(data)
            progress(done, max(done, found.st_blocks * 512))
    return True
