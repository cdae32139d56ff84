"""One value of a profile: is it what its key asks for, and what does it mean?"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from qlaunch import units
from qlaunch.profile.fields import ID_ENDINGS, ID_PATTERN, ID_WORDS, MAX_PATH, MAX_TEXT, Key
from qlaunch.profile.findings import did_you_mean, shown
from qlaunch.profile.tree import Node

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_NAMES = {"\0": "a NUL", "\n": "a newline", "\r": "a carriage return", "\t": "a tab"}
_EXAMPLES = {
    "text": "text",
    "path": "files/name.img",
    "id": "name0",
    "boolean": "true",
    "size": "64MiB",
    "duration": "10s",
    "words": '["text"]',
    "numbers": "[1]",
    "secret": '{ file = "~/.secrets/xp" }',
}
_TYPES = {
    "integer": "a whole number",
    "boolean": "true or false",
    "size": "a size in quotes",
    "duration": "a duration in quotes",
}
SECRET_WAYS = (
    'say where it is kept instead: { file = "~/.secrets/NAME" }, { env = "VARIABLE" }'
    ' or { systemd-credential = "NAME" }'
)


class Mistake(Exception):
    """A value that its key does not allow: the message for a person, and a hint."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def read_value(name: str, key: Key, node: Node) -> object:
    """What `node` says for the key `name`: bytes for a size, an absolute path, and so on.

    Lists, secrets and tables are not read here; `check` takes them apart.

    Raises: Mistake.
    """
    return _READERS[key.kind](name, key, node)


def toml_example(key: Key) -> str:
    """An example of a value as it stands in a file."""
    example = key.example or (key.choices[0] if key.choices else "")
    if not example:
        example = f"{key.least:.0f}" if key.kind == "integer" else _EXAMPLES[key.kind]
    if key.kind in ("integer", "boolean", "words", "numbers", "secret"):
        return example
    return f"'{example}'" if '"' in example or "\\" in example else f'"{example}"'


def wrong_type(name: str, key: Key, value: object) -> Mistake:
    """`value` has another type than `key` asks for."""
    what = _TYPES.get(key.kind, "text in quotes")
    return Mistake(f"{shown(value)} is not {what}", f"write {name} = {toml_example(key)}")


def _text(name: str, key: Key, node: Node) -> str:
    value = _plain_text(name, key, node.value)
    if key.pattern and not re.fullmatch(key.pattern, value):
        raise Mistake(f"{shown(value)} is not {key.pattern_words}")
    return value


def _plain_text(name: str, key: Key, value: object, most: int = MAX_TEXT) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, key, value)
    if not value:
        raise Mistake("is empty", f"leave it out, or write {name} = {toml_example(key)}")
    if len(value) > most:
        raise Mistake(f"is {len(value)} characters long; {most} are allowed")
    if found := _CONTROL.search(value):
        what = _CONTROL_NAMES.get(found[0], f"the control character U+{ord(found[0]):04X}")
        raise Mistake(f"{shown(value)} has {what} in it, which cannot be written here")
    return value


def _path(name: str, key: Key, node: Node) -> str:
    value = _plain_text(name, key, node.value, MAX_PATH)
    return value if value.startswith("@") else absolute(value, node.source.folder)


def absolute(path: str, folder: str) -> str:
    """`path` as it stands in a file in `folder`; `..` stays, a symlink may be before it.

    Raises: Mistake when it begins with the home of nobody.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        home = expanded.partition("/")[0]
        raise Mistake(f"{shown(home)} is nobody's home", f"a file of that name is ./{path}")
    whole = os.path.join(folder, expanded)
    return whole if ".." in whole.split("/") else os.path.normpath(whole)


def _id(name: str, key: Key, node: Node) -> str:
    value = _plain_text(name, key, node.value)
    if not re.fullmatch(ID_PATTERN, value):
        tame = re.sub(r"[^a-z0-9_-]", "-", value.lower()).strip("-")[:20]
        fits = re.fullmatch(ID_PATTERN, tame) and not tame.endswith(ID_ENDINGS)
        hint = f'write id = "{tame}"' if fits else None
        raise Mistake(f"{shown(value)} is not an id: {ID_WORDS}", hint)
    for ending in ID_ENDINGS:
        if value.endswith(ending):
            raise Mistake(f"{shown(value)} ends in {ending!r}, which qlaunch adds to ids itself")
    return value


def _integer(name: str, key: Key, node: Node) -> int:
    value = node.value
    if type(value) is not int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            raise Mistake(f"{shown(value)} is text", f"write {name} = {int(value)}")
        raise wrong_type(name, key, value)
    _check_range(key, value, shown(value), str)
    return value


def _boolean(name: str, key: Key, node: Node) -> bool:
    value = node.value
    if type(value) is not bool:
        said = value.lower() if isinstance(value, str) else shown(value)
        if said in ("true", "yes", "on", "1"):
            raise Mistake(f"{shown(value)} is not true or false", f"write {name} = true")
        if said in ("false", "no", "off", "0"):
            raise Mistake(f"{shown(value)} is not true or false", f"write {name} = false")
        raise wrong_type(name, key, value)
    return value


def _size(name: str, key: Key, node: Node) -> int:
    value = node.value
    if type(value) is int and 0 <= value < 1 << 40:
        raise Mistake(
            f"{value} has no unit", f'write {name} = "{value or 1}MiB" or "{value or 1}GiB"'
        )
    text = _plain_text(name, key, value) if isinstance(value, str) else None
    if text is None:
        raise wrong_type(name, key, value)
    try:
        size = units.parse_size(text)
    except (ValueError, OverflowError) as error:
        raise Mistake(
            _words(error, text, "a size"), f"write {name} = {toml_example(key)}"
        ) from None
    _check_range(key, size, shown(text), units.format_size)
    return size


def _duration(name: str, key: Key, node: Node) -> float:
    value = node.value
    if type(value) is int and 0 <= value < 1 << 30:
        raise Mistake(f"{value} has no unit", f'write {name} = "{value}s" or "{value}min"')
    text = _plain_text(name, key, value) if isinstance(value, str) else None
    if text is None:
        raise wrong_type(name, key, value)
    try:
        duration = units.parse_duration(text)
    except (ValueError, OverflowError) as error:
        hint = f"write {name} = {toml_example(key)}"
        raise Mistake(_words(error, text, "a duration"), hint) from None
    _check_range(key, duration, shown(text), units.format_duration)
    return duration


def _words(error: Exception, text: str, what: str) -> str:
    """The unit's own words, unless `text` is so long that they would quote all of it."""
    return str(error) if len(text) <= 60 else f"{shown(text)} is not {what}"


def _choice(name: str, key: Key, node: Node) -> str:
    value = node.value
    if value not in key.choices if isinstance(value, str) else True:
        hint = did_you_mean(value, key.choices)
        raise Mistake(f"{shown(value)} is not one of {', '.join(key.choices)}", hint)
    return str(value)


def _check_range(key: Key, value: float, said: str, show: Callable[..., str]) -> None:
    if key.least is not None and value < key.least:
        raise Mistake(f"{said} is too little; at least {show(_whole(key.least))}")
    if key.most is not None and value > key.most:
        raise Mistake(f"{said} is too much; at most {show(_whole(key.most))}")


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


_READERS: dict[str, Callable[[str, Key, Node], object]] = {
    "text": _text,
    "path": _path,
    "id": _id,
    "integer": _integer,
    "boolean": _boolean,
    "size": _size,
    "duration": _duration,
    "choice": _choice,
    "words": _text,
    "numbers": _integer,
}
