"""A machine's snapshots as they are kept: names, dates, and which images hold which moment.

A snapshot is a set of layers, one for each disk, that are never written again. What the machine
writes now goes to its heads. The images themselves say what stands on what; nothing here repeats
it. Layers are named as `Timeline.layers` says: relative to the folder of the disk's own image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from attrs import evolve, field, frozen

TIMELINE_VERSION = 1

# disks: the disks alone, as after a power failure (or frozen, with `quiesced`).
# memory: disks, memory and devices. internal: inside the images, as `savevm` makes it.
Kind = Literal["disks", "memory", "internal"]


@frozen(kw_only=True)
class Snapshot:
    """One moment that the machine can go back to.

    `id` is never used again. `name` is None for what a revert left behind. `layers` maps the id of
    each disk to the image that holds it; for an internal snapshot, to the image that contains it,
    under the name `tag`, and `vmstate` is the disk whose image holds the memory as well, if any
    does. `left_out` are the disks that keep their content when it is reverted to.
    `created` is in seconds since the epoch. `parent` is the snapshot that it was made from, as a
    hint: the images decide. `marks` maps a disk to the size and modification time (nanoseconds) of
    its layer at a moment when nobody could write it any more.
    """

    id: int
    name: str | None = None
    kind: Kind = "disks"
    created: float = 0.0
    text: str = ""
    layers: Mapping[str, str] = field(factory=dict)
    left_out: tuple[str, ...] = ()
    parent: int | None = None
    tag: str | None = None
    vmstate: str | None = None
    quiesced: bool = False
    paused: bool = False
    machine: str = ""
    cpu: str = ""
    qemu: str = ""
    marks: Mapping[str, tuple[int, int]] = field(factory=dict)

    @property
    def has_memory(self) -> bool:
        """Whether it holds memory and devices, too."""
        return self.kind == "memory" or self.vmstate is not None

    @property
    def label(self) -> str:
        """What to call it: its name, or `#7`."""
        return self.name or f"#{self.id}"


@frozen(kw_only=True)
class Pending:
    """A revert that is under way: disks are switched, memory or reset may be missing.

    A machine in this state must never go on: its memory and its disks are of two moments. `heads`
    and `current` are those before, and `branch` is the snapshot that keeps what was left behind:
    with them it is taken back while no disk was switched yet.
    """

    snapshot: int
    memory: bool = False
    heads: Mapping[str, str] = field(factory=dict)
    current: int | None = None
    branch: int | None = None


@frozen(kw_only=True)
class Merge:
    """A merge of two layers that was begun: `pull` copies up from `ghost` what `child` lacks,
    `push` copies `child` down into `ghost`. Either may be done again from the start at any time."""

    disk: str
    ghost: str
    child: str
    way: Literal["pull", "push"]


@frozen(kw_only=True)
class Saved:
    """A machine that was suspended to disk: `up` continues it. `heads` are the layers that its
    memory belongs to."""

    when: float
    heads: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Timeline:
    """Everything that is kept about a machine's snapshots.

    `heads` maps a disk to the layer that holds its present state; a disk that is not there still is
    on its own image. It is right at every instant at which QEMU may be dead. `current` is the
    snapshot that the present state comes from. `owned` are the layers of each disk that qlaunch
    made itself: no other file is ever removed. `next_id` numbers snapshots. `resume` says that a
    verb under way stops the guest for a moment and that it is to go on: whoever finds it stopped
    lets it. `loose` are internal snapshots that are being made or removed: whoever finds them takes
    them out of their images. `due` says that there may be layers that nobody needs.
    """

    version: int = TIMELINE_VERSION
    next_id: int = 1
    heads: Mapping[str, str] = field(factory=dict)
    current: int | None = None
    snapshots: tuple[Snapshot, ...] = ()
    owned: Mapping[str, tuple[str, ...]] = field(factory=dict)
    pending: Pending | None = None
    merges: tuple[Merge, ...] = ()
    saved: Saved | None = None
    resume: bool = False
    loose: tuple[Snapshot, ...] = ()
    due: bool = False

    @property
    def is_untidy(self) -> bool:
        """Whether work was begun that removes what nobody needs, and not brought to its end."""
        return self.due or bool(self.merges or self.loose)

    def find(self, word: str) -> Snapshot | None:
        """The snapshot called `word`: its name, or its number as `#7` or `7`."""
        named = [each for each in self.snapshots if each.name == word]
        if named:
            return named[0]
        number = word.removeprefix("#")
        return self.by_id(int(number)) if number.isascii() and number.isdigit() else None

    def by_id(self, number: int) -> Snapshot | None:
        return next((each for each in self.snapshots if each.id == number), None)

    def with_snapshot(self, snapshot: Snapshot) -> Timeline:
        """With `snapshot` in it, instead of the one of that id if there is one."""
        others = tuple(each for each in self.snapshots if each.id != snapshot.id)
        found = tuple(sorted((*others, snapshot), key=lambda each: each.id))
        return evolve(self, snapshots=found, next_id=max(self.next_id, snapshot.id + 1))

    def without(self, number: int) -> Timeline:
        """Without that snapshot; what was made from it then comes from its parent."""
        gone = self.by_id(number)
        if gone is None:
            return self
        kept = tuple(
            evolve(each, parent=gone.parent) if each.parent == number else each
            for each in self.snapshots
            if each.id != number
        )
        current = gone.parent if self.current == number else self.current
        return evolve(self, snapshots=kept, current=current)


def layer_path(image: str, name: str) -> str:
    """The absolute path of the layer that the timeline calls `name`, of the disk whose own image
    is `image`."""
    return os.path.normpath(os.path.join(os.path.dirname(image), name))
