"""Sizes and durations, as people write them and as programs want them.

A size is bytes (int), a duration seconds (float). On the thin client's path: imports nothing heavy.
"""

from __future__ import annotations

_SIZE_UNITS = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "PiB": 1 << 50,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
}
_DURATION_UNITS = {  # in milliseconds
    "ms": 1,
    "s": 1000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}
MAX_SIZE = 1 << 62
_MAX_DIGITS = 30  # more is no size and no time, and Python refuses thousands


def _split(text: str) -> tuple[str, str]:
    stripped = text.strip()
    at = 0
    while at < len(stripped) and (
        (stripped[at].isascii() and stripped[at].isdigit()) or stripped[at] == "."
    ):
        at += 1
    return stripped[:at], stripped[at:].strip()


def _scaled(number: str, scale: int) -> tuple[int, int]:
    """`number` times `scale` as numerator and denominator: floats would lose bytes (2.3 kB)."""
    whole, _, fraction = number.partition(".")
    return int(whole + fraction) * scale, int(10 ** len(fraction))


def parse_size(text: str) -> int:
    """Bytes in `text`, for example `20GiB`, `512 MiB`, `1.5TiB`, `64kB`.

    Raises: ValueError, with words for a person, when there is no number, an unknown unit or no
    whole number of bytes.
    """
    number, unit = _split(text)
    if not number or number.count(".") > 1 or number == ".":
        raise ValueError(f"{text!r} is not a size; write a number and a unit, such as '20GiB'")
    if not unit:
        raise ValueError(f"{text!r} has no unit; write '{number}MiB' or '{number}GiB'")
    if unit not in _SIZE_UNITS:
        raise ValueError(f"{unit!r} is not a unit of size; use {', '.join(_SIZE_UNITS)}")
    if len(number) > _MAX_DIGITS:
        raise ValueError(f"{text!r} has too many digits")
    above, below = _scaled(number, _SIZE_UNITS[unit])
    if above % below:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    if above // below > MAX_SIZE:
        raise ValueError(f"{text!r} is larger than any disk or memory can be")
    return above // below


def format_size(size: int) -> str:
    """`size` bytes as text that `parse_size` reads back to the same number: `20GiB`, `1536MiB`."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def short_size(size: int) -> str:
    """`size` bytes rounded for a table: `1.5 GiB`, `312 MiB`, `9 B`."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        scale = _SIZE_UNITS[unit]
        if size >= scale:
            value = size / scale
            return f"{value:.1f} {unit}" if value < 10 and size % scale else f"{value:.0f} {unit}"
    return f"{size} B"


def parse_duration(text: str) -> float:
    """Seconds in `text`, for example `90s`, `1.5min`, `200ms`, `2h`.

    Raises: ValueError, with words for a person.
    """
    number, unit = _split(text)
    if not number or number.count(".") > 1 or number == ".":
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as '90s'")
    if not unit:
        raise ValueError(f"{text!r} has no unit; write '{number}s' or '{number}min'")
    if unit not in _DURATION_UNITS:
        raise ValueError(f"{unit!r} is not a unit of time; use {', '.join(_DURATION_UNITS)}")
    if len(number) > _MAX_DIGITS:
        raise ValueError(f"{text!r} has too many digits")
    above, below = _scaled(number, _DURATION_UNITS[unit])
    return above / (below * 1000)


def format_duration(seconds: float) -> str:
    """`seconds` as text that `parse_duration` reads back, to the microsecond: `90s`, `200ms`."""
    milliseconds = seconds * 1000
    for unit, scale in reversed(_DURATION_UNITS.items()):
        if milliseconds >= scale and milliseconds % scale == 0:
            return f"{int(milliseconds // scale)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def short_duration(seconds: float) -> str:
    """`seconds` rounded for a table: `3 s`, `12 min`, `4 h`, `9 d`."""
    for unit, limit in (("d", 2 * 86400), ("h", 2 * 3600), ("min", 120)):
        if seconds >= limit:
            return f"{seconds * 1000 / _DURATION_UNITS[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
