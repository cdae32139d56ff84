"""`--set disk.hda.bus=virtio`: one key said on the command line, for one start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from qlaunch.profile.fields import Entry, entries_of
from qlaunch.profile.findings import Findings, did_you_mean, shown, shown_key
from qlaunch.profile.merge import item_id, merge
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Secret
from qlaunch.profile.toml import parse_toml
from qlaunch.profile.tree import SET, Node, Source

# A text that TOML would read as something else (`title=2024`) stays a text for these kinds.
_TEXTS = ("text", "path", "id", "size", "duration", "choice")


class Overrides:
    """The words after `--set`, taken apart; mistakes go to `findings`."""

    def __init__(self, overrides: Sequence[str], findings: Findings, folder: str | None) -> None:
        self._findings = findings
        self._source = Source(SET, folder or (os.getcwd() if overrides else "/"))
        self._top: dict[str, Node] = {}
        self._deep: list[tuple[list[str], str]] = []
        for override in overrides:
            self._take_apart(override)

    def at_top(self, tree: Node) -> Node:
        """`tree`, which a file says, with the overrides of keys that belong to no table.

        They come before everything else, because `extends` and `guest` choose the bases.
        """
        return evolve(tree, value={**tree.value, **self._top})

    def over(self, tree: Node) -> Node:
        """The merged `tree` with the overrides of keys in tables."""
        layer: dict[str, Any] = {}
        for path, text in self._deep:
            entry = entries_of(Profile)[path[0]]
            if entry.key.kind == "table":
                self._set(layer.setdefault(path[0], {}), entry, path, path[1:], text)
            elif self._has_item(tree, path):
                items = layer.setdefault(path[0], {})
                item = items.setdefault(path[1], {"id": self._node(path[1])})
                self._set(item, entry, path, path[2:], text)
        nodes = {
            name: self._node([self._node(item) for item in table.values()])
            if entries_of(Profile)[name].key.kind == "tables"
            else self._node(table)
            for name, table in layer.items()
        }
        return merge(tree, self._node(nodes), self._findings) if nodes else tree

    def _node(self, value: object) -> Node:
        return Node(value, self._source)

    def _complain(self, name: str, message: str, hint: str | None = None) -> None:
        self._findings.add(self._node(None), name, message, hint)

    def _take_apart(self, override: str) -> None:
        name, equals, text = override.partition("=")
        path = [part.strip() for part in name.split(".")]
        if not equals or not name.strip():
            self._complain("", f"{shown(override)} is not KEY=VALUE", "such as memory.size=2GiB")
            return
        entry = entries_of(Profile).get(path[0])
        shown_path = ".".join(shown_key(part) for part in path)
        if entry is None:
            known = entries_of(Profile)
            hint = did_you_mean(path[0], known) or f"there are: {', '.join(known)}"
            self._complain(shown_path, "there is no such key", hint)
        elif entry.item is None and len(path) > 1:
            self._complain(shown_path, "there is no such key", f"{path[0]!r} has no keys below it")
        elif entry.item is None:
            self._top[path[0]] = self._read(entry, text)
        elif len(path) < (2 if entry.key.kind == "table" else 3):
            example = f"{path[0]}.ID.KEY" if entry.key.kind == "tables" else f"{path[0]}.KEY"
            self._complain(shown_path, "is a table", f"one key at a time: {example}=VALUE")
        else:
            self._deep.append((path, text))

    def _has_item(self, tree: Node, path: list[str]) -> bool:
        array = tree.value.get(path[0])
        items = array.value if array is not None and isinstance(array.value, list) else []
        known = [found for item in items if (found := item_id(item))]
        if path[1] in known:
            return True
        hint = did_you_mean(path[1], known) or (
            f"there are: {', '.join(known)}" if known else "there is none in this profile"
        )
        name = ".".join(shown_key(part) for part in path)
        self._complain(name, f"there is no {path[0]} with the id {shown(path[1])}", hint)
        return False

    def _set(
        self, table: dict[str, Any], entry: Entry, path: list[str], below: list[str], text: str
    ) -> None:
        """Put `text` into `table` at the keys `below`; wrong ones are found by `check`."""
        assert entry.item is not None
        key = entries_of(entry.item).get(below[0])
        name = ".".join(shown_key(part) for part in path)
        if key is not None and key.key.kind == "id":
            self._complain(name, "an id cannot be changed", "it is how the profile is merged")
        elif key is not None and key.key.kind == "secret" and len(below) == 2:
            part = entries_of(Secret).get(below[1])
            table[below[0]] = self._node({below[1]: self._read(part, text)})
        elif len(below) > 1:
            self._complain(name, "there is no such key", f"{below[0]!r} has no keys below it")
        else:
            table[below[0]] = self._read(key, text)

    def _read(self, entry: Entry | None, text: str) -> Node:
        """`text` as TOML, if it is TOML; else as it stands."""
        kind = entry.key.kind if entry is not None else "boolean"
        value = _parsed(text)
        if kind in _TEXTS and not isinstance(value, str):
            value = text
        elif kind == "words" and not isinstance(value, list):
            value = [text]
        elif kind == "secret" and not isinstance(value, dict):
            value = text
        return self._tree(value)

    def _tree(self, value: object) -> Node:
        if isinstance(value, list):
            return self._node([self._tree(item) for item in value])
        if isinstance(value, dict):
            return self._node({str(name): self._tree(item) for name, item in value.items()})
        return self._node(value)


def _parsed(text: str) -> object:
    try:
        plain = parse_toml(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return plain["value"] if len(plain) == 1 else text
