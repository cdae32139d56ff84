"""Which layers nobody needs for themselves any more, and what becomes of each.

Only layers that qlaunch made are ever removed. Whoever stands on a layer counts, also what somebody
else put there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from qlaunch.tree.drift import unmarked
from qlaunch.tree.model import Merge, Snapshot, Timeline


@frozen
class Unlink:
    """A layer that nothing stands on and nobody needs."""

    disk: str
    layer: str


@frozen
class Keep:
    """A layer that stays though no snapshot needs it, and why, for a person."""

    layer: str
    reason: str


Step = Unlink | Merge | Keep


@frozen(kw_only=True)
class Images:
    """The images that are known, by absolute path: what each stands on, how much it takes of the
    disk, which hold internal snapshots, and which somebody else names (and who)."""

    parents: Mapping[str, str | None]
    sizes: Mapping[str, int]
    claims: Mapping[str, str]
    internal: frozenset[str] = frozenset()

    def children(self, path: str) -> list[str]:
        """What stands directly on `path`."""
        return sorted(child for child, parent in self.parents.items() if parent == path)


@frozen(kw_only=True)
class Place:
    """One disk: its own image, and the absolute path of each layer by its name in the timeline."""

    disk: str
    own: str
    paths: Mapping[str, str]
    active: str

    def used(self, timeline: Timeline) -> set[str]:
        """The layers that somebody needs for themselves."""
        kept = (*timeline.snapshots, *timeline.loose)
        named = [each.layers.get(self.disk) for each in kept]
        named.append(timeline.heads.get(self.disk))
        if timeline.pending is not None:
            named.append(timeline.pending.heads.get(self.disk))
        found = {self.paths[name] for name in named if name is not None}
        found.add(self.active)
        if timeline.pending is not None and self.disk not in timeline.pending.heads:
            found.add(self.own)
        return found


def find(timeline: Timeline, places: Sequence[Place], images: Images) -> tuple[Step, ...]:
    """What is to be done about the layers that nobody needs, first things first. After each the
    question is to be put again: one step makes the next possible."""
    used = {path for place in places for path in place.used(timeline)}
    found = [step for place in places for step in _steps(timeline, place, images, used)]
    return tuple(sorted(found, key=_rank))


def _steps(timeline: Timeline, place: Place, images: Images, used: set[str]) -> list[Step]:
    names = {path: name for name, path in place.paths.items()}
    owned = {place.paths[name] for name in timeline.owned.get(place.disk, ())}
    ours = owned | used | {place.own}
    ghosts = sorted(path for path in owned | {place.own} if path in images.parents)
    found: list[Step] = []
    for path in ghosts:
        if path in used:
            continue
        children = images.children(path)
        if (who := images.claims.get(path)) is not None:
            found.append(Keep(path, who))
        elif not children:
            if path in owned and path != place.own:
                found.append(Unlink(place.disk, names[path]))
        elif len(children) > 1:
            found.append(Keep(path, f"{len(children)} layers stand on it"))
        elif children[0] not in ours or children[0] in images.claims:
            found.append(Keep(path, f"{children[0]} stands on it"))
        elif path in images.internal:
            found.append(Keep(path, "there are internal snapshots in it"))
        else:
            found.append(_merge(place, path, children[0], images, names))
    return found


def _merge(place: Place, ghost: str, child: str, images: Images, names: Mapping[str, str]) -> Step:
    """The way that moves less. The disk's own image is what the profile names: it stays.

    What an internal snapshot in the child does not hold itself it finds in the layer below, and
    neither way would bring it that.
    """
    if child in images.internal:
        return Keep(ghost, f"there are internal snapshots in {child}, which stands on it")
    down = images.sizes.get(child, 0) < images.sizes.get(ghost, 0)
    push = ghost == place.own or down
    return Merge(
        disk=place.disk,
        ghost=names[ghost],
        child=names[child],
        way="push" if push else "pull",
    )


def _rank(step: Step) -> int:
    return 0 if isinstance(step, Unlink) else 1 if isinstance(step, Merge) else 2


def after(timeline: Timeline, step: Unlink | Merge) -> Timeline:
    """The timeline once `step` is done: who meant the layer that goes means the one that holds its
    content now. After a merge that layer is one that nobody needs: the next step removes it."""
    if isinstance(step, Unlink):
        return evolve(timeline, owned=_without(timeline, step.disk, step.layer))
    # What stands on either has another header now.
    timeline = unmarked(timeline, [step.disk])
    merges = tuple(
        each for each in timeline.merges if (each.disk, each.ghost) != (step.disk, step.ghost)
    )
    if step.way == "pull":
        return evolve(timeline, merges=merges)
    return evolve(
        timeline,
        merges=merges,
        heads=_moved(timeline.heads, step),
        snapshots=tuple(_moved_snapshot(each, step) for each in timeline.snapshots),
    )


def _without(timeline: Timeline, disk: str, gone: str) -> dict[str, tuple[str, ...]]:
    kept = tuple(name for name in timeline.owned.get(disk, ()) if name != gone)
    return {**timeline.owned, disk: kept}


def _moved(layers: Mapping[str, str], step: Merge) -> dict[str, str]:
    return {
        disk: step.ghost if (disk, name) == (step.disk, step.child) else name
        for disk, name in layers.items()
    }


def _moved_snapshot(snapshot: Snapshot, step: Merge) -> Snapshot:
    return evolve(snapshot, layers=_moved(snapshot.layers, step))
