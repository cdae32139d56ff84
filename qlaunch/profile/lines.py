"""In which line each key of a TOML text stands; the TOML parser does not tell.

The text must be valid TOML (the parser has read it before): this scanner finds its way through it
without judging it. A path is made of keys and of list positions: `("disk", 0, "bus")`.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from qlaunch.profile.toml import parse_toml

Path = tuple[str | int, ...]

# Deeper than any key of a profile; below it nothing is noted, so that a key of a million dots
# does not cost a million times a million.
MAX_DEPTH = 8

# No possessive quantifiers: those of Python 3.11.0 to 3.11.4 are faulty.
_BASIC = r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
_LITERAL = r"'[^'\n]*'"
_SKIP = re.compile(r"[ \t\r\n]*(?:#[^\n]*[ \t\r\n]*)*")
_PART = re.compile(rf"[ \t]*([A-Za-z0-9_-]+|{_BASIC}|{_LITERAL})[ \t]*(\.?)")
_ASSIGN = re.compile(r"[ \t]*=[ \t]*")
_SCALAR = re.compile(rf"{_BASIC}|{_LITERAL}|[^,\]}}#\n]+")
# Where a text of many lines may end; what is escaped does not end it.
_ENDS = {
    '"""': re.compile(r'\\.|"{3,5}', re.DOTALL),
    "'''": re.compile(r"'{3,5}"),
}


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every key, table and list item of `text`, which is valid TOML.

    A table that is opened more than once has the line in which it appears first.

    Raises: RecursionError when lists or inline tables are nested absurdly deep.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.found: dict[Path, int] = {}
        self.lengths: dict[Path, int] = {}  # of the arrays of tables
        self.newlines = [match.start() for match in re.finditer("\n", text)]

    def scan(self) -> dict[Path, int]:
        table: Path | None = ()
        at = self._skip(0)
        while at < len(self.text):
            if self.text[at] == "[":
                table, at = self._header(at)
            else:
                at = self._pair(at, table)
            at = self._skip(at)
        return self.found

    def _skip(self, at: int) -> int:
        match = _SKIP.match(self.text, at)
        assert match is not None  # the pattern matches the empty text
        return match.end()

    def _line(self, at: int) -> int:
        return bisect_right(self.newlines, at - 1) + 1

    def _step(self, path: Path | None, part: str | int, line: int) -> Path | None:
        """`path` and `part` below it, noted; None below `MAX_DEPTH`."""
        if path is None or len(path) >= MAX_DEPTH:
            return None
        path = (*path, part)
        self.found.setdefault(path, line)
        return path

    def _header(self, at: int) -> tuple[Path | None, int]:
        line, double = self._line(at), self.text.startswith("[[", at)
        parts, at = self._key(at + 1 + double)
        path: Path | None = ()
        for part in parts[:-1]:
            path = self._step(path, part, line)
            if path in self.lengths:
                path = self._step(path, self.lengths[path] - 1, line)
        path = self._step(path, parts[-1], line)
        if double and path is not None:
            self.lengths[path] = self.lengths.get(path, 0) + 1
            path = self._step(path, self.lengths[path] - 1, line)
        return path, at + 1 + double

    def _pair(self, at: int, table: Path | None) -> int:
        line = self._line(at)
        parts, at = self._key(at)
        path = table
        for part in parts:
            path = self._step(path, part, line)
        assign = _ASSIGN.match(self.text, at)
        assert assign is not None, "not TOML"
        return self._value(assign.end(), path)

    def _key(self, at: int) -> tuple[list[str], int]:
        parts = []
        while True:
            match = _PART.match(self.text, at)
            assert match is not None, "not TOML"
            parts.append(_unquoted(match[1]))
            at = match.end()
            if not match[2]:
                return parts, at

    def _value(self, at: int, path: Path | None) -> int:
        if self.text[at] == "[":
            return self._list(at, path)
        if self.text[at] == "{":
            return self._inline_table(at, path)
        if end := _ENDS.get(self.text[at : at + 3]):
            return self._end(at + 3, end)
        match = _SCALAR.match(self.text, at)
        assert match is not None, "not TOML"
        return match.end()

    def _end(self, at: int, end: re.Pattern[str]) -> int:
        """Where the text of many lines ends whose content begins at `at`."""
        while True:
            match = end.search(self.text, at)
            assert match is not None, "not TOML"
            at = match.end()
            if match[0][0] != "\\":
                return at

    def _list(self, at: int, path: Path | None) -> int:
        at, position = self._skip(at + 1), 0
        while self.text[at] != "]":
            at = self._value(at, self._step(path, position, self._line(at)))
            at, position = self._after_item(at), position + 1
        return at + 1

    def _inline_table(self, at: int, path: Path | None) -> int:
        at = self._skip(at + 1)
        while self.text[at] != "}":
            at = self._after_item(self._pair(at, path))
        return at + 1

    def _after_item(self, at: int) -> int:
        at = self._skip(at)
        return self._skip(at + 1) if self.text[at] == "," else at


def _unquoted(part: str) -> str:
    if part[0] == "'":
        return part[1:-1]
    if part[0] != '"':
        return part
    if "\\" not in part:
        return part[1:-1]
    return str(parse_toml(f"key = {part}")["key"])
