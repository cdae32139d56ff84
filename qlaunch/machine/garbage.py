"""Looking around before a layer is removed: who stands on it, and who names it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from qlaunch.errors import QlaunchError
from qlaunch.host.below import stands_on
from qlaunch.host.image_facts import image_contents
from qlaunch.machine.bench import Bench, path_of
from qlaunch.machine.claims import Claims, claimants, steps
from qlaunch.machine.claims import place as at
from qlaunch.machine.files import walk
from qlaunch.plan.model import Disk
from qlaunch.store import paths
from qlaunch.tree.garbage import Images, Place, Step, find


def place_of(bench: Bench, disk: Disk) -> Place:
    """The disk with the paths of all layers that the timeline names."""
    timeline = bench.timeline
    names = {*timeline.owned.get(disk.id, ()), os.path.basename(disk.image)}
    names |= {each.layers[disk.id] for each in timeline.snapshots if disk.id in each.layers}
    names |= {heads[disk.id] for heads in _all_heads(bench) if disk.id in heads}
    return Place(
        disk=disk.id,
        own=os.path.normpath(disk.image),
        paths={name: path_of(disk, name) for name in names},
        active=bench.active(disk).path,
    )


def _all_heads(bench: Bench) -> Iterable[dict[str, str]]:
    yield dict(bench.timeline.heads)
    if bench.timeline.pending is not None:
        yield dict(bench.timeline.pending.heads)


def find_steps(bench: Bench) -> tuple[Step, ...]:
    """What is to be done about the layers that nobody needs any more."""
    claims = Claims.of(claimants(bench.name, bench.plan.profile))
    places = [place_of(bench, disk) for disk in bench.plan.disks]
    return find(bench.timeline, places, _images(places, claims))


def still_owned(bench: Bench) -> dict[str, tuple[str, ...]]:
    """The layers of each disk that are ours, without those that were removed already: a cut may
    come between that and the note of it."""
    owned = dict(bench.timeline.owned)
    for disk in bench.plan.disks:
        place = place_of(bench, disk)
        used = place.used(bench.timeline)
        names = owned.get(disk.id, ())
        kept = [n for n in names if place.paths[n] in used or os.path.lexists(place.paths[n])]
        if disk.id in owned:
            owned[disk.id] = tuple(kept)
    return owned


def _images(places: list[Place], claims: Claims) -> Images:
    """Every image in the folders of this and all other machines, and beside their disks."""
    found: set[str] = set(walk(os.path.realpath(paths.data_dir())))
    folders = {os.path.dirname(place.own) for place in places} | claims.folders
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                found |= {entry.path for entry in entries if entry.is_file()}
        except OSError:
            continue
    ours = {path for place in places for path in place.paths.values()}
    ours |= {place.own for place in places}
    parents = _parents(found, ours)
    return Images(
        parents={path: parents.get(path) for path in {*parents, *_there(ours)}},
        sizes={path: os.stat(path).st_blocks * 512 for path in _there(ours)},
        claims={path: who for path in ours if (who := claims.who_names(path)) is not None},
        internal=frozenset(path for path in _there(ours) if _has_internal(path)),
    )


def _parents(found: Iterable[str], ours: Iterable[str]) -> dict[str, str | None]:
    """What each image stands on, also those that are not in `found` and that one of them stands on.
    A file of ours goes by the name in `ours`, however others reach it: through links, say."""
    called = {at(path): path for path in ours}
    parents: dict[str, str | None] = {}
    waiting = list(found)
    while waiting:
        path = at(os.path.normpath(waiting.pop()))
        path = called.get(path, path)
        if path in parents:
            continue
        # What looks like a header in a raw disk's first bytes was written by a guest: it counts
        # all the same here, where counting too much only keeps a layer.
        below = [step for name in stands_on(path) for step in steps(name)]
        mine = [called[step] for step in below if step in called]
        parents[path] = next(iter(mine or below), None)
        waiting += below
    return parents


def _there(files: Iterable[str]) -> list[str]:
    return [path for path in files if os.path.isfile(path)]


def _has_internal(path: str) -> bool:
    try:
        return image_contents(path).internal_snapshots > 0
    except QlaunchError:
        return True
