"""Rows as aligned columns, nested data as an indented list. On the thin client's path."""

from __future__ import annotations

import time

from qlaunch import units
from qlaunch.cli.output import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    Paint = dict[str, str]

BYTES = frozenset(("memory", "pss", "size", "used", "read", "written"))
MOMENTS = frozenset(("since", "when"))
RIGHT = frozenset(("PID", "MEM", "CPU", "SIZE", "SINCE"))
_BOLD = "1"


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], colors: Paint | None = None
) -> str:
    """`rows` under `header`, two spaces apart; words that are keys of `colors` get that colour."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [title in RIGHT for title in header]

    def line(row: Sequence[str]) -> str:
        padded = [
            _pad(cell, width, to_right=to_right)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        padded[-1] = padded[-1].rstrip()
        if colors:
            padded = [_painted(text, cell, colors) for text, cell in zip(padded, row, strict=True)]
        return "  ".join(padded)

    return "\n".join(line(row) for row in [list(header), *cells])


def _pad(text: str, width: int, *, to_right: bool) -> str:
    return text.rjust(width) if to_right else text.ljust(width)


def _painted(padded: str, word: str, colors: Paint) -> str:
    color = colors.get(word)
    return padded.replace(word, f"\x1b[{color}m{word}\x1b[0m", 1) if color else padded


def outline(value: dict[str, Any]) -> str:
    """A table of tables as an indented outline, in its own order; sizes and times for people."""
    return "\n".join(_outline(value, 0))


def _outline(value: dict[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    width = max((len(str(key)) for key, each in value.items() if _is_plain(each)), default=0)
    for key, each in value.items():
        if each is None or each in ([], {}):
            continue
        if _is_plain(each):
            yield f"{indent}{clean(key):<{width}}  {_plain(each, str(key))}"
        elif isinstance(each, dict):
            yield f"{indent}{clean(key)}"
            yield from _outline(each, depth + 1)
        else:
            yield f"{indent}{clean(key)}"
            yield from _entries(each, depth + 1)


def _entries(entries: Sequence[Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for entry in entries:
        if isinstance(entry, dict):
            lines = list(_outline(entry, 0)) or ["(nothing)"]
            yield f"{indent}- {lines[0]}"
            yield from (f"{indent}  {line}" for line in lines[1:])
        else:
            yield f"{indent}- {_plain(entry)}"


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(not isinstance(each, dict | list) for each in value)
    return not isinstance(value, dict)


def _plain(value: object, key: str = "") -> str:
    if isinstance(value, list):
        return ", ".join(_plain(each) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key in BYTES:
        return units.short_size(value)
    if isinstance(value, int | float) and key in MOMENTS:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return clean(value)
