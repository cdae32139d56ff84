"""Looking at all images of a machine: what stands on what, what is in them, who names them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from qlaunch.errors import BusyError, PhaseError
from qlaunch.host.below import stands_on
from qlaunch.host.qcow2 import ImageError
from qlaunch.host.qcow2_snapshots import list_internal
from qlaunch.store import timeline as store
from qlaunch.tree.drift import Inside, Survey, drift, marked
from qlaunch.tree.history import Images
from qlaunch.tree.model import Timeline, layer_path

if TYPE_CHECKING:  # a picture of the tree is wanted at once, and plans take long to import
    from qlaunch.plan.model import Disk, Plan
    from qlaunch.plan.notes import Finding


@frozen(kw_only=True)
class Own:
    """A disk as far as it matters here: its own image, whether that is raw, and whether it ever
    changes."""

    id: str
    image: str
    raw: bool = False
    read_only: bool = False


def of_plan(disks: Sequence[Disk]) -> tuple[Own, ...]:
    """The disks of a plan."""
    return tuple(
        Own(
            id=disk.id,
            image=disk.image,
            raw=any(each.format == "raw" and each.path == disk.image for each in disk.layers),
            read_only=disk.layers[0].read_only,
        )
        for disk in disks
    )


def of_saved(plan: Mapping[str, Any]) -> tuple[Own, ...]:
    """The disks of a plan as it is saved. Raises: LookupError, TypeError when it is damaged."""
    return tuple(
        Own(
            id=disk["id"],
            image=disk["image"],
            raw=any(
                each["format"] == "raw" and each["path"] == disk["image"] for each in disk["layers"]
            ),
            read_only=bool(disk["layers"][0].get("read_only")),
        )
        for disk in plan["disks"]
    )


def survey(name: str, profile: str | None, disks: Sequence[Own], timeline: Timeline) -> Survey:
    """Look at the images of the machine `name`: those that the timeline names, those below them,
    and what lies beside them. Nothing is locked, nothing is changed."""
    images = images_of(disks, timeline)
    own = {disk.id: os.path.normpath(disk.image) for disk in disks if not disk.read_only}
    heads = {
        disk.id: layer_path(disk.image, timeline.heads.get(disk.id, disk.image))
        for disk in disks
        if disk.id in own
    }
    known = set(images.paths.values()) | set(own.values())
    strangers = [
        path
        for path, parent in images.parents.items()
        if path not in known and parent in images.parents
    ]
    claims: dict[str, str] = {}
    if strangers:
        from qlaunch.machine.claims import Claims, claimants

        found = Claims.of(claimants(name, profile))
        claims = {path: who for path in strangers if (who := found.who_names(path)) is not None}
    raw = {disk.image for disk in disks if disk.raw}
    return Survey(
        disks=own,
        heads=heads,
        images=images,
        inside={path: _inside(path) for path in images.parents if path not in raw},
        marks={path: mark for path in images.parents if (mark := _mark(path)) is not None},
        claims=claims,
    )


def images_of(disks: Iterable[Own], timeline: Timeline) -> Images:
    """The images of these disks, those below them, and those beside them."""
    known: dict[tuple[str, str], str] = {}
    for disk in disks:
        names = {*timeline.owned.get(disk.id, ()), os.path.basename(disk.image)}
        kept = (*timeline.snapshots, *timeline.loose)
        names |= {each.layers[disk.id] for each in kept if disk.id in each.layers}
        names |= {timeline.heads[disk.id]} if disk.id in timeline.heads else set()
        known |= {(disk.id, name): layer_path(disk.image, name) for name in names}
    parents: dict[str, str | None] = {}
    waiting = {*known.values()}
    for folder in {os.path.dirname(path) for path in waiting}:
        waiting |= _beside(folder)
    while waiting:
        path = waiting.pop()
        if path in parents or not os.path.isfile(path):
            continue
        below = stands_on(path)
        parents[path] = os.path.normpath(below[0]) if below else None
        waiting |= set(below)
    sizes = {path: os.stat(path).st_blocks * 512 for path in parents}
    return Images(parents=parents, sizes=sizes, paths=known)


def _beside(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.path for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _inside(path: str) -> tuple[Inside, ...]:
    try:
        found = list_internal(path)
    except (ImageError, OSError):
        return ()
    return tuple(
        Inside(tag=each.name, created=each.created, memory=each.vm_state > 0) for each in found
    )


def _mark(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def at_start(plan: Plan) -> tuple[Finding, ...]:
    """Note size and date of the layers that nobody writes to any more, for a machine that is about
    to start. Returns: warnings of what has changed since it was noted. Raises: HostError."""
    from qlaunch.plan.notes import Finding
    from qlaunch.store import machines

    timeline = store.load(plan.name)
    if not timeline.snapshots:
        return ()
    found = survey(plan.name, plan.profile, of_plan(plan.disks), timeline)
    with contextlib.suppress(BusyError, PhaseError):  # then it does not start either
        handle = machines.lock(plan.name)
        try:
            if store.load(plan.name) == timeline:
                store.save(plan.name, marked(timeline, found))
        finally:
            os.close(handle)
    return tuple(
        Finding(
            level="warning",
            where=plan.name,
            message=each.text,
            hint=f"`qlaunch snapshot sync {plan.name}` says what can be done",
            cause="host",
        )
        for each in drift(timeline, found)
        if each.changed is not None
    )
