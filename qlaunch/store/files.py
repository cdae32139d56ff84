"""State files: JSON with a version, written so that a power cut leaves the old or the new one.

Locks are `flock` on files that stay: they are free when their holder is gone, however it went.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from qlaunch.errors import BusyError, HostError


def sync_dir(path: str) -> None:
    """Make what was renamed or removed in the folder `path` last."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Put `data` at `path`: temporary file, fsync, rename, fsync of the folder.

    Raises: HostError that names the file system when there is no space.
    """
    folder = os.path.dirname(path)
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_dir(folder)
    except OSError as error:
        hint = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise HostError(f"cannot write {path}: {error.strerror}", hint=hint) from error


def write_json(path: str, data: object) -> None:
    """`write_bytes` of `data` as JSON."""
    write_bytes(path, json.dumps(data, ensure_ascii=False, indent=1).encode() + b"\n")


def read_json(path: str) -> Any | None:
    """What `write_json` wrote; None when there is no such file, or when it is damaged: then it is
    set aside as `PATH.damaged` for a person to look at, never overwritten in silence.

    Raises: HostError when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        set_aside(path)
        return None
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error


def set_aside(path: str) -> None:
    """Rename a damaged file so that it is out of the way and not lost."""
    with contextlib.suppress(OSError):
        os.rename(path, f"{path}.damaged")


def remove(path: str) -> None:
    """Remove the file `path` for good; it may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_dir(os.path.dirname(path))


@contextlib.contextmanager
def locked(path: str, *, what: str) -> Iterator[None]:
    """Hold the lock file `path` for the body.

    Raises: BusyError that names `what` and the holder's pid when somebody else has it.
    """
    handle = take_lock(path, what=what)
    try:
        yield
    finally:
        os.close(handle)


def take_lock(path: str, *, what: str) -> int:
    """The descriptor of the locked file `path`; closing it gives the lock back.

    Raises: BusyError, HostError.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot lock {path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
        os.close(handle)
        by = f" by process {holder}" if holder.isdigit() else ""
        raise BusyError(
            f"{what} is held{by}", hint="another qlaunch works on it; `qlaunch ps` shows"
        ) from None
    with contextlib.suppress(OSError):  # a full disk must not keep a lock from being a lock
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle
