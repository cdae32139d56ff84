"""The profile in the making: what the XML says, key by key, with a comment where one was chosen."""

from __future__ import annotations

import re
from typing import Any

from attrs import Factory, define

from qlaunch import units
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.report import Entry, Report
from qlaunch.profile.fields import MAX_ITEMS, entries_of
from qlaunch.profile.fields import Entry as KeyEntry
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Secret
from qlaunch.profile.tree import Node, Source
from qlaunch.profile.values import Mistake, read_value

_ANYWHERE = Source("", "/")


@define
class Wish:
    """Values by table and key, `""` for the top of the file; items of arrays in their order."""

    report: Report
    cls: type = Profile
    tables: dict[str, dict[str, Any]] = Factory(dict)
    items: dict[str, list[dict[str, Any]]] = Factory(dict)
    comments: dict[str, str] = Factory(dict)
    args: list[str] = Factory(list)
    # CPU features with values go into cpu.model, the others are flags.
    cpu_values: list[str] = Factory(list)
    cpu_flags: list[str] = Factory(list)
    # Of devices that have no key of their own for it: id -> PCI address.
    places: dict[str, str] = Factory(dict)
    # Boot order: what each device of the profile says, by its turn.
    turns: dict[int, str] = Factory(dict)

    def get(self, name: str) -> Any:
        """The value of `table.key`; None when nothing was said."""
        table, _, key = name.rpartition(".")
        return self.tables.get(table, {}).get(key)

    def say(self, element: Element, name: str, value: object, comment: str = "") -> None:
        """Let the profile say `table.key`, unless the key does not take this value."""
        table, _, key = name.rpartition(".")
        entries = entries_of(self.cls)
        entry = entries_of(entries[table].item or self.cls)[key] if table else entries[key]
        if problem := _problem(entry, value):
            self._refused(element, name, problem)
            return
        self.tables.setdefault(table, {})[key] = value
        if comment:
            self.comments[name] = comment

    def item(self, array: str, wanted: str, element: Element | None = None) -> dict[str, Any]:
        """A new item of an array, called as its user called `element`, else `wanted`; where that
        is taken, much like it."""
        for child in element.children if element is not None else ():
            alias = child.attributes.get("name", "")
            if child.tag == "alias" and alias.startswith("ua-") and len(alias) > 3:
                child.take()
                wanted = alias[3:]
        base = re.sub(r"[^a-z0-9_-]", "-", wanted.lower()).strip("-")[:20] or array
        base = base if base[0].isalpha() else f"{array[:4]}{base}"[:20]
        base = re.sub(r"-(dev|file)$", "", base)
        if len(self.items.get(array, ())) >= MAX_ITEMS:
            line = element.line if element is not None else 0
            message = f"a machine has at most {MAX_ITEMS} of them"
            self.report.entries.append(Entry("not supported", line, array, message))
            return {"id": ""}
        taken = {each["id"] for items in self.items.values() for each in items}
        stem = base.rstrip("0123456789")[:16] or base
        names = [base, *(f"{stem}{number}" for number in range(len(taken) + 1))]
        made = {"id": next(name for name in names if name not in taken)}
        self.items.setdefault(array, []).append(made)
        return made

    def put(
        self,
        element: Element,
        array: str,
        item: dict[str, Any],
        key: str,
        value: object,
        comment: str = "",
    ) -> None:
        """Let an item of an array say a key, unless the key does not take this value."""
        cls = entries_of(self.cls)[array].item
        assert cls is not None
        name = f"{array}.{item['id']}.{key}"
        if problem := _problem(entries_of(cls)[key], value):
            self._refused(element, name, problem)
            return
        item[key] = value
        if comment:
            self.comments[name] = comment

    def _refused(self, element: Element, name: str, problem: str) -> None:
        message = f"{name}: {problem}"
        self.report.entries.append(Entry("not supported", element.line, element.tag, message))


def _problem(entry: KeyEntry, value: object) -> str | None:
    """Why the key does not take `value`; None when it does."""
    kind = entry.key.kind
    if kind == "secret" and isinstance(value, Secret):
        return None
    if kind == "secret" or (kind in ("words", "numbers")) != isinstance(value, tuple):
        return f"{str(value)[:40]!r} is of another type"
    items = value if isinstance(value, tuple) else (value,)
    for item in items:
        said: object = item
        if kind == "size" and isinstance(item, int):
            said = units.format_size(item)
        elif kind == "duration" and isinstance(item, int | float):
            said = units.format_duration(item)
        kinds = {"words": "text", "numbers": "integer"}
        key = entry.key if kind not in kinds else _of_kind(entry, kinds[kind])
        try:
            read_value(entry.name, key, Node(said, _ANYWHERE))
        except Mistake as mistake:
            return mistake.message
    return None


def _of_kind(entry: KeyEntry, kind: Any) -> Any:
    from attrs import evolve

    return evolve(entry.key, kind=kind, example="1" if kind == "integer" else "a")
