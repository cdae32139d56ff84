"""What is wrong with a profile, collected, so that one reading shows every mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, time
from typing import NoReturn

from qlaunch.errors import ProfileError
from qlaunch.profile.tree import Node

MAX_FINDINGS = 100
_BARE = re.compile(r"[A-Za-z0-9_-]{1,60}")


class Findings:
    """Collects mistakes; `full` says that more of them would help nobody."""

    def __init__(self) -> None:
        self._found: list[tuple[str, int, ProfileError]] = []

    def __len__(self) -> int:
        return len(self._found)

    @property
    def full(self) -> bool:
        return len(self._found) >= MAX_FINDINGS

    def add(self, node: Node, name: str, message: str, hint: str | None = None) -> None:
        """`message` about the key called `name`, which `node` says."""
        where = f"{node.place}: {name}" if name else node.place
        self.take(ProfileError(where, message, hint=hint), node.source.shown, node.line)

    def take(self, error: ProfileError, file: str, line: int = 0) -> None:
        """`error` and what it brought along, at `line` of `file`."""
        for one in (error, *error.more):
            if not self.full:
                self._found.append((file, line, one))

    def check(self) -> None:
        """Nothing, when nothing was found.

        Raises: ProfileError, the first of the findings with the others in `more`.
        """
        if self._found:
            self.fail()

    def fail(self) -> NoReturn:
        """Raises: ProfileError, the first of the findings with the others in `more`."""
        files: dict[str, int] = {}
        for file, _, _ in self._found:
            files.setdefault(file, len(files))
        ordered = sorted(self._found, key=lambda found: (files[found[0]], found[1]))
        first, *others = (error for _, _, error in ordered)
        raise ProfileError(first.where, first.text, hint=first.hint, more=tuple(others))


def did_you_mean(word: object, known: Iterable[str]) -> str | None:
    """A hint that names the one of `known` that looks most like `word`."""
    if not isinstance(word, str) or len(word) > 60:
        return None
    from difflib import get_close_matches  # 3 ms, and only who errs pays them

    spelled = {name.lower(): name for name in known}
    plain = word.lower().replace(" ", "")
    matches = get_close_matches(plain, spelled, n=1, cutoff=0.6)
    return f"did you mean '{spelled[matches[0]]}'?" if matches else None


def shown(value: object) -> str:
    """`value` in a message: short, on one line and harmless to a terminal."""
    match value:
        case str():
            return repr(value) if len(value) <= 60 else f"{value[:57]!r}..."
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if value.bit_length() <= 64 else "a number of more than 64 bits"
        case float():
            return str(value)
        case dict():
            return "a table"
        case list():
            return "a list"
        case datetime() | date() | time():
            return f"the date or time {value.isoformat()}"
    return "this"


def shown_key(name: str) -> str:
    """The key `name` in a path of keys: as it is, or quoted where it is unusual."""
    return name if _BARE.fullmatch(name) else shown(name)
