"""How much memory and processor time a process uses."""

from __future__ import annotations

import os
from functools import cache

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
    """What the process `pid` uses now: one small file, since `ps` asks for every machine. PSS
    costs milliseconds for a large process.

    Raises: NotFoundError when there is no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotFoundError(f"there is no process {pid}") from error
    # The name in brackets may itself hold ") ": what follows its last one is field 3.
    fields = stat[stat.rindex(b")") + 2 :].split()
    user, system, start, pages = (int(fields[number - 3]) for number in (14, 15, 22, 24))
    ticks = os.sysconf("SC_CLK_TCK")
    return Usage(
        rss=pages * os.sysconf("SC_PAGE_SIZE"),
        pss=_pss(pid) if want_pss else None,
        cpu_seconds=(user + system) / ticks,
        started=_boot_time() + start / ticks,
    )


def cpu_percent(before: Usage, after: Usage, seconds: float) -> float:
    """Processor time between two looks that lie `seconds` apart, 100 for one whole processor."""
    if seconds <= 0 or before.started != after.started:
        return 0.0
    return max(0.0, (after.cpu_seconds - before.cpu_seconds) / seconds * 100)


@cache
def _boot_time() -> float:
    """When this computer was booted, in seconds since 1970."""
    with open("/proc/stat", "rb") as file:
        return next(float(line.split()[1]) for line in file if line.startswith(b"btime"))


def _pss(pid: int) -> int | None:
    import psutil  # 1.2 MiB of a supervisor that rarely needs it

    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.AccessDenied:
        return None
    except psutil.NoSuchProcess as error:
        raise NotFoundError(f"there is no process {pid}") from error


def oom_score_adjust(pid: int) -> int | None:
    """How much sooner the kernel ends this process than others when memory runs short."""
    try:
        with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
