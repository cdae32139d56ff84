"""What an import could not carry over as it was, and why, with the line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, define, frozen

from qlaunch.libvirt.element import Element
from qlaunch.libvirt.leftovers import LEFTOVERS

Group = Literal["mended", "not needed", "different here", "not supported"]
GROUPS: tuple[Group, ...] = ("mended", "not needed", "different here", "not supported")
MAX_ENTRIES = 1000


@frozen
class Entry:
    """A line of the report: `what` names the element or attribute (`disk/driver@cache`)."""

    group: Group
    line: int
    what: str
    message: str

    def to_dict(self) -> dict[str, object]:
        return {
            "group": self.group,
            "line": self.line,
            "what": self.what,
            "message": self.message,
        }


@define
class Report:
    """Gathers entries; an element that is told of does not appear a second time."""

    entries: list[Entry] = Factory(list)

    def different(self, element: Element, message: str, *, attribute: str = "") -> None:
        self.add("different here", element, message, attribute)

    def unsupported(self, element: Element, message: str, *, attribute: str = "") -> None:
        self.add("not supported", element, message, attribute)

    def unneeded(self, element: Element, message: str, *, attribute: str = "") -> None:
        self.add("not needed", element, message, attribute)

    def add(self, group: Group, element: Element, message: str, attribute: str = "") -> None:
        """Tell of `element`, or of one attribute of it."""
        what = f"{element.tag}@{attribute}" if attribute else element.tag
        if attribute:
            element.used.add(attribute)
        else:
            element.take()
        if len(self.entries) < MAX_ENTRIES:
            self.entries.append(Entry(group, element.line, what, message))

    def leftovers(self, root: Element) -> None:
        """Tell of everything in `root` that nobody has read."""
        self._walk(root, root.tag)

    def _walk(self, element: Element, path: str) -> None:
        for name in element.attributes:
            if name not in element.used and not name.startswith("xmlns"):
                self._left(element.line, f"{path}@{name}")
        for child in element.children:
            below = f"{path}/{child.tag}"
            if child.seen:
                self._walk(child, below)
            else:
                self._left(child.line, below)
        if element.text.strip() and not element.children and not element.used_text:
            self._left(element.line, path)

    def _left(self, line: int, path: str) -> None:
        group, message = _known(path)
        what = path.removeprefix("domain/").removeprefix("devices/")
        if len(self.entries) < MAX_ENTRIES:
            self.entries.append(Entry(group, line, what, message))

    def ordered(self) -> list[Entry]:
        """The entries by group, then by line; the same thing said once."""
        unique = dict.fromkeys(self.entries)
        return sorted(unique, key=lambda entry: (GROUPS.index(entry.group), entry.line))


def _known(path: str, table: Mapping[str, tuple[Group, str]] = LEFTOVERS) -> tuple[Group, str]:
    """What is known of the element at `path`, by its last steps."""
    steps = path.split("/")
    for at in range(len(steps)):
        if found := table.get("/".join(steps[at:])):
            return found
    name = steps[-1]
    if "@" in name and (found := table.get(f"*{name[name.index('@') :]}")):
        return found
    return "not supported", "has no counterpart here"
