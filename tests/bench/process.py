"""What the kernel says of a process: its memory, its wake-ups, its processor time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from attrs import frozen


@frozen(kw_only=True)
class Run:
    """One program from its start to its end, in seconds."""

    cpu: float
    wall: float


@frozen(kw_only=True)
class Activity:
    """What a process has done so far: times that it gave up the processor to wait, nanoseconds on
    it. All threads together."""

    wakeups: int
    cpu: int


def run(argv: Sequence[str]) -> Run:
    """Run a program to its end. Raises: RuntimeError when it fails."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        begun = time.monotonic()
        actions = [(os.POSIX_SPAWN_DUP2, nothing, number) for number in (0, 1, 2)]
        pid = os.posix_spawn(argv[0], list(argv), os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall = time.monotonic() - begun
    finally:
        os.close(nothing)
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise RuntimeError(f"{' '.join(argv)} ended with status {code}")
    return Run(cpu=usage.ru_utime + usage.ru_stime, wall=wall)


def activity(pid: int) -> Activity:
    """What the process has done since it started."""
    wakeups = cpu = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
            wakeups += next(
                int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches")
            )
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            cpu += int(file.read().split()[0])
    return Activity(wakeups=wakeups, cpu=cpu)


def memory(pid: int) -> dict[str, int]:
    """The process's memory in bytes: `Pss` (shared pages in part), `Rss`, `Private_Dirty`."""
    found: dict[str, int] = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in list(file)[1:]:
            name, value, *_ = line.split()
            found[name.rstrip(":")] = int(value) << 10
    return found
