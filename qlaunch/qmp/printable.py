"""Text from a guest or from QEMU, made safe for a terminal. Imports nothing heavy."""

from __future__ import annotations

_LONGEST = 2000  # characters


def printable(text: object) -> str:
    """`text` on one line without control characters, escape sequences and invisible marks.

    A line break or a tab becomes a space; whatever else does not print is dropped, and what is
    longer than 2,000 characters is cut.
    """
    words = str(text)[: 2 * _LONGEST]
    seen = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in words)
    return seen if len(seen) <= _LONGEST else f"{seen[:_LONGEST]}…"
