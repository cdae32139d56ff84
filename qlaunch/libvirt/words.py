"""Numbers, sizes and CPU lists as libvirt writes them."""

from __future__ import annotations

import re

_UNITS = {
    "b": 1, "bytes": 1,
    "kb": 1000, "k": 1 << 10, "kib": 1 << 10,
    "mb": 1000**2, "m": 1 << 20, "mib": 1 << 20,
    "gb": 1000**3, "g": 1 << 30, "gib": 1 << 30,
    "tb": 1000**4, "t": 1 << 40, "tib": 1 << 40,
    "pb": 1000**5, "p": 1 << 50, "pib": 1 << 50,
    "eb": 1000**6, "e": 1 << 60, "eib": 1 << 60,
}  # fmt: skip
MAX_CPU = 4096


def number(text: str) -> int | None:
    """A decimal or `0x` number; None when it is none, or too long to be meant."""
    text = text.strip()
    if re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,15}", text):
        return int(text, 16)
    return None


def size(text: str, unit: str, otherwise: str = "KiB") -> int | None:
    """Bytes; `unit` is libvirt's, `otherwise` counts where there is none."""
    found = number(text)
    scale = _UNITS.get((unit or otherwise).strip().lower())
    return None if found is None or scale is None or found < 0 else found * scale


def cpus(text: str) -> set[int] | None:
    """The CPUs of a list such as `0-3,^2,8`; None when it is none."""
    found: set[int] = set()
    for word in text.split(","):
        match = re.fullmatch(r"\s*(\^?)([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", word, re.ASCII)
        if not match:
            return None
        first, last = int(match[2]), int(match[3] or match[2])
        if first > last or last >= MAX_CPU:
            return None
        some = range(first, last + 1)
        found = found.difference(some) if match[1] else found.union(some)
    return found


def cpu_list(found: set[int]) -> str:
    """CPUs as qlaunch and the kernel write them: `0-3,8`."""
    words: list[str] = []
    ordered = sorted(found)
    while ordered:
        first = last = ordered.pop(0)
        while ordered and ordered[0] == last + 1:
            last = ordered.pop(0)
        words.append(str(first) if first == last else f"{first}-{last}")
    return ",".join(words)
