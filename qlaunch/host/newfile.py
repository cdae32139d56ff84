"""New files: whole under their real name and on the disk, or not there at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from qlaunch.errors import BusyError, ConflictError, HostError
from qlaunch.host.access import free_space, mount_point, why_not
from qlaunch.host.procfs import descriptors
from qlaunch.units import short_size

FULL = (errno.ENOSPC, errno.EDQUOT)

_PART = re.compile(r"\.(.+)\.part-[0-9]+", re.DOTALL)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1


def write_error(path: str, error: OSError) -> HostError:
    """What it means that `path` could not be made because of `error`, in words."""
    directory = os.path.dirname(path)
    if error.errno in FULL:
        left = short_size(free_space(directory) or 0)
        what = "the quota of this user is used up" if error.errno == errno.EDQUOT else "is full"
        return HostError(
            f"{path} cannot be made: the file system {mount_point(directory)}: {what}, {left} left",
            hint="free some space there, or put the image elsewhere",
        )
    if error.errno == errno.EFBIG:
        return HostError(
            f"{path} cannot be made: the file system {mount_point(directory)} has no files so large"
        )
    told = why_not(directory, error, write=True)
    return HostError(f"{path} cannot be made: {told.message}", hint=told.hint)


@contextlib.contextmanager
def part_file(path: str) -> Iterator[tuple[str, int]]:
    """The name and descriptor of a new file beside `path`; its name is gone afterwards.

    Raises: BusyError when this process makes `path` already, HostError.
    """
    part = f"{_part_prefix(path)}{os.getpid()}"
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise BusyError(f"{path} is being made just now") from error
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield part, fd
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        os.close(fd)


def _part_prefix(path: str) -> str:
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.part-")


def remove_stale(path: str) -> None:
    """Remove what makers that were killed have left; nobody who is still at work loses anything."""
    directory, prefix = os.path.split(_part_prefix(path))
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            pid = name.removeprefix(prefix)
            part = os.path.join(directory, name)
            if name.startswith(prefix) and pid.isdecimal() and not _has_open(int(pid), part):
                os.unlink(part)


def remove_stale_in(folder: str) -> None:
    """The same for everything that was being made in `folder`."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if (found := _PART.fullmatch(name)) is not None:
                remove_stale(os.path.join(folder, found[1]))


def _has_open(pid: int, path: str) -> bool:
    """Whether `pid` has `path` open: its number alone may belong to somebody else by now."""
    listed = descriptors(pid)
    if listed is None:  # another user's; it may be at work
        return True
    for descriptor in listed:
        with contextlib.suppress(OSError):
            if os.path.samefile(f"/proc/{pid}/fd/{descriptor}", path):
                return True
    return False


def publish(fd: int, part: str, path: str) -> None:
    """Give the finished `part` its name, on the disk; in this order no crash shows a half.

    Raises: ConflictError when there is a file of that name, OSError.
    """
    os.fsync(fd)
    try:
        os.link(part, path)
    except FileExistsError as error:
        raise ConflictError(f"{path} exists already; it is not replaced") from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename(part, path)
    else:
        os.unlink(part)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _rename(part: str, path: str) -> None:
    """Rename without replacing, where the file system has no hard links (FAT, some of FUSE)."""
    import ctypes  # for this one call

    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(part), os.fsencode(path)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        raise ConflictError(f"{path} exists already; it is not replaced")
    raise OSError(number, os.strerror(number), path)
