"""A process's identity over restarts of the supervisor and the reuse of its number.

A pid and its start time are not enough: both repeat (of 200 forced reuses 164 fell into the same
tick). The inode of a pidfd never does (pidfs, Linux 6.9).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
from functools import cache
from types import TracebackType

from attrs import frozen

from qlaunch.host.procfs import boot_id, start_ticks

# struct pidfd_info, its first version: mask, cgroup id, 11 ids, exit code.
_INFO = struct.Struct("=QQ11Ii")
_INFO_EXIT = 1 << 3
_GET_INFO = (3 << 30) | (_INFO.size << 16) | (0xFF << 8) | 11


class Pidfd:
    """A descriptor of one process. The number it had may be reused; this never means another."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd

    @classmethod
    def of(cls, pid: int) -> Pidfd:
        """The process that has the number `pid` now.

        Raises: ProcessLookupError when there is none.
        """
        return cls(pid, os.pidfd_open(pid))

    def __enter__(self) -> Pidfd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, readable once the process has ended; -1 after `close`."""
        return self._fd

    def close(self) -> None:
        """Let go of the process, which goes on. Closing twice does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def inode(self) -> int | None:
        """What tells this process from all others since the boot, where the kernel has it."""
        return os.fstat(self._fd).st_ino if _has_pidfs() else None

    @property
    def ended(self) -> bool:
        """Whether the process has ended (its parent may still have to take its status)."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    @property
    def reaped(self) -> bool:
        """Whether its parent has taken its status."""
        poll = select.poll()
        poll.register(self._fd, 0)
        return bool(poll.poll(0))

    def send_signal(self, number: int) -> bool:
        """Send it a signal; False when it has ended already.

        Raises: PermissionError when it belongs to somebody else.
        """
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        return True

    def exit_status(self) -> int | None:
        """The exit status (minus the signal's number, when one ended it) once it is reaped.

        None while it is not, and where the kernel does not tell it to others than the parent
        (before Linux 6.15).
        """
        question = _INFO.pack(_INFO_EXIT, *([0] * 13))
        try:
            answer = fcntl.ioctl(self._fd, _GET_INFO, question)
        except OSError:
            return None
        mask, *_ids, status = _INFO.unpack(answer)
        return os.waitstatus_to_exitcode(status) if mask & _INFO_EXIT else None


@frozen(kw_only=True)
class ProcessId:
    """Which process it was: plain data that can be saved and looked for later."""

    pid: int
    start: int
    boot_id: str
    inode: int | None = None

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The identity of the living process `pid`, which must not end meanwhile unreaped by us.

        Raises: ProcessLookupError when there is none.
        """
        with Pidfd.of(pid) as pidfd:
            return cls(pid=pid, start=start_ticks(pid), boot_id=boot_id(), inode=pidfd.inode)

    def open(self) -> Pidfd | None:
        """A descriptor of that very process, None when it has ended."""
        if self.boot_id != boot_id():
            return None
        try:
            pidfd = Pidfd.of(self.pid)
        except ProcessLookupError:
            return None
        # Only after opening: what is compared now can no longer turn into another process.
        if self._is(pidfd):
            return pidfd
        pidfd.close()
        return None

    def _is(self, pidfd: Pidfd) -> bool:
        try:
            same = start_ticks(self.pid) == self.start and not pidfd.ended
        except ProcessLookupError:
            return False
        return same and (self.inode is None or pidfd.inode in (None, self.inode))


@cache
def _has_pidfs() -> bool:
    # Before pidfs all pidfds were one anonymous inode, shared with every eventfd.
    pidfd, other = os.pidfd_open(os.getpid()), os.eventfd(0, os.EFD_CLOEXEC)
    try:
        return os.fstat(pidfd).st_dev != os.fstat(other).st_dev
    finally:
        os.close(pidfd)
        os.close(other)
