"""Disks and cards written into a profile, changed there and taken out; all comments stay.

tomlkit is imported where it is used: the supervisor lives without it until then.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from qlaunch.errors import ConflictError, HostError, ProfileError, RefusedError
from qlaunch.machine.held import definitions
from qlaunch.profile.load import loads
from qlaunch.profile.toml import parse_toml
from qlaunch.store import paths

# From the text of a profile, which is at a path, to another text.
Change = Callable[[str], str]

_HEADER = re.compile(r"\s*\[")
# The arrays that can be written to, with a word for people.
_WORDS = {
    "disk": "disk",
    "nic": "network card",
    "cdrom": "CD drive",
    "hostdev": "USB device",
}


def check_writable(path: str) -> None:
    """Nothing, when the profile at `path` can be changed. Raises: HostError."""
    target = os.path.realpath(path)
    shipped = paths.profile_dirs()[-1]
    folder = os.path.dirname(target)
    if os.path.dirname(path) == shipped or not os.access(folder, os.W_OK):
        raise HostError(
            f"the profile {path} cannot be changed",
            hint=f"`qlaunch edit {path}` makes a copy that is yours; leave --persist out to do it"
            " for this run only",
        )


def change(path: str, name: str, how: Change) -> None:
    """Change the profile at `path` of the machine `name`, if what comes out is one.

    Raises: ProfileError, ConflictError, HostError.
    """
    from qlaunch.machine import texts

    check_writable(path)
    with definitions():
        before = texts.read(path)
        after = changed(before, path, name, how)
        if after == before:
            return
        if texts.read(path) != before:
            raise ConflictError(f"{path} was changed by somebody else meanwhile")
        texts.replace(path, after.encode())


def text_of(path: str) -> str:
    """The text of the profile at `path`. Raises: ProfileError."""
    from qlaunch.machine import texts

    return texts.read(path)


def changed(text: str, path: str, name: str, how: Change) -> str:
    """The profile's `text` after a change, still good. Raises: ProfileError."""
    from tomlkit.exceptions import TOMLKitError

    try:
        after = how(text)
    except (TOMLKitError, RecursionError) as error:
        raise ProfileError(path, f"cannot be edited: {error}") from error
    loads(after, path, name=name)
    return after


def put(ident: str, values: Mapping[str, object], array: str = "disk") -> Change:
    """Say `values` in the `[[disk]]` (or of another `array`) called `ident`, which is added if the
    file has none; None takes a key out."""
    said = {key: value for key, value in values.items() if value is not None}

    def how(text: str) -> str:
        import tomlkit

        document = tomlkit.parse(text)
        tables: list[Any] = document.get(array) or []
        table = next((each for each in tables if each.get("id") == ident), None)
        if table is None:
            return _added(text, array, {"id": ident, **said})
        for key in values.keys() - said.keys():
            table.pop(key, None)
        for key, value in said.items():
            if table.get(key) != value:
                table[key] = value
        return tomlkit.dumps(document)

    return how


def drop(ident: str, path: str, array: str = "disk") -> Change:
    """Take the `[[disk]]`, or one of another `array`, called `ident` out."""

    def how(text: str) -> str:
        import tomlkit

        said = tomlkit.parse(text).unwrap()
        tables = said.get(array) or []
        at = next((n for n, each in enumerate(tables) if each.get("id") == ident), None)
        if at is None:
            raise RefusedError(
                f"{path} does not say the {_WORDS[array]} {ident} itself: it comes from what it"
                " extends",
                hint="leave --persist out: it is back at the next start then",
            )
        del tables[at]
        lines, blocks = text.splitlines(keepends=True), _blocks(text, array)
        if len(blocks) == len(tables) + 1:
            first, last = blocks[at]
            if first and not lines[first - 1].strip() and last < len(lines):
                last += not lines[last].strip()  # one of the empty lines around it goes as well
            after = "".join((*lines[:first], *lines[last:]))
            if _items(after, array) == tables:
                return after
        document = tomlkit.parse(text)  # an inline table, or something else unusual
        del document[array][at]
        return tomlkit.dumps(document)

    return how


def say(table: str, key: str, value: object) -> Change:
    """Say `key` in the `[table]`, which is added if the file has none."""

    def how(text: str) -> str:
        import tomlkit

        document = tomlkit.parse(text)
        if table not in document:
            block = tomlkit.table()
            block[key] = value
            before = f"{text.rstrip()}\n\n" if text.strip() else ""
            return f"{before}[{table}]\n{block.as_string().strip()}\n"
        document[table][key] = value
        return tomlkit.dumps(document)

    return how


def _added(text: str, array: str, values: Mapping[str, object]) -> str:
    """`text` with an item of `array` more: after the last, before the comment of what follows."""
    import tomlkit

    table = tomlkit.table()
    for key, value in values.items():
        table[key] = value
    block = f"[[{array}]]\n{table.as_string().strip()}\n"
    lines, blocks = text.splitlines(keepends=True), _blocks(text, array)
    at = blocks[-1][1] if blocks else len(lines)
    before, rest = "".join(lines[:at]), "".join(lines[at:])
    if before and not before.endswith("\n"):
        before += "\n"
    after = f"{before}\n{block}{rest}" if before.strip() else f"{block}{rest}"
    if _items(after, array) != [*(_items(text, array) or []), dict(values)]:
        # It says `disk = [{ ... }]`.
        inline = tomlkit.inline_table()
        inline.update(dict(values))
        document = tomlkit.parse(text)
        document[array].append(inline)
        return tomlkit.dumps(document)
    return after


def _items(text: str, array: str) -> Any:
    try:
        return parse_toml(text).get(array) or []
    except (ValueError, RecursionError):
        return None


def _blocks(text: str, array: str) -> list[tuple[int, int]]:
    """The lines of each item of `array`, first and after the last; comments and empty lines at its
    end belong to what follows. tomlkit has it the other way round."""
    lines, header = text.splitlines(), re.compile(rf"\s*\[\[\s*{array}\s*\]\]")
    headers = [at for at, line in enumerate(lines) if _HEADER.match(line)]
    found = []
    for at, end in pairwise([*headers, len(lines)]):
        if header.match(lines[at]):
            while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
                end -= 1
            found.append((at, end))
    return found
