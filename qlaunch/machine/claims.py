"""Who names a file: every other profile, and what every other machine has saved.

What cannot be understood is searched as text: rather one file kept too many than one lost.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping

import attrs
from attrs import frozen

from qlaunch.errors import QlaunchError
from qlaunch.profile.load import load
from qlaunch.profile.model import Profile
from qlaunch.profile.toml import parse_toml
from qlaunch.store import machines, paths

_MAX_LINKS = 40


@frozen(kw_only=True)
class Claimant:
    """Somebody who may need a file. `folders` are where its images lie."""

    who: str
    strings: frozenset[str]
    text: str = ""
    folders: frozenset[str] = frozenset()


@frozen(kw_only=True)
class Claims:
    """What all claimants say together; ask it about one path."""

    by_path: Mapping[str, str]
    loose: tuple[tuple[str, str], ...]
    texts: tuple[tuple[str, str], ...]
    folders: frozenset[str]

    @classmethod
    def of(cls, claimants: list[Claimant]) -> Claims:
        by_path: dict[str, str] = {}
        loose: list[tuple[str, str]] = []
        folders: set[str] = set()
        for claimant in claimants:
            folders |= claimant.folders
            for said in claimant.strings:
                if said.startswith("/"):
                    for step in steps(said):
                        by_path.setdefault(step, claimant.who)
                if "/" in said:
                    loose.append((said, claimant.who))
        texts = tuple((claimant.text, claimant.who) for claimant in claimants if claimant.text)
        return cls(by_path=by_path, loose=tuple(loose), texts=texts, folders=frozenset(folders))

    def who_names(self, path: str) -> str | None:
        """Who says `path`, plainly or within an option such as `file=PATH,if=ide`."""
        if who := self.by_path.get(place(path)):
            return who
        pattern = re.compile(re.escape(path) + r"(?![A-Za-z0-9._-])")
        for said, who in self.loose:
            if path in said and pattern.search(said):
                return who
        name = os.path.basename(path)
        return next((who for text, who in self.texts if name in text), None)


def place(path: str) -> str:
    """`path` with its folder's links followed, but not its own."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def steps(path: str) -> Iterator[str]:
    """Every name that opening `path` passes: itself and each link on the way to the file."""
    for _ in range(_MAX_LINKS):
        path = place(os.path.normpath(path))
        yield path
        try:
            target = os.readlink(path)
        except (OSError, ValueError):
            return
        path = os.path.join(os.path.dirname(path), target)


def claimants(machine: str, profile: str | None) -> list[Claimant]:
    """Everybody but the machine `machine`, which the file `profile` defines."""
    found: list[Claimant] = []
    own = os.path.realpath(profile) if profile else None
    for path, findable in _profile_files(machine).items():
        if os.path.realpath(path) != own:
            found.append(_of_profile(path, findable=findable))
    found += [_of_state(name) for name in machines.names() if name != machine]
    return found


def _profile_files(machine: str) -> dict[str, bool]:
    """Every profile there is, and whether its name (or a path that was run) leads to it."""
    found = dict.fromkeys(paths.profile_names().values(), True)
    for folder in paths.profile_dirs():
        for name in _listed(folder):
            if name.endswith(".toml"):
                found.setdefault(os.path.join(folder, name), False)
    for name in machines.names():
        plan = read_plain(os.path.join(paths.machine_state(name), "plan.json"))
        path = plan.get("profile") if isinstance(plan, dict) and name != machine else None
        if isinstance(path, str) and os.path.isfile(path):
            found.setdefault(os.path.abspath(path), True)
    return found


def _of_profile(path: str, *, findable: bool) -> Claimant:
    who = f"the profile {path} names it"
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 20)
    except OSError:
        return Claimant(who=who, strings=frozenset())  # who cannot read it cannot run it either
    text = data.decode(errors="replace")
    try:
        said = set(_strings(parse_toml(text)))
    except (ValueError, RecursionError):
        return Claimant(who=f"{who} (perhaps: it is not TOML)", strings=frozenset(), text=text)
    folder = os.path.dirname(os.path.abspath(path))
    said |= {os.path.join(folder, os.path.expanduser(word)) for word in said}
    try:
        profile = load(path)
    except QlaunchError:
        return Claimant(who=who, strings=frozenset(said), folders=frozenset({folder}))
    said |= set(_strings(attrs.asdict(profile, filter=_is_said)))
    images = {image for disk in profile.disk for image in (disk.path, disk.backing) if image}
    if findable:
        images |= set(own_images(profile))
    return Claimant(
        who=who,
        strings=frozenset(said | images),
        folders=frozenset(os.path.dirname(image) for image in images),
    )


def own_images(profile: Profile) -> list[str]:
    """Where the disks of `profile` are, said or not."""
    data = paths.machine_data(profile.name or "")
    return [
        disk.path or os.path.join(data, f"{disk.id}.{'raw' if disk.format == 'raw' else 'qcow2'}")
        for disk in profile.disk
    ]


def _is_said(attribute: attrs.Attribute[object], _value: object) -> bool:
    return attribute.name not in ("origins", "file")


def _of_state(name: str) -> Claimant:
    """What the machine `name` has saved: its plan, its leases, whatever else is JSON."""
    folder = paths.machine_state(name)
    said: set[str] = set()
    images: set[str] = set()
    text = ""
    for entry in _listed(folder):
        if ".json" in entry:
            plain = read_plain(os.path.join(folder, entry))
            if isinstance(plain, str):
                text += plain
                continue
            said |= set(_strings(plain))
            if entry == "plan.json":
                images |= set(_plan_images(plain))
    return Claimant(
        who=f"machine {name} was last started with it",
        strings=frozenset(said),
        text=text,
        folders=frozenset(os.path.dirname(image) for image in images),
    )


def read_plain(path: str) -> object:
    """The JSON in `path`; its text when it is none, nothing when it cannot be read."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found


def _plan_images(plan: object) -> Iterator[str]:
    disks = plan.get("disks") if isinstance(plan, dict) else None
    for disk in disks if isinstance(disks, list) else []:
        layers = disk.get("layers") if isinstance(disk, dict) else None
        for layer in layers if isinstance(layers, list) else []:
            if isinstance(layer, dict) and isinstance(layer.get("path"), str):
                yield layer["path"]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if "\0" not in value:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
