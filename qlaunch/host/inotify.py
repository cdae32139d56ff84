"""Waiting until something in a folder changes: inotify(7), of which Python knows nothing."""

from __future__ import annotations

import ctypes
import os
import select

_CHANGES = 0x2 | 0x80 | 0x100  # IN_MODIFY, IN_MOVED_TO, IN_CREATE
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class Watch:
    """Watches one folder, from its making on. Use as a context manager."""

    def __init__(self, folder: str) -> None:
        """Raises: OSError, when there is no such folder or the user watches too much already."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if libc.inotify_add_watch(self._fd, os.fsencode(folder), _CHANGES) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, os.strerror(number), folder)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a change since the last call; False when none came in time."""
        if not select.select([self._fd], [], [], timeout)[0]:
            return False
        while True:
            try:
                os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return True
