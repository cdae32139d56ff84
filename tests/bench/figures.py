"""Figures and their table."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence

from attrs import frozen

from qlaunch import __version__

HEADER = ("figure", "qlaunch", "floor", "ratio", "limit", "")


@frozen(kw_only=True)
class Figure:
    """One line of the table. `unit` is `ms`, `MiB` or nothing; a `floor` makes it a ratio, and the
    limit one of the ratio then."""

    what: str
    value: float
    unit: str = ""
    floor: float | None = None
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.floor is None else self.value / self.floor

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        measured = self.value if self.ratio is None else self.ratio
        return "ok" if measured <= self.limit else "OVER"

    def cells(self) -> tuple[str, ...]:
        return (
            self.what,
            _shown(self.value, self.unit),
            "" if self.floor is None else _shown(self.floor, self.unit),
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.limit is None else f"{self.limit:g} {self._limit_unit}".rstrip(),
            self.verdict,
        )

    @property
    def _limit_unit(self) -> str:
        return "x" if self.floor is not None else self.unit


def timed(
    what: str, seconds: Sequence[float], floor: Sequence[float] = (), limit: float | None = None
) -> Figure:
    """The medians of times, in milliseconds."""
    return Figure(
        what=what,
        value=statistics.median(seconds) * 1000,
        unit="ms",
        floor=statistics.median(floor) * 1000 if floor else None,
        limit=limit,
    )


def _shown(value: float, unit: str) -> str:
    digits = 1 if value % 1 and value < 100 else 0
    return f"{value:.{digits}f} {unit}".rstrip()


def plain_table(figures: Sequence[Figure]) -> str:
    """For a terminal."""
    rows = [HEADER, *(figure.cells() for figure in figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at in (0, len(HEADER) - 1) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown_table(figures: Sequence[Figure]) -> str:
    """For docs/benchmarks.md."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(figure.cells()) + " |" for figure in figures]
    return "\n".join(lines)


def circumstances(emulator: str) -> str:
    """When and where: what the figures hang on, in a line."""
    first = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True)
    qemu = first.stdout.splitlines()[0].removeprefix("QEMU emulator version ").split(" ")[0]
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return (
        f"{today}, qlaunch {__version__}, QEMU {qemu}, Python {platform.python_version()},"
        f" Linux {platform.release().split('-')[0]}, {len(os.sched_getaffinity(0))} processors,"
        f" load {os.getloadavg()[0]:.1f} at the beginning"
    )
