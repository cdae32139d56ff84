"""An element of an XML file that knows what of it was read, so that nothing is dropped in silence.

`attribute`, `first`, `each` and `words` mark what they give; what nobody asked for is left for
the report. A child that was asked for answers for its own attributes and children.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import Factory, define


@define(eq=False)
class Element:
    """A tag with its line, attributes, children and text."""

    tag: str
    line: int
    attributes: dict[str, str] = Factory(dict)
    children: list[Element] = Factory(list)
    text: str = ""
    seen: bool = False
    used: set[str] = Factory(set)
    used_text: bool = False

    def attribute(self, name: str, otherwise: str = "") -> str:
        """The value of an attribute, without blanks around it; `otherwise` where it is not said."""
        self.used.add(name)
        return self.attributes.get(name, otherwise).strip()

    def has(self, name: str) -> bool:
        return name in self.attributes

    def first(self, tag: str) -> Element | None:
        """The first child called `tag`; more of them stay unread."""
        for child in self.children:
            if child.tag == tag:
                child.seen = True
                return child
        return None

    def within(self, *tags: str) -> Element:
        """The child of the child, and so on; an empty element where there is none."""
        found = self
        for tag in tags:
            found = found.first(tag) or Element(tag, found.line)
        return found

    def each(self, *tags: str) -> Iterator[Element]:
        """Every child called one of `tags`."""
        for child in self.children:
            if child.tag in tags:
                child.seen = True
                yield child

    def words(self) -> str:
        """The text, without blanks around it."""
        self.used_text = True
        return self.text.strip()

    def take(self) -> Element:
        """Mark all of it as read: it is spoken for."""
        self.seen = self.used_text = True
        self.used.update(self.attributes)
        for child in self.children:
            child.take()
        return self

    def is_on(self, name: str, *, otherwise: bool = False) -> bool:
        """Whether an attribute says yes."""
        value = self.attribute(name)
        return value in ("yes", "on", "1", "true") if value else otherwise
