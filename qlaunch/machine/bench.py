"""A machine whose snapshots are worked on, running or stopped: disks, timeline, QEMU."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence

from attrs import define, evolve

from qlaunch.aio import finish
from qlaunch.argv.graph import Command, Graph
from qlaunch.errors import CommandError, NotFoundError, PhaseError, RefusedError
from qlaunch.host.image_facts import image_contents
from qlaunch.machine import live
from qlaunch.machine.machine import Machine
from qlaunch.machine.steps import step
from qlaunch.plan.model import Disk, Layer, Leases, Plan
from qlaunch.qmp.session import Session
from qlaunch.store import timeline as store
from qlaunch.tree.model import Snapshot, Timeline, layer_path

Tell = Callable[[str, str, float], None]
# Seconds between two lines of progress.
TELL_EVERY = 0.5


def said(disk: Disk, path: str) -> str:
    """How the timeline calls the layer at `path`: by its name alone beside the disk's own image."""
    folder, name = os.path.split(path)
    return name if folder == os.path.dirname(disk.image) else path


def path_of(disk: Disk, name: str) -> str:
    """The absolute path of the layer that the timeline calls `name`."""
    return layer_path(disk.image, name)


@define(kw_only=True)
class Bench:
    """What a snapshot verb works on. The caller holds the machine's lock.

    `plan` is the booted one while the machine runs (`machine` is there then), else the one that the
    next start would have. `profile` is the text of the profile. `graph` is what QEMU has.
    """

    plan: Plan
    timeline: Timeline
    leases: Leases
    profile: str = ""
    machine: Machine | None = None
    graph: Graph | None = None
    qemu_img: str = "qemu-img"
    tell: Tell = lambda name, text, seconds: None

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def is_live(self) -> bool:
        return self.machine is not None

    @property
    def session(self) -> Session:
        assert self.machine is not None
        return self.machine.talk()

    def step(self, name: str) -> None:
        """A place where the work may be cut off."""
        step(name, self.machine.process.pid if self.machine else None)

    def disk(self, ident: str) -> Disk:
        """Raises: NotFoundError."""
        for disk in self.plan.disks:
            if disk.id == ident:
                return disk
        raise NotFoundError(
            f"{self.name} has no disk {ident!r}",
            hint=f"it has {', '.join(disk.id for disk in self.plan.disks) or 'none'}",
        )

    def active(self, disk: Disk) -> Layer:
        """The layer that the disk writes to now."""
        if self.graph is not None:
            return self.graph.chains[disk.id][0]
        return disk.layers[0]

    def is_raw(self, disk: Disk, path: str) -> bool:
        """Whether that image of the disk is raw: what looks like a header in it is the guest's."""
        return any(layer.path == path and layer.format == "raw" for layer in disk.layers)

    def layer_path(self, snapshot: Snapshot, ident: str) -> str:
        return path_of(self.disk(ident), snapshot.layers[ident])

    def snapshot(self, word: str) -> Snapshot:
        """Raises: NotFoundError with what there is."""
        found = self.timeline.find(word)
        if found is not None:
            return found
        names = [each.label for each in self.timeline.snapshots]
        raise NotFoundError(
            f"{self.name} has no snapshot {word!r}",
            hint=f"it has {', '.join(names[-8:])}"
            if names
            else f"`qlaunch snapshot create {self.name}` makes the first",
        )

    async def save(self, timeline: Timeline) -> None:
        """From now on `timeline` counts. Raises: HostError, and nothing has changed then."""
        await finish(asyncio.to_thread(store.save, self.name, timeline))
        self.timeline = timeline

    async def go_on(self) -> None:
        """Let the guest run again if it ran before the verb. Raises: CommandError, HostError."""
        if self.timeline.resume:
            if self.machine is not None and not self.machine.process.ended:
                await self.session.execute("cont")
            await self.save(evolve(self.timeline, resume=False))

    # ---- QEMU -----------------------------------------------------------------------------------

    async def look(self) -> None:
        """Read the block graph of the running QEMU; the heads and the plan are corrected to it."""
        if self.machine is None:
            return
        self.graph = await live.read(self.session, [disk.id for disk in self.plan.disks])
        for disk in self.plan.disks:
            if not self.graph.chains.get(disk.id):
                raise PhaseError(f"{self.name}: QEMU does not know the disk {disk.id} any more")

    async def execute(self, commands: Iterable[Command]) -> None:
        """Send `commands`, one after the other. Raises: CommandError, SessionLostError."""
        for command in commands:
            await self.session.execute(command.name, command.arguments)

    async def remove_nodes(self, layers: Sequence[Layer]) -> None:
        """Take away nodes that no disk stands on, and their descriptors. What QEMU still needs
        stays."""
        assert self.graph is not None
        waiting = list(layers)
        while waiting:
            # Which of them stands on which is not known: one that is in the way goes first.
            left = [layer for layer in waiting if not await self._remove_node(layer)]
            if len(left) == len(waiting):
                return
            waiting = left

    async def _remove_node(self, layer: Layer) -> bool:
        assert self.graph is not None
        for name in (layer.node, layer.file_node):
            try:
                await self.session.execute("blockdev-del", {"node-name": name})
            except CommandError as error:
                if error.error_class != "GenericError" or "find" not in error.message.lower():
                    return False
        if (number := self.graph.fdsets.get(layer.file_node)) is not None:
            await live.take_back(self.session, number)
        return True

    async def note_layers(self) -> None:
        """Read the graph again and keep what the disks stand on now in the saved plan."""
        if self.machine is None:
            return
        await self.look()
        assert self.graph is not None
        disks = tuple(
            evolve(disk, layers=self.graph.chains[disk.id], create=None) for disk in self.plan.disks
        )
        if disks != self.plan.disks:
            self.plan = evolve(self.plan, disks=disks)
            # After a power cut the heads say on which layers the next start is.
            await self.machine.change_plan(self.plan, lasting=False)

    async def reconcile(self) -> None:
        """Where QEMU and the heads disagree QEMU is right: it is what the guest has written to."""
        if self.graph is None or self.timeline.pending is not None:
            return
        heads = dict(self.timeline.heads)
        for disk in self.plan.disks:
            active = self.graph.chains[disk.id][0].path
            if path_of(disk, heads.get(disk.id, disk.image)) != active:
                heads[disk.id] = said(disk, active)
        # A snapshot whose layer is still written to was not taken: nobody was told of it.
        written = {
            (disk.id, heads.get(disk.id, said(disk, disk.image))) for disk in self.plan.disks
        }
        fresh = evolve(self.timeline, heads=heads)
        for each in self.timeline.snapshots:
            if each.kind != "internal" and written & set(each.layers.items()):
                fresh = fresh.without(each.id)
        if fresh != self.timeline:
            await self.save(fresh)


def virtual_size(layer: Layer) -> int:
    """The size of the disk that a layer holds, in bytes. Raises: RefusedError."""
    facts = image_contents(layer.path)
    size = facts.file_size if layer.format == "raw" else facts.virtual_size
    if size is None:
        raise RefusedError(f"the size of {layer.path} cannot be told: {facts.problem or 'missing'}")
    return size


def backing_name(image: str, below: str) -> str:
    """How the header of `image` is to call the file that it stands on: relative beside it, so that
    the folder can be moved. A colon would name a protocol."""
    name = os.path.basename(below)
    if os.path.dirname(image) == os.path.dirname(below) and ":" not in name:
        return name
    return below


def next_paths(disks: Sequence[Disk]) -> dict[str, str]:
    """Names for new layers beside the disks' own images: `c.snap3.qcow2`, the number being one that
    no layer of any of `disks` has yet."""
    stems: dict[str, str] = {}
    for disk in disks:
        folder, name = os.path.split(disk.image)
        stem = os.path.join(folder, name.split(".")[0] or disk.id)
        stems[disk.id] = f"{stem}.{disk.id}" if stem in stems.values() else stem
    number = 1
    for stem in stems.values():
        folder, prefix = os.path.split(f"{stem}.snap")
        for entry in os.listdir(folder):
            text = entry.removeprefix(prefix).removesuffix(".qcow2")
            if entry.startswith(prefix) and text.isascii() and text.isdigit():
                number = max(number, int(text) + 1)
    return {ident: f"{stem}.snap{number}.qcow2" for ident, stem in stems.items()}


def telling(tell: Tell, name: str) -> Callable[[int, int], None]:
    """A progress of bytes that is told as `name`, twice a second at most."""
    begun = told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told < TELL_EVERY:
            return
        told = now
        speed = int(done / (now - begun)) >> 20
        tell(name, f"{done >> 20} of {total >> 20} MiB, {speed} MiB/s", now - begun)

    return progress
