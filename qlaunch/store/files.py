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
from typing import Any, TypeVar

from qlaunch import records
from qlaunch.errors import BusyError, HostError

T = TypeVar("T")
_TEMPORARY = ".tmp-"
DAMAGED = ".damaged"


def sync_dir(path: str) -> None:
    """Make what was renamed or removed in the folder `path` last."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: str, data: bytes, *, mode: int = 0o600, lasting: bool = True) -> None:
    """Put `data` at `path`: temporary file, fsync, rename, fsync of the folder.

    What need not be `lasting` may be the old file again after a power cut, but never half a one.

    Raises: HostError that says what to do when there is no space.
    """
    folder = os.path.dirname(path)
    temporary = f"{path}{_TEMPORARY}{os.getpid()}"
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
        if lasting:
            sync_dir(folder)
    except OSError as error:
        raise no_write(path, error) from error


def no_write(path: str, error: OSError) -> HostError:
    """What it means that `path` could not be written, in words."""
    hint = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    return HostError(f"cannot write {path}: {error.strerror}", hint=hint)


def sweep(folder: str) -> None:
    """Remove what writers that were killed have left in `folder`, where nobody writes now."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if _TEMPORARY in name:
                os.unlink(os.path.join(folder, name))


def write_json(path: str, data: object, *, lasting: bool = True) -> None:
    """`write_bytes` of `data` as JSON, a line for each of its keys."""
    write_bytes(path, _json_text(data).encode() + b"\n", lasting=lasting)


def _json_text(data: object) -> str:
    # ASCII: a path that is not UTF-8 has half surrogate pairs in it, which only \u can say.
    # With `indent` json leaves its C code, and takes ten times as long and as much memory.
    if not isinstance(data, dict) or not data:
        return json.dumps(data)
    lines = (f"{json.dumps(str(key))}: {json.dumps(value)}" for key, value in data.items())
    return "{\n" + ",\n".join(lines) + "\n}"


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


def load_record(cls: type[T], path: str, version: int) -> T | None:
    """The record at `path`; one that is damaged, or newer than we are, is set aside."""
    data = read_json(path)
    if data is None:
        return None
    try:
        if not isinstance(data, dict) or data.get("version", 1) not in range(1, version + 1):
            raise records.RecordError("a version that this qlaunch does not know")
        return records.from_plain(cls, data)
    except records.RecordError:
        set_aside(path)
        return None


def set_aside(path: str) -> None:
    """Rename a damaged file so that it is out of the way and not lost."""
    with contextlib.suppress(OSError):
        os.rename(path, f"{path}{DAMAGED}")


def remove(path: str, *, lasting: bool = True) -> None:
    """Remove the file `path`; it may be gone already. Raises: HostError."""
    try:
        os.unlink(path)
        if lasting:
            sync_dir(os.path.dirname(path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"cannot remove {path}: {error.strerror}") from error


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
    while True:
        handle = _open_lock(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            break
        # `rm` removes the file while it holds it: a lock on a file without a name is no lock.
        if _is_there(path, handle):
            with contextlib.suppress(OSError):  # a full disk must not keep a lock from being one
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
            return handle
        os.close(handle)
    holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
    os.close(handle)
    by = f" by process {holder}" if holder.isdigit() else ""
    raise BusyError(f"{what} is held{by}", hint="another qlaunch works on it; `qlaunch ps` shows")


def _open_lock(path: str) -> int:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot lock {path}: {error.strerror}") from error


def _is_there(path: str, handle: int) -> bool:
    """Whether `path` still is the file that `handle` has open."""
    ours = os.fstat(handle)
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
