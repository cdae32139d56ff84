"""Why a file cannot be used, in words: which directory of the path, whose, and what mends it."""

from __future__ import annotations

import errno
import os
import shlex
import stat

from qlaunch.host.users import group_name, user_name


class FileProblem(Exception):
    """A file that cannot be used; `exists` tells whether there is something at its path."""

    def __init__(self, message: str, *, hint: str | None = None, exists: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exists = exists


def why_not(path: str, error: OSError, *, write: bool) -> FileProblem:
    """What the `error` of opening `path` means; `write` when it was to be opened for writing."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return _no_right(path, write=write)
    if error.errno == errno.ENOTDIR:
        return FileProblem(f"{_first_file(path)} is a file, not a directory")
    if error.errno == errno.ELOOP:
        return FileProblem("its symbolic links lead in a circle")
    if error.errno == errno.EROFS:
        return _read_only(path)
    words = os.strerror(error.errno) if error.errno else str(error)
    return FileProblem(words[:1].lower() + words[1:], exists=os.path.lexists(path))


def free_space(directory: str) -> int | None:
    """Bytes that this user can still write on the file system of `directory`."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def mount_point(path: str) -> str:
    """Where the file system that holds `path` is mounted, as a message names it."""
    current = os.path.realpath(path)
    while not os.path.ismount(current) and current != "/":
        current = os.path.dirname(current)
    return current


def _no_right(path: str, *, write: bool) -> FileProblem:
    user = user_name(os.geteuid())
    for directory in _directories(os.path.abspath(path)):
        if not os.access(directory, os.X_OK, effective_ids=True):
            return FileProblem(
                f"{user} may not enter the directory {directory}, {_owner(directory)}",
                hint=f"sudo setfacl -m u:{user}:x {shlex.quote(directory)}, or move the image",
            )
    if write and os.path.lexists(path) and os.statvfs(path).f_flag & os.ST_RDONLY:
        return _read_only(path)
    verb = "write" if write else "read"
    letters = "rwX" if write else "r"
    what = "the directory " if os.path.isdir(path) else ""
    return FileProblem(
        f"{user} may not {verb} {what}{path}, {_owner(path)}",
        hint=f"sudo chown {user} {shlex.quote(path)}, or sudo setfacl -m u:{user}:{letters} "
        f"{shlex.quote(path)}",
        exists=True,
    )


def _read_only(path: str) -> FileProblem:
    return FileProblem(f"the file system {mount_point(path)} is read-only", exists=True)


def _directories(path: str) -> list[str]:
    """`/`, `/home`, `/home/ann` for `/home/ann/x`, through links as the kernel walks them."""
    found: list[str] = []
    for start in (path, os.path.realpath(path)):
        parts: list[str] = []
        current = os.path.dirname(start)
        while True:
            parts.append(current)
            if current == "/":
                break
            current = os.path.dirname(current)
        found.extend(part for part in reversed(parts) if part not in found)
    return found


def _first_file(path: str) -> str:
    for directory in _directories(os.path.abspath(path)):
        if os.path.lexists(directory) and not os.path.isdir(directory):
            return directory
    return os.path.dirname(path)


def _owner(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return "whose owner cannot be seen"
    mode = stat.S_IMODE(found.st_mode)
    return (
        f"which belongs to {user_name(found.st_uid)}:{group_name(found.st_gid)} (mode {mode:04o})"
    )
