"""What a profile builds on: built-in bases and other files, all merged into one tree."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

from attrs import evolve

from qlaunch.errors import ProfileError
from qlaunch.profile.fields import entries_of
from qlaunch.profile.findings import Findings, did_you_mean, shown
from qlaunch.profile.merge import merge
from qlaunch.profile.model import SCHEMA, Profile
from qlaunch.profile.tree import MAX_BYTES, Node, Source, file_source, parse
from qlaunch.profile.values import Mistake, read_value

MAX_STEPS = 10
MAX_FILES = 100
BASES_FOLDER = os.path.join(os.path.dirname(__file__), "bases")
# The base that a guest builds on when its profile does not say `extends`.
BASE_OF_GUEST = {
    "windows-2000": "@windows-xp",
    "windows-xp": "@windows-xp",
    "windows-7": "@windows-7",
    "windows-10": "@windows",
    "windows-11": "@windows-11",
    "linux": "@linux",
}
# What names one machine is not inherited by another.
_OWN = ("name", "title", "uuid")
# What is said to the reader of one file, and is done with when the file is read.
_OF_THE_FILE = ("schema", "extends")

Read = Callable[[str], bytes]


def read_file(path: str) -> bytes:
    """The bytes of `path`; of a file too large for a profile only so many that it shows.

    Raises: OSError.
    """
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


@cache
def base_names() -> tuple[str, ...]:
    """The built-in bases: `@linux`, `@windows` and so on."""
    files = os.listdir(BASES_FOLDER)
    return tuple(sorted(f"@{name[:-5]}" for name in files if name.endswith(".toml")))


@cache
def base_tree(name: str) -> Node:
    """The tree of the built-in base `name`, itself alone."""
    path = os.path.join(BASES_FOLDER, f"{name[1:]}.toml")
    return parse(read_file(path), Source(name, BASES_FOLDER))


class Builder:
    """Reads what profiles build on. One for one reading: it counts the files."""

    def __init__(self, read: Read, findings: Findings) -> None:
        self._read = read
        self._findings = findings
        self._files = 0

    def build(self, tree: Node, path: str) -> Node:
        """`tree`, which the file `path` says, over everything it extends.

        Raises: ProfileError when the file is written for a newer qlaunch.
        """
        return self._build(tree, (os.path.abspath(path),))

    def _build(self, tree: Node, chain: tuple[str, ...]) -> Node:
        self._check_schema(tree)
        merged = Node({}, tree.source)
        for node, name in self._references(tree):
            found = self._load(node, name, chain)
            if found is not None:
                merged = merge(merged, found, self._findings)
        below = {key: node for key, node in merged.value.items() if key not in _OWN}
        own = {key: node for key, node in tree.value.items() if key not in _OF_THE_FILE}
        return merge(evolve(merged, value=below), evolve(tree, value=own), self._findings)

    def _check_schema(self, tree: Node) -> None:
        said = tree.value.get("schema")
        if said is None:
            at = evolve(tree, line=1)
            self._findings.add(at, "schema", "is missing", f"write schema = {SCHEMA} at the top")
            return
        if type(said.value) is int and said.value > SCHEMA:
            raise ProfileError(
                f"{said.place}: schema",
                f"this qlaunch reads schema {SCHEMA}, the file is written in {shown(said.value)}",
                hint="upgrade qlaunch",
            )
        self._accept("schema", "schema", said)

    def _references(self, tree: Node) -> list[tuple[Node, str]]:
        """What `tree` builds on, and the nodes that say so."""
        said = tree.value.get("extends")
        if said is None:
            guest = tree.value.get("guest") if tree.source.folder != BASES_FOLDER else None
            base = BASE_OF_GUEST.get(guest.value) if guest and _is_text(guest) else None
            return [(guest, base)] if guest and base else []
        if not isinstance(said.value, list):
            message = f"{shown(said.value)} is not a list"
            self._findings.add(said, "extends", message, 'write extends = ["@linux"]')
            return []
        return [
            (node, node.value)
            for at, node in enumerate(said.value)
            if self._accept("extends", f"extends[{at}]", node)
        ]

    def _accept(self, key: str, name: str, node: Node) -> bool:
        try:
            read_value(key, entries_of(Profile)[key].key, node)
        except Mistake as mistake:
            self._findings.add(node, name, mistake.message, mistake.hint)
            return False
        return True

    def _load(self, node: Node, name: str, chain: tuple[str, ...]) -> Node | None:
        """The whole tree of what `node` calls `name`; None after a finding."""
        path, source = _located(node.source, name)
        if path in chain:
            loop = " -> ".join(
                os.path.basename(step) for step in (*chain[chain.index(path) :], path)
            )
            return self._refused(node, f"goes round in a circle: {loop}")
        if len(chain) > MAX_STEPS:
            return self._refused(node, f"is more than {MAX_STEPS} steps deep")
        self._files += 1
        if self._files > MAX_FILES:
            return self._refused(node, f"brings in more than {MAX_FILES} profiles")
        try:
            tree = self._tree(node, name, path, source)
        except ProfileError as error:
            self._findings.take(error, source.shown)
            return None
        return self._build(tree, (*chain, path)) if tree is not None else None

    def _tree(self, node: Node, name: str, path: str, source: Source) -> Node | None:
        if name.startswith("@"):
            if name in base_names():
                return base_tree(name)
            hint = did_you_mean(name, base_names()) or f"there are: {', '.join(base_names())}"
            return self._refused(node, f"there is no base {shown(name)}", hint)
        try:
            data = self._read(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return self._refused(
                node, f"{shown(name)} cannot be read: {reason}", f"looked for {path!r}"
            )
        return parse(data, source)

    def _refused(self, node: Node, message: str, hint: str | None = None) -> Node | None:
        """No tree, but a finding."""
        self._findings.add(node, "extends", message, hint)
        return None


def _is_text(node: Node) -> bool:
    return isinstance(node.value, str)


def _located(source: Source, name: str) -> tuple[str, Source]:
    """The absolute path of the profile that `source` calls `name`, and how messages call it."""
    if name.startswith("@"):
        return name, Source(name, BASES_FOLDER)
    expanded = os.path.expanduser(name)
    path = os.path.normpath(os.path.join(source.folder, expanded))
    beside = os.path.join(os.path.dirname(source.shown), expanded)
    return path, file_source(os.path.normpath(beside), os.path.dirname(path))
