"""A `Profile` as TOML: what it says, in the order of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal

from qlaunch import units
from qlaunch.profile.extends import BASE_OF_GUEST
from qlaunch.profile.fields import Entry, Key, entries_of
from qlaunch.profile.model import SCHEMA, Profile

_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f]')
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def dumps(profile: Profile, *, origins: bool = False) -> str:
    """`profile` as a TOML text that loads back to an equal one; only what it says.

    With `origins` a comment tells where each key is said, unless that is the profile's own file.
    """
    writer = _Writer(profile, origins=origins)
    lines = [f"schema = {SCHEMA}", *writer.top()]
    for entry in entries_of(Profile).values():
        lines += writer.section(entry)
    return "\n".join(lines) + "\n"


def toml_value(key: Key, value: object) -> str:
    """`value` of a `Profile` as it stands in a file."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if key.kind == "size":
            return f'"{units.format_size(value)}"'
        case int() | float() if key.kind == "duration":
            return f'"{_duration(float(value))}"'
        case int():
            return str(value)
        case str():
            return toml_text(value)
        case tuple():
            return f"[{', '.join(toml_value(key, item) for item in value)}]"
    said = (
        f"{entry.name} = {toml_value(entry.key, getattr(value, entry.attribute))}"
        for entry in entries_of(type(value)).values()
        if _is_said(getattr(value, entry.attribute))
    )
    return f"{{ {', '.join(said)} }}"


def toml_text(text: str) -> str:
    """`text` in the quotes that need the least escaping."""
    if "\\" in text and not re.search(r"['\x00-\x1f\x7f]", text):
        return f"'{text}'"
    escaped = _ESCAPED.sub(_escaped, text)
    return f'"{escaped}"'


def _escaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04X}"


def _duration(seconds: float) -> str:
    """`seconds` as text, readable if that is exact, else with all its digits."""
    text = units.format_duration(seconds)
    return text if units.parse_duration(text) == seconds else f"{Decimal(seconds):f}s"


def _is_said(value: object) -> bool:
    return value is not None and value != ()


class _Writer:
    def __init__(self, profile: Profile, *, origins: bool) -> None:
        self._profile = profile
        self._origins = origins

    def top(self) -> Iterator[str]:
        """The keys that belong to no table."""
        profile = self._profile
        for entry in entries_of(Profile).values():
            if entry.item is None and entry.name != "schema":
                if entry.name == "extends" and not profile.extends:
                    # Its guest's base would come back, and with it what the profile removed.
                    yield from ["extends = []"] if profile.guest in BASE_OF_GUEST else []
                else:
                    yield from self._keys(entry.name, profile, [entry])

    def section(self, entry: Entry) -> Iterator[str]:
        """The `[table]` or the `[[tables]]` called `entry`, if the profile says any."""
        value = getattr(self._profile, entry.attribute)
        if entry.key.kind == "table":
            said = list(self._keys(f"{entry.name}.", value, entries_of(type(value)).values()))
            yield from ["", f"[{entry.name}]", *said] if said else []
        elif entry.key.kind == "tables":
            for item in value:
                yield from ("", f"[[{entry.name}]]")
                name = f"{entry.name}.{item.id}."
                yield from self._keys(name, item, entries_of(type(item)).values())

    def _keys(self, name: str, holder: object, entries: Iterable[Entry]) -> Iterator[str]:
        for entry in entries:
            value = getattr(holder, entry.attribute)
            if _is_said(value):
                whole = f"{name}{entry.name}" if name.endswith(".") else name
                yield f"{entry.name} = {toml_value(entry.key, value)}{self._comment(whole)}"

    def _comment(self, name: str) -> str:
        origin = self._profile.origins.get(name, "") if self._origins else ""
        own = origin.rpartition(":")[0] == self._profile.file
        return f"  # {origin}" if origin and not own else ""
