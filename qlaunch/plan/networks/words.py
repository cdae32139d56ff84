"""The few forms that an nftables ruleset is made of."""

from __future__ import annotations

from collections.abc import Iterable

MARK = "@FINGERPRINT@"  # what stands for the name of the chain that is the fingerprint


def quoted(word: str) -> str:
    """The name of an interface in a rule."""
    return f'"{word}"'


def _elements(items: Iterable[str]) -> str:
    """The elements of a set or a map, nothing where there are none."""
    listed = list(items)
    return f"    elements = {{ {', '.join(listed)} }}\n" if listed else ""


def a_set(name: str, kind: str, items: Iterable[str], what: str = "set") -> str:
    return f"  {what} {name} {{\n    type {kind}\n{_elements(items)}  }}"


def a_chain(name: str, lines: Iterable[str], hook: str = "") -> str:
    body = [hook] if hook else []
    return "\n".join([f"  chain {name} {{", *(f"    {line}" for line in (*body, *lines)), "  }"])
