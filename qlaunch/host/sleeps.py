"""Whether this computer has slept: told by the kernel, without looking again and again."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable

_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_ABSTIME, _CANCEL_ON_SET = 1, 2
_CLOCK_REALTIME = 0
# struct itimerspec: no interval; a moment that nobody sees.
_NEVER = struct.pack("=4q", 0, 0, 1 << 40, 0)
# What the two clocks may differ by without a sleep.
LEAST_SLEEP = 1.0


class SleepWatch:
    """Calls `woken` with the seconds that the computer has slept, each time that it has.

    A timer on the wall clock that is never due is cancelled whenever that clock is set, which the
    kernel does after a sleep (timerfd_create(2)); how long that was says the clock that goes on
    meanwhile. One that somebody set is nothing to us.
    """

    def __init__(self, woken: Callable[[float], None]) -> None:
        """Raises: OSError where the kernel has no such timer."""
        self._woken = woken
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_CLOCK_REALTIME, _NONBLOCK | _CLOEXEC)
        if self._fd < 0:
            raise _failed()
        self.slept = slept()
        self._arm()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _arm(self) -> None:
        flags = _ABSTIME | _CANCEL_ON_SET
        if self._libc.timerfd_settime(self._fd, flags, _NEVER, None) < 0:
            raise _failed()

    def _readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        except OSError:
            pass  # ECANCELED: the clock was set
        self._arm()
        self.look()

    def look(self) -> None:
        """Call `woken` if the computer has slept since the last look."""
        before, self.slept = self.slept, slept()
        if self.slept - before >= LEAST_SLEEP:
            self._woken(self.slept - before)


def slept() -> float:
    """How long this computer has slept since its boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
