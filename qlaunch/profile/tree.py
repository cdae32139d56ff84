"""A TOML file as a tree of which every node knows the file and the line that say it."""

from __future__ import annotations

import os
import re
from typing import Any

from attrs import frozen

from qlaunch.errors import ProfileError
from qlaunch.profile.lines import MAX_DEPTH, Path, key_lines
from qlaunch.profile.toml import parse_toml

MAX_BYTES = 1 << 20
_BOOLEANS = {
    "yes": "true",
    "on": "true",
    "true": "true",
    "no": "false",
    "off": "false",
    "false": "false",
}
SET = "--set"
_PLACE = re.compile(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)$")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@frozen
class Source:
    """A file: `shown` is its name in messages, `folder` is where its relative paths start."""

    shown: str
    folder: str


@frozen
class Node:
    """A value: a `dict` or a `list` of nodes, or a plain value; and the place that says it."""

    value: Any
    source: Source
    line: int = 0

    @property
    def place(self) -> str:
        """`FILE:LINE`; the name alone for what no file says, such as `--set`."""
        return f"{self.source.shown}:{self.line}" if self.line else self.source.shown


def file_source(path: str, folder: str | None = None) -> Source:
    """The source that messages call `path`; `folder` is its absolute folder."""
    return Source(path, folder or os.path.dirname(os.path.abspath(path)))


def parse(data: bytes, source: Source) -> Node:
    """The tree of the TOML text `data`.

    Raises: ProfileError with the line, when it is too long, not UTF-8 or not TOML.
    """
    text = _decoded(data, source)
    try:
        plain = parse_toml(text)
        lines = key_lines(text)
    except RecursionError:
        raise ProfileError(source.shown, "lists or tables are nested too deeply") from None
    except ValueError as error:
        raise _not_toml(error, text, source) from error
    return _tree(plain, (), lines, source, 1)


def _decoded(data: bytes, source: Source) -> str:
    if len(data) > MAX_BYTES:
        raise ProfileError(
            source.shown,
            f"is larger than {MAX_BYTES >> 10} KiB, so it is no profile",
            hint="a profile is a TOML text of a few KiB; is this a disk image?",
        )
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "save the file as UTF-8"
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            hint = "this looks like UTF-16: save the file as UTF-8"
        raise ProfileError(
            f"{source.shown}:{line}", f"byte 0x{data[error.start]:02x} is not UTF-8", hint=hint
        ) from None


def _not_toml(error: ValueError, text: str, source: Source) -> ProfileError:
    """The parser's words with file, line and the line itself, its fault marked."""
    words = str(error)
    rows = text.replace("\r\n", "\n").split("\n")
    line, column = len(rows), 0
    if match := _PLACE.search(words):
        words = words[: match.start()]
        if match[1]:
            line, column = int(match[1]), int(match[2])
        else:
            words += " at the end of the file"
            while line > 1 and not rows[line - 1].strip():
                line -= 1
    words = _UNSEEN.sub("?", words)[:200]
    excerpt = _excerpt(rows[min(line, len(rows)) - 1], column)
    message = f"not TOML: {words[:1].lower()}{words[1:]}{excerpt}"
    return ProfileError(f"{source.shown}:{line}", message, hint=_toml_hint(rows[line - 1]))


def _excerpt(row: str, column: int) -> str:
    start = max(0, column - 60)
    piece = _UNSEEN.sub("?", row[start : start + 100]).rstrip()
    if not piece:
        return ""
    mark = f"\n    {' ' * (column - 1 - start)}^" if 0 < column <= start + len(piece) + 1 else ""
    return f"\n    {piece}{mark}"


def _toml_hint(row: str) -> str | None:
    """A hint for what people write who come from other formats."""
    name, equals, value = (part.strip() for part in _UNSEEN.sub("?", row).partition("="))
    if not equals or len(row) > 200:
        return None
    if boolean := _BOOLEANS.get(value.lower()):
        return f"write {name} = {boolean}"
    if re.search("[\u201c\u201d\u2018\u2019]", value):
        return 'these quotes are typographic; TOML wants straight ones: "'
    if value.startswith('"') and "\\" in value:
        return "in double quotes a backslash is written twice; or use 'single quotes'"
    if re.fullmatch(r"[A-Za-z0-9][^\"'\[\]{},#]*", value):
        return f'text, sizes and durations stand in quotes: {name} = "{value}"'
    return None


def _tree(plain: Any, path: Path, lines: dict[Path, int], source: Source, line: int) -> Node:
    line = lines.get(path, line)
    if len(path) < MAX_DEPTH:
        if isinstance(plain, dict):
            plain = {
                name: _tree(value, (*path, name), lines, source, line)
                for name, value in plain.items()
            }
        elif isinstance(plain, list):
            plain = [
                _tree(value, (*path, at), lines, source, line) for at, value in enumerate(plain)
            ]
    return Node(plain, source, line)
