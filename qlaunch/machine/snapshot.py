"""Taking a snapshot: of the disks, or of disks and memory, while the guest runs.

The order in which nothing is lost, whatever ends when:

1. the names of the new layers are noted as ours, then they are made: empty, on the active ones
2. what the machine is now is kept (plan, profile)
3. the heads are set to the empty layers, whose content is that of the layers they stand on
4. QEMU puts the layers on top, all at one moment (with memory: while the guest is stopped)
5. the snapshot is in the timeline: from here on it exists

A cut before 5 leaves layers that no snapshot names; they are merged away or removed later.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from attrs import evolve, frozen

from qlaunch.aio import finish
from qlaunch.argv import graph
from qlaunch.errors import ConflictError, PhaseError, QlaunchError, RefusedError, UsageError
from qlaunch.host import hugepages
from qlaunch.host.qcow2_write import create_overlay
from qlaunch.machine import internal, live, memory, moment
from qlaunch.machine.bench import (
    Bench,
    backing_name,
    next_paths,
    path_of,
    said,
    telling,
    virtual_size,
)
from qlaunch.machine.frozen import frozen_guest
from qlaunch.machine.unused import drop_unused_nodes
from qlaunch.plan.model import Disk, Layer
from qlaunch.store import files
from qlaunch.store import timeline as store
from qlaunch.tree.model import Snapshot

LONGEST_NAME = 80


@frozen(kw_only=True)
class Wish:
    """What snapshot is wanted. Without `disks` all that the profile does not leave out."""

    name: str | None = None
    text: str = ""
    disks: tuple[str, ...] = ()
    memory: bool = True
    quiesce: bool = False
    internal: bool = False


@frozen(kw_only=True)
class Made:
    """A snapshot that was taken, and what the user should know of it. Times in seconds."""

    snapshot: Snapshot
    stopped: float | None = None
    memory_bytes: int | None = None
    warnings: tuple[str, ...] = ()


def check_name(bench: Bench, name: str) -> str:
    """`name` if a snapshot can be called so. Raises: UsageError, ConflictError."""
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise UsageError(
            f"{name!r} cannot be a snapshot's name",
            hint=f"up to {LONGEST_NAME} letters, digits and signs that can be seen",
        )
    if name[0] in "-#" or name.isdigit() or name != name.strip():
        raise UsageError(
            f"{name!r} cannot be a snapshot's name",
            hint="numbers, and what begins with - or #, mean something else here",
        )
    if any(each.name == name for each in bench.timeline.snapshots):
        raise ConflictError(
            f"{bench.name} has a snapshot {name!r} already",
            hint=f"take another name, or `qlaunch snapshot delete {bench.name} {name}`",
        )
    return name


def free_name(bench: Bench) -> str:
    """A name for a snapshot that was given none."""
    taken = {each.name for each in bench.timeline.snapshots}
    number = 1
    while f"snap{number}" in taken:
        number += 1
    return f"snap{number}"


def chosen(bench: Bench, wish: Wish) -> list[Disk]:
    """The disks that go into the snapshot.

    Raises: NotFoundError, RefusedError when one cannot, or none is left.
    """
    for ident in wish.disks:
        if bench.disk(ident).layers[0].read_only:
            raise RefusedError(f"{bench.name}: the disk {ident} is read-only and never changes")
    disks = [
        disk
        for disk in bench.plan.disks
        if (disk.id in wish.disks if wish.disks else disk.snapshot) and not disk.layers[0].read_only
    ]
    if not disks:
        raise RefusedError(
            f"{bench.name} has no disk to take a snapshot of",
            hint="`snapshot = false` in its profile keeps disks out; --disk takes one all the same",
        )
    return disks


async def create(bench: Bench, wish: Wish) -> Made:
    """Take a snapshot.

    Raises: UsageError, ConflictError, NotFoundError, RefusedError, PhaseError, HostError; what QEMU
    says. Nothing has changed then, and the guest runs if it ran.
    """
    name = check_name(bench, wish.name) if wish.name else free_name(bench)
    disks = chosen(bench, wish)
    with_memory = wish.memory and bench.is_live
    check_phase(bench)
    if with_memory:
        await memory.check_allowed(bench.session)
    snapshot = Snapshot(
        id=bench.timeline.next_id,
        name=name,
        kind="internal" if wish.internal else "memory" if with_memory else "disks",
        created=time.time(),
        text=wish.text,
        layers={disk.id: said(disk, bench.active(disk).path) for disk in disks},
        left_out=tuple(
            disk.id
            for disk in bench.plan.disks
            if disk not in disks and not disk.layers[0].read_only
        ),
        parent=bench.timeline.current,
        tag=name if wish.internal else None,
        vmstate=disks[0].id if wish.internal and with_memory else None,
        quiesced=wish.quiesce,
        machine=bench.plan.board.machine,
        cpu=bench.plan.board.cpu,
        qemu=bench.plan.qemu_version,
    )
    if wish.internal:
        return await _create_internal(bench, disks, snapshot)
    overlays = await make_overlays(bench, {disk.id: bench.active(disk) for disk in disks})
    bench.step("create: overlays")
    try:
        await finish(asyncio.to_thread(moment.keep, bench, snapshot.id))
        if not bench.is_live:
            return await _commit(bench, snapshot, overlays)
        return await _create_live(bench, disks, snapshot, overlays, quiesce=wish.quiesce)
    except BaseException:
        await finish(withdraw(bench, snapshot, overlays))
        raise


async def _create_internal(bench: Bench, disks: Sequence[Disk], snapshot: Snapshot) -> Made:
    """Make a snapshot inside the images; the machine goes on writing to them."""
    internal.check(bench, disks, snapshot.label)
    try:
        await finish(asyncio.to_thread(moment.keep, bench, snapshot.id))
        quiesced = bench.machine if snapshot.quiesced else None
        async with frozen_guest(quiesced):
            stopped = await internal.create(bench, snapshot, disks)
        loose = tuple(each for each in bench.timeline.loose if each.id != snapshot.id)
        timeline = evolve(bench.timeline, loose=loose, current=snapshot.id)
        await bench.save(timeline.with_snapshot(snapshot))
    except BaseException:
        if bench.timeline.by_id(snapshot.id) is None:
            with contextlib.suppress(QlaunchError):
                await finish(internal.clear(bench))
            await finish(asyncio.to_thread(store.remove_files, bench.name, snapshot.id))
        raise
    bench.step("create: committed")
    return Made(snapshot=snapshot, stopped=stopped)


def check_phase(bench: Bench) -> None:
    """Raises: PhaseError when the machine cannot be worked on."""
    if bench.timeline.pending is not None:
        raise PhaseError(
            f"{bench.name}: a revert was cut off in the middle",
            hint=f"`qlaunch up {bench.name}` finishes it",
        )
    if bench.timeline.saved is not None:
        raise PhaseError(
            f"{bench.name} is suspended to disk",
            hint=f"`qlaunch up {bench.name}` continues it; `up --fresh` forgets its memory",
        )
    for disk in bench.plan.disks:
        if disk.create is not None and not bench.is_live:
            raise PhaseError(
                f"{bench.name}: its disk {disk.id} has not been made yet",
                hint=f"`qlaunch up {bench.name}` makes it",
            )


async def make_overlays(bench: Bench, below: dict[str, Layer]) -> dict[str, str]:
    """Make an empty layer on top of each of `below`, for the disk of that id.

    Returns: the new layers' paths by disk. Raises: HostError; nothing is left then.
    """
    sizes = {ident: virtual_size(layer) for ident, layer in below.items()}
    paths = await note_new(bench, list(below))
    try:
        await finish(asyncio.to_thread(_make_overlays, paths, below, sizes))
    except BaseException:
        await finish(forget_layers(bench, list(paths.values())))
        raise
    return paths


async def note_new(bench: Bench, idents: Sequence[str]) -> dict[str, str]:
    """Note new layers of these disks as ours, before they are made. Returns: their paths by disk.

    Raises: HostError.
    """
    paths = next_paths([bench.disk(ident) for ident in idents])
    names = {ident: said(bench.disk(ident), path) for ident, path in paths.items()}
    before = bench.timeline.owned
    owned = {**before, **{ident: (*before.get(ident, ()), name) for ident, name in names.items()}}
    await bench.save(evolve(bench.timeline, owned=owned, due=True))
    bench.step("overlays: noted")
    return paths


def _make_overlays(paths: dict[str, str], below: dict[str, Layer], sizes: dict[str, int]) -> None:
    for ident, path in paths.items():
        layer = below[ident]
        name = backing_name(path, layer.path)
        create_overlay(path, size=sizes[ident], backing=name, backing_format=layer.format)


async def _create_live(
    bench: Bench,
    disks: Sequence[Disk],
    snapshot: Snapshot,
    overlays: dict[str, str],
    *,
    quiesce: bool,
) -> Made:
    """Put the overlays into the running machine, and keep its memory if that is wanted."""
    below = {disk.id: bench.active(disk) for disk in disks}
    above = await add_overlays(bench, disks, overlays)
    bench.step("create: nodes")
    pairs = [(below[disk.id], above[disk.id]) for disk in disks]
    assert bench.machine is not None
    resume = snapshot.kind == "memory" and await bench.machine.run_state() == "running"
    await bench.save(evolve(bench.timeline, heads=_heads(bench, overlays), resume=resume))
    bench.step("create: heads")

    async def switch() -> None:
        await bench.execute([graph.overlay(pairs)])
        bench.step("create: transaction")

    report: memory.Report | None = None
    huge: hugepages.Ranges = ()
    async with frozen_guest(bench.machine if quiesce else None):
        if snapshot.kind == "memory":
            path = store.file_of(bench.name, snapshot.id, "memory")
            huge = await asyncio.to_thread(hugepages.find, bench.machine.process.pid)
            report = await memory.save_live(
                bench.session, path, switch=switch, progress=telling(bench.tell, "memory")
            )
        else:
            await switch()
    bench.step("create: memory")
    made = await _commit(bench, snapshot, overlays)
    await finish(bench.note_layers())
    if report is None:
        return made
    if report.background and not bench.machine.process.ended:
        await asyncio.to_thread(hugepages.give_back, bench.machine.process.pid, huge)
    warnings = () if report.background else (_stopped_words(report),)
    return evolve(made, stopped=report.stopped, memory_bytes=report.bytes, warnings=warnings)


def _stopped_words(report: memory.Report) -> str:
    return (
        f"the guest was stopped for {report.stopped:.1f} s while its memory was saved:"
        f" {report.reason}; `qlaunch doctor` says how to save it while the guest runs"
    )


async def add_overlays(
    bench: Bench, disks: Sequence[Disk], paths: dict[str, str]
) -> dict[str, Layer]:
    """Give QEMU the new layers; they stand on nothing yet. What fails is undone."""
    assert bench.graph is not None
    added: dict[str, Layer] = {}
    try:
        for disk in disks:
            layer = graph.free_layer(disk.id, paths[disk.id], bench.graph.nodes)
            number = await live.hand_over(bench.session, layer.path, write=True)
            added[disk.id] = layer
            await bench.execute(graph.add_layer(disk, layer, number, backing=None, active=True))
    except BaseException:
        with contextlib.suppress(QlaunchError):
            await finish(_remove_added(bench, list(added.values())))
        raise
    return added


async def _remove_added(bench: Bench, layers: Sequence[Layer]) -> None:
    await bench.look()
    await bench.remove_nodes(layers)


def _heads(bench: Bench, overlays: dict[str, str]) -> dict[str, str]:
    fresh = {ident: said(bench.disk(ident), path) for ident, path in overlays.items()}
    return {**bench.timeline.heads, **fresh}


async def _commit(bench: Bench, snapshot: Snapshot, overlays: dict[str, str]) -> Made:
    """The snapshot exists from here on."""
    timeline = evolve(
        bench.timeline, heads=_heads(bench, overlays), current=snapshot.id, resume=False, due=False
    )
    await bench.save(timeline.with_snapshot(snapshot))
    bench.step("create: committed")
    return Made(snapshot=snapshot)


async def withdraw(bench: Bench, snapshot: Snapshot, overlays: dict[str, str]) -> None:
    """Undo a snapshot that failed: whatever the guest does not write to goes."""
    if bench.timeline.by_id(snapshot.id) is not None:
        return  # it is complete: only telling of it failed
    if bench.machine is not None:
        if bench.machine.process.ended:
            return  # the heads are right; what is not used is found later
        with contextlib.suppress(QlaunchError):
            await bench.go_on()
            await bench.look()
            await bench.reconcile()
            await drop_unused_nodes(bench)
            await bench.note_layers()
    unused = [
        path
        for ident, path in overlays.items()
        if path_of(bench.disk(ident), bench.timeline.heads.get(ident, "")) != path
    ]
    with contextlib.suppress(QlaunchError):
        await forget_layers(bench, unused)
        await asyncio.to_thread(store.remove_files, bench.name, snapshot.id)


async def forget_layers(bench: Bench, paths: Sequence[str]) -> None:
    """Remove layers that were made and never used."""
    for path in paths:
        await asyncio.to_thread(files.remove, path)
    gone = set(paths)
    owned = {
        disk.id: tuple(
            name for name in bench.timeline.owned[disk.id] if path_of(disk, name) not in gone
        )
        for disk in bench.plan.disks
        if disk.id in bench.timeline.owned
    }
    await bench.save(evolve(bench.timeline, owned={**bench.timeline.owned, **owned}))
