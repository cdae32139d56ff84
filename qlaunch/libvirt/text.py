"""The profile as text, in the order of the model, with comments where something was chosen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from qlaunch.libvirt.report import Entry
from qlaunch.libvirt.wish import Wish
from qlaunch.profile.dump import toml_text, toml_value
from qlaunch.profile.fields import entries_of
from qlaunch.profile.model import Profile

_MAX_TOLD = 30
_WIDTH = 96
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def text_of(wish: Wish, shown: str, entries: Iterable[Entry]) -> str:
    """The whole file."""
    lines = [*_head(shown, wish, entries), "", "schema = 1"]
    tables = entries_of(wish.cls)
    top = wish.tables.get("", {})
    lines += _keys("", top, {name: entry.key for name, entry in tables.items()}, wish.comments)
    for name, entry in tables.items():
        if entry.item is None:
            continue
        keys = {each: found.key for each, found in entries_of(entry.item).items()}
        said = wish.tables.get(name, {})
        if entry.key.kind == "table" and said:
            lines += ["", f"[{name}]", *_keys(f"{name}.", said, keys, wish.comments)]
        for item in wish.items.get(name, ()):
            lines += ["", f"[[{name}]]"]
            lines += _keys(f"{name}.{item['id']}.", item, keys, wish.comments)
            lines += ["remove = true"] if "remove" in item else []
    return "\n".join(lines) + "\n"


def _keys(
    prefix: str, said: Mapping[str, Any], keys: Mapping[str, Any], comments: Mapping[str, str]
) -> Iterator[str]:
    for name, key in keys.items():
        if name not in said:
            continue
        line = f"{name} = {toml_value(key, said[name])}"
        comment = comments.get(f"{prefix}{name}")
        yield f"{line}   # {plain(comment)}" if comment else line


def _head(shown: str, wish: Wish, entries: Iterable[Entry]) -> Iterator[str]:
    file = plain(shown.rpartition("/")[2]) or "XML"
    what = "a domain" if wish.cls is Profile else "a network"
    yield f"# Made by `qlaunch import` from {file}, {what} of libvirt."
    for line in _wrapped(wish.comments.get("description", "")):
        yield f"# {line}"
    lost = [entry for entry in entries if entry.group == "not supported"]
    if lost:
        yield "# Not supported here:"
    for entry in lost[:_MAX_TOLD]:
        yield f"#   line {entry.line}: {plain(entry.what)[:60]}: {plain(entry.message)}"
    if len(lost) > _MAX_TOLD:
        yield f"#   and {len(lost) - _MAX_TOLD} more"


def _wrapped(text: str) -> Iterator[str]:
    line = ""
    for word in plain(text)[:2000].split():
        if line and len(line) + len(word) > _WIDTH:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    if line:
        yield line


def plain(text: str) -> str:
    """`text` on one line, as a comment can hold it."""
    return _UNSEEN.sub(" ", text).strip()


__all__ = ["plain", "text_of", "toml_text"]
