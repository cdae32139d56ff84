"""The files of one machine, and which of them something else needs.

Nothing here is changed; `remove`, `rename` and `clone` do that.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from attrs import evolve, frozen

from qlaunch.errors import ProfileError, QlaunchError
from qlaunch.host.below import stands_on
from qlaunch.machine.claims import Claims, claimants, place, steps
from qlaunch.profile.load import load
from qlaunch.profile.model import Profile
from qlaunch.profile.toml import parse_toml
from qlaunch.store import paths

Kind = Literal["profile", "disk", "nvram", "tpm", "file", "state"]


@frozen(kw_only=True)
class Entry:
    """One file. `size` is what it takes of the disk; `keep` says why it must stay."""

    path: str
    kind: Kind
    size: int
    keep: str | None = None

    def to_dict(self) -> dict[str, object]:
        plain: dict[str, object] = {"path": self.path, "kind": self.kind, "size": self.size}
        return plain | ({"kept": self.keep} if self.keep else {})


@frozen(kw_only=True)
class Definition:
    """A machine by its name: the file that defines it, what that says, and its folders.

    `profile` is None when the file is not there or is broken (`problem` says how).
    """

    name: str
    file: str | None
    profile: Profile | None
    problem: QlaunchError | None = None

    @property
    def data(self) -> str:
        return paths.machine_data(self.name)

    @property
    def state(self) -> str:
        return paths.machine_state(self.name)


def definition(word: str, file: str | None) -> Definition:
    """The machine that the profile `file` defines; without one, the machine called `word`."""
    if file is None:
        return Definition(name=paths.check_name(word), file=None, profile=None)
    try:
        profile = load(file)
    except QlaunchError as error:
        return Definition(name=_name_in(file), file=file, profile=None, problem=error)
    return Definition(name=profile.name or "", file=file, profile=profile)


def _name_in(file: str) -> str:
    """The machine's name in a profile that does not load."""
    stem = os.path.basename(file).removesuffix(".toml")
    try:
        with open(file, "rb") as stream:
            said = parse_toml(stream.read(1 << 20).decode(errors="replace")).get("name")
    except (OSError, ValueError, RecursionError):
        said = None
    try:
        return paths.check_name(said if isinstance(said, str) else stem)
    except QlaunchError as error:
        raise ProfileError(file, f"names no machine: {error.message}") from error


def walk(root: str) -> Iterator[str]:
    """Every file below the folder `root`; links are files, they are never followed."""
    try:
        found = os.lstat(root)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        yield root
        return
    with os.scandir(root) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)
        else:
            yield entry.path


def inventory(machine: Definition) -> list[Entry]:
    """Every file of `machine`, its profile last: the order in which they may be removed."""
    found = [*_outside(machine), *_data(machine)]
    found += [_entry(path, "state") for path in walk(machine.state)]
    if machine.file is not None:
        found.append(_entry(machine.file, "profile"))
    return found


def _data(machine: Definition) -> Iterator[Entry]:
    tpm = os.path.join(machine.data, "tpm") + "/"
    for path in walk(machine.data):
        kind: Kind = "file"
        if path.startswith(tpm):
            kind = "tpm"
        elif os.path.basename(path).startswith("nvram"):
            kind = "nvram"
        elif path.endswith((".qcow2", ".raw")):
            kind = "disk"
        yield _entry(path, kind)


def _outside(machine: Definition) -> Iterator[Entry]:
    """The disks and the NVRAM that the profile has elsewhere."""
    profile = machine.profile
    if profile is None:
        return
    wanted: list[tuple[str, Kind]] = [
        (disk.path, "disk") for disk in profile.disk if disk.path and not disk.read_only
    ]
    if profile.machine.nvram:
        wanted.append((profile.machine.nvram, "nvram"))
    inside = os.path.join(os.path.realpath(machine.data), "")
    for path, kind in dict(wanted).items():
        if place(path).startswith(inside) or not os.path.lexists(path):
            continue
        entry = _entry(path, kind)
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            entry = evolve(entry, keep="it is a device, not a file")
        yield entry


def is_outside(machine: Definition, entry: Entry) -> bool:
    """Whether a disk or NVRAM lies elsewhere than in the machine's own folder."""
    inside = os.path.join(os.path.realpath(machine.data), "")
    return entry.kind in ("disk", "nvram") and not (
        entry.path.startswith(machine.data + "/") or place(entry.path).startswith(inside)
    )


def _entry(path: str, kind: Kind) -> Entry:
    try:
        return Entry(path=path, kind=kind, size=os.lstat(path).st_blocks * 512)
    except FileNotFoundError:
        return Entry(path=path, kind=kind, size=0)


def needed(machine: Definition, files: Sequence[str], also: Sequence[str] = ()) -> dict[str, str]:
    """Those of `files` (of `machine`) that something needs which is not among them, and why.
    `also` are images that stay, wherever they are.

    Asked are all other profiles, what other machines have saved, and the header of every image in
    qlaunch's data folder and in the folders where this and other profiles have their disks.
    """
    claims = Claims.of(claimants(machine.name, machine.file))
    kept = {path: who for path in files if (who := claims.who_names(path))}
    folders = claims.folders | {os.path.dirname(path) for path in files}
    images = {*also, *walk(paths.data_dir())}
    images |= {path for folder in folders for path in _plain(folder)}
    mine = {place(path): path for path in files}
    roots = [path for path in sorted(images) if place(path) not in mine]
    _keep_below([*roots, *kept], mine, kept)
    return kept


def _keep_below(roots: Iterable[str], mine: dict[str, str], kept: dict[str, str]) -> None:
    """Add to `kept` all of `mine` that `roots` stand on, however many images lie between."""
    waiting, seen = list(roots), set()
    while waiting:
        image = waiting.pop()
        if image in seen:
            continue
        seen.add(image)
        for below in stands_on(image):
            for step in steps(below):
                if step in mine:
                    kept.setdefault(mine[step], f"{image} stands on it")
                waiting.append(step)


def _plain(folder: str) -> Iterator[str]:
    """The files in `folder` itself."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.path for entry in entries if entry.is_file())
    except OSError:
        return
