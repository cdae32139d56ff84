"""What an export keeps in the metadata of a domain, for libvirt has no word for it: lines of TOML,
`disk.hda.size = "20GiB"`."""

from __future__ import annotations

from typing import Any

from qlaunch import units
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.wish import Wish
from qlaunch.profile.fields import Entry, entries_of
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Secret
from qlaunch.profile.toml import parse_toml

TAG = "qlaunch:profile"
XMLNS = "xmlns:qlaunch"
URI = "urn:qlaunch:profile:1"

# Of these the metadata may have some that the domain has not.
_ALONE = ("hostdev",)

Kept = dict[str, Any]


def kept(root: Element) -> Kept:
    """The keys that an export has kept; none where there are none, or they are no TOML."""
    element = root.within("metadata", TAG)
    try:
        return parse_toml(element.words())
    except (ValueError, RecursionError):
        return {}


def restore(root: Element, wish: Wish, found: Kept) -> None:
    """Let the profile say what was kept; of items only of those that the domain has."""
    tables = entries_of(Profile)
    for name, said in found.items():
        entry = tables.get(name)
        if entry is None:
            continue
        if entry.item is None:
            wish.say(root, name, _value(entry, said))
        elif entry.key.kind == "table" and isinstance(said, dict):
            keys = entries_of(entry.item)
            for key, value in said.items():
                if key in keys:
                    wish.say(root, f"{name}.{key}", _value(keys[key], value))
        elif isinstance(said, dict):
            _items(root, wish, name, entry.item, said)


def _items(root: Element, wish: Wish, array: str, cls: type, said: Kept) -> None:
    keys = entries_of(cls)
    there = {item["id"] for item in wish.items.get(array, ())}
    for ident in said:
        if array in _ALONE and ident not in there:
            wish.item(array, ident)
    for item in wish.items.get(array, ()):
        values = said.get(item["id"])
        for key, value in values.items() if isinstance(values, dict) else ():
            if key in keys and key != "id":
                wish.put(root, array, item, key, _value(keys[key], value))


def _value(entry: Entry, said: object) -> object:
    """The value as a wish has it; as it stands where it is none, for a wish looks at it."""
    try:
        if entry.key.kind == "size" and isinstance(said, str):
            return units.parse_size(said)
        if entry.key.kind == "duration" and isinstance(said, str):
            return units.parse_duration(said)
    except ValueError:
        return said
    if isinstance(said, list):
        return tuple(said)
    if entry.key.kind == "secret" and isinstance(said, dict):
        names = {each.name: each.attribute for each in entries_of(Secret).values()}
        return Secret(**{names[name]: str(v) for name, v in said.items() if name in names})
    return said
