"""The tree of a machine's snapshots, read from the images that they are made of."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from qlaunch.tree.model import Snapshot, Timeline

HERE = 0
"""The id of the present among the nodes; snapshots are numbered from 1."""


@frozen(kw_only=True)
class Node:
    """A snapshot, or the present, in the tree. `parent` is the node it was made from, None for a
    root. `problems` say what the images and the timeline do not agree about."""

    id: int
    snapshot: Snapshot | None
    parent: int | None
    size: int = 0
    problems: tuple[str, ...] = ()


@frozen(kw_only=True)
class Images:
    """What is known of the images: what each stands on, what it takes of the disk (both by absolute
    path), and the path of each layer of a disk by its name in the timeline."""

    parents: Mapping[str, str | None]
    sizes: Mapping[str, int]
    paths: Mapping[tuple[str, str], str]

    def chain(self, disk: str, name: str) -> list[str]:
        """The layer and all below it, as far as they are there."""
        found: dict[str, None] = {}
        path: str | None = self.paths.get((disk, name))
        while path is not None and path in self.parents and path not in found:
            found[path] = None
            path = self.parents[path]
        return list(found)


Chains = Mapping[str, list[str]]


@frozen
class _Known:
    """The chains of all snapshots by id, which snapshots a layer of a disk is the top of, and which
    are inside images."""

    chains: Mapping[int, Chains]
    tops: Mapping[tuple[str, str], list[int]]
    internal: frozenset[int]

    @classmethod
    def of(cls, timeline: Timeline, chains: Mapping[int, Chains]) -> _Known:
        tops: dict[tuple[str, str], list[int]] = {}
        for number, found in chains.items():
            for disk, chain in found.items():
                if chain:
                    tops.setdefault((disk, chain[0]), []).append(number)
        inside = frozenset(each.id for each in timeline.snapshots if each.kind == "internal")
        return cls(chains, tops, inside)


def history(timeline: Timeline, images: Images) -> tuple[Node, ...]:
    """All nodes, the present last. Who comes from whom is the images' to say; where they do not (a
    snapshot of other disks) the timeline's note stands in."""
    chains = {
        each.id: {disk: images.chain(disk, name) for disk, name in each.layers.items()}
        for each in timeline.snapshots
    }
    known = _Known.of(timeline, chains)
    here = {disk: images.chain(disk, name) for disk, name in timeline.heads.items()}
    found = [
        Node(
            id=each.id,
            snapshot=each,
            parent=_parent(each.id, chains[each.id], each.parent, known),
            size=_size(each, chains[each.id], images),
            problems=tuple(_problems(each, images)),
        )
        for each in timeline.snapshots
    ]
    size = sum(images.sizes.get(chain[0], 0) for chain in here.values() if chain)
    parent = _parent(HERE, here, timeline.current, known)
    present = Node(
        id=HERE, snapshot=None, parent=parent, size=size,
        problems=tuple(_head_problems(timeline, images)),
    )  # fmt: skip
    return (*found, present)


def _size(snapshot: Snapshot, chains: Mapping[str, list[str]], images: Images) -> int:
    """What its layers take; those that hold an internal snapshot hold other things as well."""
    if snapshot.kind == "internal":
        return 0
    return sum(images.sizes.get(chain[0], 0) for chain in chains.values() if chain)


def _parent(number: int, mine: Chains, noted: int | None, known: _Known) -> int | None:
    """The nearest snapshot whose layers all lie below. What is made from an internal snapshot
    stands beside the image that holds it: there the note counts."""
    if noted in known.internal and noted != number:
        return noted
    best: tuple[int, bool, int] | None = None
    for disk, chain in mine.items():
        for path in chain[0 if number == HERE else 1 :]:
            found = [
                (_depth(known.chains[other], mine), other == noted, other)
                for other in known.tops.get((disk, path), ())
                if other != number and _lies_below(known.chains[other], mine, whole=number == HERE)
            ]
            if found:
                best = max(*found, best) if best else max(found)
                break
    if best is not None:
        return best[2]
    return noted if noted in known.chains and noted != number else None


def _depth(theirs: Chains, mine: Chains) -> int:
    return max(len(chain) for disk, chain in theirs.items() if disk in mine)


def _lies_below(theirs: Chains, mine: Chains, *, whole: bool) -> bool:
    """Whether each layer of theirs, of disks that both have, is in the chain of mine."""
    return all(
        chain[0] in mine[disk] and (whole or chain[0] != mine[disk][0])
        for disk, chain in theirs.items()
        if chain and disk in mine
    )


def _problems(snapshot: Snapshot, images: Images) -> list[str]:
    found = []
    for disk, name in snapshot.layers.items():
        path = images.paths.get((disk, name))
        if path is None or path not in images.parents:
            found.append(f"its layer {path or name} is missing: it cannot be reverted to")
            continue
        found += _below(images, path)
    return found


def _head_problems(timeline: Timeline, images: Images) -> list[str]:
    found = []
    for disk, name in timeline.heads.items():
        path = images.paths.get((disk, name))
        if path is None or path not in images.parents:
            found.append(f"{path or name}, which holds the present state of {disk}, is missing")
            continue
        found += _below(images, path)
        others = [other for other, parent in images.parents.items() if parent == path]
        found += [
            f"{other} stands on {path}, which {disk} is written to: it will not be readable"
            for other in others
        ]
    return found


def _below(images: Images, path: str) -> list[str]:
    below = images.parents[path]
    if below is not None and below not in images.parents:
        return [f"{path} stands on {below}, which is missing"]
    return []
