"""Elements as XML."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from qlaunch.libvirt.element import Element

# What XML cannot hold in any spelling.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def element(tag: str, /, *children: Element, text: object = "", **attributes: object) -> Element:
    """A new element; attributes that are None are left out."""
    said = {name.rstrip("_"): str(value) for name, value in attributes.items() if value is not None}
    return Element(tag, 0, said, list(children), str(text))


def render(root: Element) -> str:
    """`root` as a text of several lines."""
    return "\n".join(_lines(root, "")) + "\n"


def _lines(node: Element, indent: str) -> list[str]:
    words = [node.tag]
    words += [f"{name}={_quoted(value)}" for name, value in node.attributes.items()]
    head = " ".join(words)
    text = escape(_plain(node.text.strip()))
    if not node.children:
        return [f"{indent}<{head}>{text}</{node.tag}>" if text else f"{indent}<{head}/>"]
    inner = [line for child in node.children for line in _lines(child, f"{indent}  ")]
    return [f"{indent}<{head}>{text}", *inner, f"{indent}</{node.tag}>"]


def _quoted(value: str) -> str:
    return quoteattr(_plain(value))


def _plain(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
