"""Layers against a plain model: whatever is done, what exists reads what it read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import Factory, define, evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaunch.tree.garbage import Images, Keep, Place, Unlink, after, find
from qlaunch.tree.history import HERE, history
from qlaunch.tree.history import Images as Known
from qlaunch.tree.model import Merge, Snapshot, Timeline

DISKS = ("a", "b")
Content = dict[int, int]


@define
class File:
    """An image: what it stands on, and the cells that were written in it."""

    parent: str | None
    cells: Content = Factory(dict)


@define
class World:
    """Images on a disk, a machine's timeline, and what every moment must read."""

    files: dict[str, File] = Factory(dict)
    timeline: Timeline = Timeline()
    moments: dict[int, dict[str, Content]] = Factory(dict)
    present: dict[str, Content] = Factory(dict)
    foreign: dict[str, Content] = Factory(dict)
    made: int = 0

    @classmethod
    def fresh(cls) -> World:
        world = cls(present={disk: {} for disk in DISKS})
        world.files = {path(f"{disk}.qcow2"): File(None) for disk in DISKS}
        return world

    def read(self, image: str | None) -> Content:
        found: Content = {}
        while image is not None:
            found = {**self.files[image].cells, **found}
            image = self.files[image].parent
        return found

    def head(self, disk: str) -> str:
        return path(self.timeline.heads.get(disk, f"{disk}.qcow2"))

    def overlay(self, disk: str, below: str) -> str:
        self.made += 1
        name = f"{disk}.snap{self.made}.qcow2"
        self.files[path(name)] = File(below)
        owned = dict(self.timeline.owned)
        owned[disk] = (*owned.get(disk, ()), name)
        self.timeline = evolve(self.timeline, owned=owned)
        return name

    # ---- what a user does -----------------------------------------------------------------------

    def write(self, number: int) -> None:
        disk = DISKS[number % len(DISKS)]
        self.made += 1
        self.files[self.head(disk)].cells[number % 5] = self.made
        self.present[disk] = {**self.present[disk], number % 5: self.made}

    def keep_present(self) -> None:
        """A snapshot of the present; the heads stay."""
        layers = {disk: self.head(disk).removeprefix("/d/") for disk in DISKS}
        number = self.timeline.next_id
        snapshot = Snapshot(id=number, layers=layers, parent=self.timeline.current)
        self.timeline = self.timeline.with_snapshot(snapshot)
        self.moments[number] = {disk: dict(cells) for disk, cells in self.present.items()}

    def create(self, _number: int) -> None:
        self.keep_present()
        current = self.timeline.next_id - 1
        heads = {disk: self.overlay(disk, self.head(disk)) for disk in DISKS}
        self.timeline = evolve(self.timeline, heads=heads, current=current)

    def revert(self, number: int) -> None:
        if not self.timeline.snapshots:
            return
        target = self.timeline.snapshots[number % len(self.timeline.snapshots)]
        if number % 2:
            self.keep_present()
        heads = {disk: self.overlay(disk, path(target.layers[disk])) for disk in DISKS}
        self.timeline = evolve(self.timeline, heads=heads, current=target.id)
        self.present = {disk: dict(cells) for disk, cells in self.moments[target.id].items()}
        self.collect()

    def delete(self, number: int) -> None:
        self.forget(number)
        self.collect()

    def forget(self, number: int) -> None:
        if self.timeline.snapshots:
            gone = self.timeline.snapshots[number % len(self.timeline.snapshots)].id
            self.timeline = self.timeline.without(gone)
            del self.moments[gone]

    def cut(self, number: int) -> None:
        """A delete that is cut off in the middle of its first merge."""
        self.forget(number)
        for step in self.steps()[:1]:
            if isinstance(step, Merge):
                ghost, child = self.files[path(step.ghost)], self.files[path(step.child)]
                half = {cell for cell in (*ghost.cells, *child.cells) if (cell + number) % 2}
                if step.way == "pull":
                    lacking = {c: ghost.cells[c] for c in half & set(ghost.cells)}
                    child.cells = {**lacking, **child.cells}
                else:
                    ghost.cells |= {c: child.cells[c] for c in half & set(child.cells)}

    def strange(self, number: int) -> None:
        """Somebody puts an image of his own on a layer that nobody writes to."""
        heads = {self.head(disk) for disk in DISKS}
        frozen = [name for name in sorted(self.files) if name not in heads]
        if frozen:
            self.made += 1
            name = path(f"foreign{self.made}.qcow2")
            self.files[name] = File(frozen[number % len(frozen)], {9: self.made})
            self.foreign[name] = self.read(name)

    # ---- what follows from it -------------------------------------------------------------------

    def places(self) -> list[Place]:
        return [
            Place(
                disk=disk,
                own=path(f"{disk}.qcow2"),
                paths={name.removeprefix("/d/"): name for name in self.files},
                active=self.head(disk),
            )
            for disk in DISKS
        ]

    def collect(self) -> None:
        for _ in range(200):
            steps = self.steps()
            if not steps:
                return
            self.do(steps[0])
            self.check()
        raise AssertionError("there is no end to it")

    def steps(self) -> list[Unlink | Merge]:
        parents = {name: file.parent for name, file in self.files.items()}
        sizes = {name: len(file.cells) for name, file in self.files.items()}
        found = find(self.timeline, self.places(), Images(parents=parents, sizes=sizes, claims={}))
        return [each for each in found if not isinstance(each, Keep)]

    def do(self, step: Unlink | Merge) -> None:
        if isinstance(step, Unlink):
            self.unlink(path(step.layer))
        elif step.way == "pull":
            ghost, child = self.files[path(step.ghost)], self.files[path(step.child)]
            child.cells = {**ghost.cells, **child.cells}
            child.parent = ghost.parent
        else:
            ghost, child = self.files[path(step.ghost)], self.files[path(step.child)]
            ghost.cells = {**ghost.cells, **child.cells}
            for file in self.files.values():
                if file.parent == path(step.child):
                    file.parent = path(step.ghost)
        self.timeline = after(self.timeline, step)

    def unlink(self, name: str) -> None:
        assert "foreign" not in name
        assert not [file for file in self.files.values() if file.parent == name]
        assert name not in {path(f"{disk}.qcow2") for disk in DISKS}, "the base image"
        del self.files[name]

    def check(self) -> None:
        for snapshot in self.timeline.snapshots:
            for disk, layer in snapshot.layers.items():
                assert self.read(path(layer)) == self.moments[snapshot.id][disk]
        for disk in DISKS:
            assert self.read(self.head(disk)) == self.present[disk]
        for name, cells in self.foreign.items():
            assert self.read(name) == cells

    def nodes(self) -> dict[int, int | None]:
        known = Known(
            parents={name: file.parent for name, file in self.files.items()},
            sizes={},
            paths={(disk, n.removeprefix("/d/")): n for n in self.files for disk in DISKS},
        )
        return {node.id: node.parent for node in history(self.timeline, known)}


def path(name: str) -> str:
    return f"/d/{name}"


STEPS: dict[str, Callable[[World, int], None]] = {
    "write": World.write,
    "cut": World.cut,
    "create": World.create,
    "revert": World.revert,
    "delete": World.delete,
    "strange": World.strange,
}


# A history is bytes, two to a step: the quickest for hypothesis to make thousands of. Left to
# choose the length, it makes five bytes of them.
LENGTHS = st.integers(0, 40).map(lambda steps: 2 * steps)
HISTORIES = LENGTHS.flatmap(lambda size: st.binary(min_size=size, max_size=size))
EXAMPLES = 4000


def steps(history: bytes, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    for which, number in zip(history[::2], history[1::2], strict=False):
        yield names[which % len(names)], number


@settings(max_examples=EXAMPLES, deadline=None)
@given(HISTORIES)
def test_what_exists_always_reads_what_it_read(work: bytes) -> None:
    world = World.fresh()
    for name, number in steps(work, sorted(STEPS)):
        STEPS[name](world, number)
        world.check()


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(HISTORIES)
def test_without_snapshots_nothing_is_left_but_the_own_images(work: bytes) -> None:
    world = World.fresh()
    for name, number in steps(work, ["write", "create", "revert", "cut", "delete"]):
        STEPS[name](world, number)
    while world.timeline.snapshots:
        world.delete(0)
    world.collect()
    assert sorted(world.files) == [path("a.qcow2"), path("b.qcow2")]
    assert world.timeline.owned == {} or not any(world.timeline.owned.values())


def test_an_image_of_somebody_else_keeps_what_it_stands_on() -> None:
    """libvirt's accident (issue 811): deleting a snapshot must never destroy a base image."""
    world = World.fresh()
    world.write(0)
    world.create(0)
    world.write(0)
    world.strange(0)
    base = world.files[next(iter(world.foreign))].parent
    assert base is not None
    world.delete(0)
    assert base in world.files
    world.check()


def test_a_layer_that_somebody_names_stays() -> None:
    world = World.fresh()
    world.create(0)
    world.create(0)
    world.timeline = world.timeline.without(2)
    images = Images(
        parents={name: file.parent for name, file in world.files.items()},
        sizes={},
        claims=dict.fromkeys(world.files, "another profile names it"),
    )
    found = find(world.timeline, world.places(), images)
    assert found
    assert all(isinstance(step, Keep) and "another profile" in step.reason for step in found)


def test_the_tree_is_read_from_the_images_and_not_from_notes() -> None:
    world = World.fresh()
    world.create(0)  # 1
    world.create(0)  # 2
    world.revert(0)  # to 1, unkept
    world.create(0)  # 3
    lies = tuple(evolve(each, parent=None) for each in world.timeline.snapshots)
    world.timeline = evolve(world.timeline, snapshots=lies, current=None)
    assert world.nodes() == {1: None, 2: 1, 3: 1, HERE: 3}
