"""From a merged tree to a `Profile`: every key known, of the right type and in its bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve

from qlaunch.profile.fields import MAX_ITEMS, Entry, Key, entries_of
from qlaunch.profile.findings import Findings, did_you_mean, shown, shown_key
from qlaunch.profile.merge import item_id, item_name
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Secret
from qlaunch.profile.tree import Node
from qlaunch.profile.values import SECRET_WAYS, Mistake, read_value, toml_example

Values = dict[str, Any]


def check_profile(tree: Node, findings: Findings) -> tuple[Values, dict[str, str]]:
    """What `tree` says as arguments of `Profile`, and where each key is said.

    What is wrong is left out and goes to `findings`.
    """
    return check_file(tree, findings, Profile)


def check_file(tree: Node, findings: Findings, cls: type) -> tuple[Values, dict[str, str]]:
    """The same for a file of any sort: `cls` declares its keys and tables."""
    return _Checker(findings, cls).file(tree)


class _Checker:
    def __init__(self, findings: Findings, cls: type) -> None:
        self._findings = findings
        self._cls = cls
        self._origins: dict[str, str] = {}
        self._ids: dict[str, tuple[str, Node]] = {}

    def file(self, tree: Node) -> tuple[Values, dict[str, str]]:
        values: Values = {}
        entries = entries_of(self._cls)
        for name, node in tree.value.items():
            if self._findings.full:
                break
            entry = entries.get(name)
            if entry is None:
                self._unknown(node, "", name, self._cls)
            elif entry.key.kind == "table":
                self._table(node, name, entry, values)
            elif entry.key.kind == "tables":
                values[name] = self._array(node, name, entry)
            else:
                self._value(node, name, entry, values)
        return values, self._origins

    def _table(self, node: Node, name: str, entry: Entry, values: Values) -> None:
        if not isinstance(node.value, dict):
            what = "[[...]] makes a list of it" if _holds_tables(node) else "is no table"
            self._findings.add(node, name, what, f"write [{name}] on a line of its own")
        elif entry.item is not None:
            values[name] = self._record(node, name, entry.item)

    def _array(self, node: Node, name: str, entry: Entry) -> tuple[Any, ...]:
        items = node.value
        if isinstance(items, dict):
            hint = f"write [[{name}]] with two brackets: there can be many"
            self._findings.add(node, name, "is a list of tables", hint)
            return ()
        if not isinstance(items, list) or not all(isinstance(i.value, dict) for i in items):
            hint = f'write [[{name}]] on a line of its own, then id = "..."'
            self._findings.add(node, name, f"{shown(items)} is no list of tables", hint)
            return ()
        if len(items) > MAX_ITEMS:
            self._findings.add(node, name, f"there are {len(items)}; {MAX_ITEMS} are allowed")
            return ()
        self._origins[name] = node.place
        return tuple(self._item(item, name, at, entry) for at, item in enumerate(items))

    def _item(self, node: Node, array: str, at: int, entry: Entry) -> Any:
        assert entry.item is not None
        found, name = item_id(node), item_name(array, at, node)
        if found is not None:
            self._check_unique(node, name, found)
        elif "id" not in node.value:
            hint = f'write id = "{array}{at}"'
            self._findings.add(node, name, "has no id", hint)
        return self._record(node, name, entry.item)

    def _check_unique(self, node: Node, name: str, found: str) -> None:
        first_name, first = self._ids.setdefault(found, (name, node))
        if first is not node:
            said = node.value["id"]
            message = f"{shown(found)} is already the id of {first_name} ({first.place})"
            self._findings.add(said, f"{name}.id", message, "ids are unique, whatever they name")

    def _record(self, node: Node, name: str, cls: type) -> Any:
        """The object of class `cls` that the table `node` describes; as far as it is right."""
        self._origins[name] = node.place
        values: Values = {}
        entries = entries_of(cls)
        for key, value in node.value.items():
            if self._findings.full:
                break
            entry = entries.get(key)
            if entry is None:
                self._unknown(value, name, key, cls)
            else:
                self._value(value, f"{name}.{key}", entry, values)
        for key, entry in entries.items():
            if entry.key.required and key not in node.value and key != "id":
                hint = f"write {key} = {toml_example(entry.key)}"
                self._findings.add(node, f"{name}.{key}", "is missing", hint)
        return cls(**values)

    def _value(self, node: Node, name: str, entry: Entry, values: Values) -> None:
        self._origins[name] = node.place
        try:
            if entry.key.kind in ("words", "numbers"):
                values[entry.attribute] = self._list(node, name, entry)
            elif entry.key.kind == "secret":
                values[entry.attribute] = self._secret(node, name)
            else:
                values[entry.attribute] = read_value(entry.name, entry.key, node)
        except Mistake as mistake:
            self._findings.add(node, name, mistake.message, mistake.hint)

    def _list(self, node: Node, name: str, entry: Entry) -> tuple[object, ...]:
        items, key = node.value, entry.key
        if not isinstance(items, list):
            hint = f"write {entry.name} = {toml_example(key)}"
            raise Mistake(f"{shown(items)} is not a list", hint)
        if len(items) > MAX_ITEMS:
            raise Mistake(f"has {len(items)} items; {MAX_ITEMS} are allowed")
        item_key = evolve(
            key, kind="text" if key.kind == "words" else "integer", example=_first(key)
        )
        found: list[object] = []
        for at, item in enumerate(items):
            try:
                found.append(read_value(entry.name, item_key, item))
            except Mistake as mistake:
                example = f"write {entry.name} = {toml_example(key)}"
                self._findings.add(item, f"{name}[{at}]", mistake.message, example)
        return tuple(found)

    def _secret(self, node: Node, name: str) -> Secret:
        if not isinstance(node.value, dict):
            raise Mistake("a secret is never written into a profile", SECRET_WAYS)
        values: Values = {}
        entries = entries_of(Secret)
        for key, value in node.value.items():
            if key in entries:
                self._value(value, f"{name}.{key}", entries[key], values)
            else:
                self._unknown(value, name, key, Secret)
        if len(entries.keys() & node.value.keys()) != 1:
            raise Mistake("exactly one of file, env and systemd-credential is wanted", SECRET_WAYS)
        return Secret(**values)

    def _unknown(self, node: Node, table: str, name: str, cls: type) -> None:
        known = entries_of(cls)
        is_table = isinstance(node.value, dict) or _holds_tables(node)
        what = "table" if is_table and cls is self._cls else "key"
        hint = did_you_mean(name, known) or self._belongs(name, what, cls)
        if hint is None:
            names = [known_name for known_name, _ in _fitting(known, what)]
            hint = f"there are: {', '.join(names)}"
        path = f"{table}.{shown_key(name)}" if table else shown_key(name)
        self._findings.add(node, path, f"there is no such {what}", hint)

    def _belongs(self, name: str, what: str, cls: type) -> str | None:
        """A hint for a key that stands in the wrong table, the usual slip in TOML."""
        top = entries_of(self._cls)
        if name in top and what == "key":
            return f"{name!r} stands at the top of the file, before the first [table]"
        homes = [
            f"[{table}]" if entry.key.kind == "table" else f"[[{table}]]"
            for table, entry in top.items()
            if entry.item is not None and entry.item is not cls and name in entries_of(entry.item)
        ]
        return f"{name!r} is a key of {' and '.join(homes)}" if homes and len(homes) < 4 else None


def _fitting(entries: Any, what: str) -> Iterable[tuple[str, Entry]]:
    """The entries that are tables, or those that are not."""
    found = [
        (name, entry)
        for name, entry in entries.items()
        if (entry.key.kind in ("table", "tables")) == (what == "table")
    ]
    return found or entries.items()


def _holds_tables(node: Node) -> bool:
    items = node.value
    return isinstance(items, list) and bool(items) and isinstance(items[0].value, dict)


def _first(key: Key) -> str:
    """The example of a list's first item."""
    return key.example.strip("[]").split(",")[0].strip('" ')
