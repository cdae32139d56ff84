"""Reading JSON that a guest wrote: bounded in size, depth and time, whatever it is."""

from __future__ import annotations

import json
import re

LONGEST_REPLY = 1 << 20  # bytes of one line
# Levels of lists and objects, up to twice as many if they alternate; an agent's answers have six.
DEEPEST_REPLY = 64

# Never fails and never goes back: a string that is not closed ends with the line.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class NonsenseError(ValueError):
    """The bytes are not what was agreed on; the text says how, without quoting them."""


def read_object(line: bytes) -> dict[str, object]:
    """The JSON object in `line`.

    Raises: NonsenseError.
    """
    if len(line) > LONGEST_REPLY:
        raise NonsenseError(f"a line of more than {LONGEST_REPLY >> 20} MiB")
    if _too_deep(line):
        raise NonsenseError("JSON that is damaged or nested too deep")
    try:
        found = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise NonsenseError("text that is not UTF-8") from None
    except (ValueError, RecursionError):
        raise NonsenseError("text that is not JSON") from None
    if not isinstance(found, dict):
        raise NonsenseError("JSON that is not an object")
    return found


def _too_deep(line: bytes) -> bool:
    """Whether brackets nest deeper than allowed, or do not pair up."""
    rest = _STRING.sub(b"", line).translate(None, _NO_BRACKETS)
    for _ in range(DEEPEST_REPLY):
        if not rest:
            return False
        # Each turn takes away at least the innermost level.
        rest = rest.replace(b"[]", b"").replace(b"{}", b"")
    return bool(rest)
