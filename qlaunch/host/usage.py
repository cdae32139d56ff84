"""How much memory and processor time a process uses."""

from __future__ import annotations

import psutil
from attrs import frozen

from qlaunch.errors import NotFoundError


@frozen(kw_only=True)
class Usage:
    """One look at a process. Memory in bytes; `cpu_seconds` count from its start.

    `pss` counts shared pages in part; None when it was not asked for or may not be seen.
    `started` (seconds since 1970) tells apart two processes that had the same number.
    """

    rss: int
    pss: int | None
    cpu_seconds: float
    started: float


def usage(pid: int, *, want_pss: bool = False) -> Usage:
    """What the process `pid` uses now. PSS costs milliseconds for a large process.

    Raises: NotFoundError when there is no such process.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(
                rss=process.memory_info().rss,
                pss=_pss(process) if want_pss else None,
                cpu_seconds=times.user + times.system,
                started=process.create_time(),
            )
    except psutil.NoSuchProcess as error:
        raise NotFoundError(f"there is no process {pid}") from error


def cpu_percent(before: Usage, after: Usage, seconds: float) -> float:
    """Processor time between two looks that lie `seconds` apart, 100 for one whole processor."""
    if seconds <= 0 or before.started != after.started:
        return 0.0
    return max(0.0, (after.cpu_seconds - before.cpu_seconds) / seconds * 100)


def _pss(process: psutil.Process) -> int | None:
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return None
