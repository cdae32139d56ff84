"""Laying one tree over another: tables key by key, arrays of tables by id, the rest replaces."""

from __future__ import annotations

import re

from attrs import evolve

from qlaunch.profile.fields import ID_PATTERN
from qlaunch.profile.findings import Findings, did_you_mean, shown
from qlaunch.profile.model import Profile
from qlaunch.profile.tree import SET, Node


def merge(base: Node, over: Node, findings: Findings) -> Node:
    """`over` laid over `base`, both whole profiles. What makes no sense goes to `findings`."""
    merged: dict[str, Node] = dict(base.value)
    for name, node in over.value.items():
        below = merged.get(name)
        if isinstance(node.value, dict) and below is not None and isinstance(below.value, dict):
            merged[name] = _laid(below, node)
        elif name in Profile.ARRAYS and _is_array(node):
            merged[name] = evolve(node, value=_merged_items(name, below, node, findings))
        else:
            merged[name] = node
    return evolve(over, value=merged)


def _laid(below: Node, over: Node) -> Node:
    """Two tables in one. Its place is where the upper one is, unless that is the command line."""
    if over.source.shown != SET:
        return evolve(over, value={**below.value, **over.value})
    said = {key: node for key, node in over.value.items() if key != "id"}
    return evolve(below, value={**below.value, **said})


def item_id(item: Node) -> str | None:
    """The `id` that an item of an array says, if it is a text."""
    found = item.value.get("id") if isinstance(item.value, dict) else None
    return found.value if found is not None and isinstance(found.value, str) else None


def item_name(array: str, position: int, item: Node) -> str:
    """How messages call an item: `disk.hda` by its id, `disk[0]` where that is none."""
    found = item_id(item)
    good = found is not None and re.fullmatch(ID_PATTERN, found)
    return f"{array}.{found}" if good else f"{array}[{position}]"


def _is_array(node: Node) -> bool:
    """Whether `node` holds tables. An empty list holds none: it replaces what was there."""
    items = node.value
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item.value, dict) for item in items)
    )


def _merged_items(array: str, below: Node | None, over: Node, findings: Findings) -> list[Node]:
    items: list[Node] = list(below.value) if below is not None and _is_array(below) else []
    inherited = {found: at for at, item in enumerate(items) if (found := item_id(item))}
    removed: set[int] = set()
    for position, item in enumerate(over.value):
        found = item_id(item)
        name = item_name(array, position, item)
        wanted = _wants_removal(item, name, findings)
        item = evolve(item, value={k: v for k, v in item.value.items() if k != "remove"})
        at = inherited.get(found) if found else None
        if wanted:
            _check_removal(item, name, found, inherited, findings)
            removed.update(() if at is None else (at,))
        elif found is None or at is None:
            items.append(item)  # an id that is there twice in one file is found out later
        else:
            items[at] = _laid(items[at], item)
            del inherited[found]
    return [item for at, item in enumerate(items) if at not in removed]


def _wants_removal(item: Node, name: str, findings: Findings) -> bool:
    said = item.value.get("remove")
    if said is None:
        return False
    if type(said.value) is not bool:
        findings.add(said, f"{name}.remove", f"{shown(said.value)} is not true or false")
        return False
    return bool(said.value)


def _check_removal(
    item: Node, name: str, found: str | None, inherited: dict[str, int], findings: Findings
) -> None:
    if found is None:
        findings.add(item, name, "nothing says which one is to be removed", "give its id")
    elif found not in inherited:
        hint = did_you_mean(found, inherited)
        if hint is None and inherited:
            hint = f"there are: {', '.join(inherited)}"
        findings.add(item, name, "there is nothing to remove: no such id is inherited", hint)
    elif len(item.value) > 1:
        extra = ", ".join(key for key in item.value if key != "id")
        findings.add(item, name, f"is removed, so it cannot say more: {shown(extra)}")
