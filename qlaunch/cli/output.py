"""What is printed: data on stdout, everything else on stderr, never a control character of a guest.

On the thin client's path.
"""

from __future__ import annotations

import os
import sys

from qlaunch.errors import QlaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

RED, GREEN, YELLOW, BOLD, DIM = "31", "32", "33", "1", "2"


def clean(text: object, *, keep: str = "") -> str:
    """`text` without control characters (but those in `keep`), so that it cannot drive a terminal.

    Guests name their disks, QEMU quotes them: an escape sequence in there would be obeyed.
    """
    words = str(text)
    if words.isprintable():
        return words
    return "".join(
        letter if letter.isprintable() or letter in keep else "\N{REPLACEMENT CHARACTER}"
        for letter in words
    )


def colored(stream: TextIO) -> bool:
    """Whether colours are welcome on `stream`: https://no-color.org."""
    return (
        not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
        and "--no-color" not in sys.argv
        and stream.isatty()
    )


def paint(text: str, color: str, *, on: bool) -> str:
    """`text` in `color` when `on`."""
    return f"\x1b[{color}m{text}\x1b[0m" if on and color else text


def print_text(text: object) -> None:
    """Print a text of several lines on stdout, cleaned."""
    print(clean(text, keep="\n\t"))


def print_json(value: Any, *, pretty: bool = False) -> None:
    """Print `value` as JSON, on one line unless `pretty`."""
    print(to_json(value, pretty=pretty))


def to_json(value: Any, *, pretty: bool = False) -> str:
    """`value` as JSON that is safe on a terminal."""
    import json

    indent, separators = (2, None) if pretty else (None, (",", ":"))
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    if text.replace("\n", "").isprintable():
        return text
    # Escapes are JSON too, and no terminal obeys them (DEL is the one that JSON leaves alone).
    text = json.dumps(value, ensure_ascii=True, indent=indent, separators=separators)
    return text.replace("\x7f", "\\u007f")


def note(text: str, *, quiet: bool = False) -> None:
    """Print a line for a person on stderr, unless `quiet`."""
    if not quiet:
        print(clean(text), file=sys.stderr, flush=True)


def complain(error: QlaunchError, *, name: str = "") -> None:
    """Print one error and its hint on stderr; `name` is the machine, where there are several."""
    color = colored(sys.stderr)
    message = clean(error.message, keep="\n").rstrip("\n").replace("\n", "\n  ")
    who = "qlaunch:" if not name or message.startswith(f"{name}:") else f"qlaunch: {name}:"
    print(f"{paint(who, RED, on=color)} {message}", file=sys.stderr)
    if error.hint:
        hint = clean(error.hint, keep="\n").rstrip("\n").replace("\n", "\n        ")
        print(f"  hint: {hint}", file=sys.stderr)
    sys.stderr.flush()
