"""Progress of a verb on stderr: a line per step, with the time it took."""

from __future__ import annotations

import sys

from qlaunch.cli.output import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_STEP_WIDTH = 9
_TEXT_WIDTH = 44


class Steps:
    """Prints progress lines of one or several machines, aligned; safe to call from threads."""

    def __init__(self, names: Sequence[str], *, quiet: bool = False) -> None:
        self._width = max(map(len, names), default=0)
        self._quiet = quiet

    def __call__(self, step: dict[str, Any]) -> None:
        if not self._quiet:
            # One write a line: lines of several machines must not run into each other.
            sys.stderr.write(step_line(step, self._width) + "\n")
            sys.stderr.flush()


def step_line(step: dict[str, Any], width: int = 0) -> str:
    """`xp  disk hda   made 20GiB qcow2      12 ms`."""
    machine = clean(step.get("machine", ""))
    name, text = clean(step.get("step", "")), clean(step.get("text", ""))
    seconds = step.get("seconds")
    line = f"{machine:<{width}}  {name:<{_STEP_WIDTH}}  {text:<{_TEXT_WIDTH}}"
    if isinstance(seconds, int | float):
        line += f"  {took(seconds):>7}"
    return line.rstrip()


def took(seconds: float) -> str:
    """How long a step took: `12 ms`, `1.4 s`, `3 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"
