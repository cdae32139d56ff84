"""Going back to a snapshot: new empty layers on those of the snapshot, and its memory or a reset.

The order in which nothing is lost, whatever ends when:

1. new layers are made on the snapshot's
2. the guest is stopped; from here on it does not change what it is left with
3. the heads are set to the new layers, what is left behind becomes a branch that can be reverted
   to, and the revert is noted as pending: all in one write
4. QEMU gets the layers' nodes and switches all disks at one moment
5. the memory is loaded, or the machine is reset
6. the revert is no longer pending, and the guest goes on

While it is pending the guest never runs. A QEMU whose disks were not switched yet goes on as it
was; one whose disks were is brought to the end. Without QEMU the next start finishes it.
"""

from __future__ import annotations

import asyncio
import os
import time

from attrs import evolve, frozen

from qlaunch.aio import finish
from qlaunch.argv import graph
from qlaunch.errors import QlaunchError
from qlaunch.host.image_facts import image_contents
from qlaunch.machine import internal, live, memory_load, moment
from qlaunch.machine.bench import Bench, path_of, said
from qlaunch.machine.revert_plan import Revert
from qlaunch.machine.snapshot import (
    check_phase,
    forget_layers,
    make_overlays,
    note_new,
)
from qlaunch.machine.unused import drop_unused_nodes
from qlaunch.plan.model import Disk, Layer
from qlaunch.store import timeline as store
from qlaunch.tree.model import Pending, Snapshot, Timeline

STOP_TIMEOUT = 30.0
RESET_TIMEOUT = 10.0


@frozen(kw_only=True)
class Left:
    """What a revert leaves behind: the work since the snapshot, in bytes, and the branch that keeps
    it (None when it was thrown away, or there was none)."""

    size: int
    branch: Snapshot | None
    lost: tuple[str, ...] = ()


async def left_behind(bench: Bench, revert: Revert, *, keep: bool) -> Left:
    """What the present is worth: nothing, or a branch of its own."""
    heads = {disk.id: bench.active(disk) for disk in revert.disks}
    size, lost = 0, []
    for disk in revert.disks:
        facts = await asyncio.to_thread(image_contents, heads[disk.id].path)
        if heads[disk.id].path == disk.image or not is_empty(facts.file_size, facts.virtual_size):
            size += facts.allocated or 0
            lost.append(said(disk, heads[disk.id].path))
    worth = bool(lost) or await asyncio.to_thread(moment.has_changed, bench)
    if not keep or not worth:
        return Left(size=size, branch=None, lost=tuple(lost))
    branch = Snapshot(
        id=bench.timeline.next_id,
        name=None,
        created=time.time(),
        text=f"left when {revert.snapshot.label} was reverted to",
        layers={ident: said(bench.disk(ident), layer.path) for ident, layer in heads.items()},
        left_out=tuple(disk.id for disk in bench.plan.disks if disk.id not in heads),
        parent=bench.timeline.current,
        machine=bench.plan.board.machine,
        cpu=bench.plan.board.cpu,
        qemu=bench.plan.qemu_version,
    )
    return Left(size=size, branch=branch, lost=tuple(lost))


def is_empty(file_size: int | None, virtual_size: int | None) -> bool:
    """Whether a layer as `create_overlay` makes it has never been written to."""
    from qlaunch.host.qcow2_write import empty_size

    return file_size is not None and file_size <= empty_size(virtual_size or 0)


async def prepare(bench: Bench, revert: Revert, *, keep: bool) -> tuple[dict[str, str], Left]:
    """Make the new layers and, with the guest stopped, note the revert. Returns: their paths.

    Raises: as `make_overlays`; nothing has changed then, and the guest runs if it ran.
    """
    check_phase(bench)
    if internal.is_written_to(bench, revert.snapshot) and revert.snapshot.kind == "internal":
        await _stop(bench)  # what is copied now must stand still
    try:
        overlays = await _new_layers(bench, revert)
        bench.step("revert: overlays")
    except BaseException:
        await finish(bench.go_on())
        raise
    try:
        await _stop(bench)
        left = await left_behind(bench, revert, keep=keep)
        if left.branch is not None:
            await finish(asyncio.to_thread(moment.keep, bench, left.branch.id))
        await bench.save(_noted(bench, revert, overlays, left))
    except BaseException:
        await finish(_forget(bench, overlays))
        raise
    bench.step("revert: noted")
    return overlays, left


async def _stop(bench: Bench) -> None:
    if bench.machine is not None:
        resume = bench.timeline.resume or await bench.machine.run_state() == "running"
        await bench.save(evolve(bench.timeline, resume=resume))
        await bench.session.execute("stop", timeout=STOP_TIMEOUT)
    bench.step("revert: stopped")


async def _new_layers(bench: Bench, revert: Revert) -> dict[str, str]:
    """Make the layers that the machine is to go on with. Returns: their paths by disk."""
    if revert.snapshot.kind != "internal":
        below = {disk.id: _layer_of(bench, revert.snapshot, disk) for disk in revert.disks}
        return await make_overlays(bench, below)
    if revert.memory:
        await internal.extract_memory(bench, revert.snapshot)
    paths = await note_new(bench, [disk.id for disk in revert.disks])
    try:
        await internal.extract(bench, revert.snapshot, paths)
    except BaseException:
        await finish(forget_layers(bench, list(paths.values())))
        raise
    return paths


async def _forget(bench: Bench, overlays: dict[str, str]) -> None:
    try:
        await forget_layers(bench, list(overlays.values()))
    finally:
        await bench.go_on()


def _layer_of(bench: Bench, snapshot: Snapshot, disk: Disk) -> Layer:
    path = path_of(disk, snapshot.layers[disk.id])
    raw = bench.is_raw(disk, path)
    return Layer(node="", file_node="", path=path, format="raw" if raw else "qcow2", read_only=True)


def _noted(bench: Bench, revert: Revert, overlays: dict[str, str], left: Left) -> Timeline:
    """The timeline from the moment on at which the revert counts."""
    fresh = {ident: said(bench.disk(ident), path) for ident, path in overlays.items()}
    timeline = bench.timeline
    needs_work = bench.is_live or revert.memory or moment.has_firmware(bench.plan)
    pending = Pending(
        snapshot=revert.snapshot.id,
        memory=revert.memory,
        heads=timeline.heads,
        current=timeline.current,
        branch=left.branch.id if left.branch else None,
    )
    noted = evolve(
        timeline,
        heads={**timeline.heads, **fresh},
        current=revert.snapshot.id,
        pending=pending if needs_work else None,
        due=left.branch is None,
    )
    return noted.with_snapshot(left.branch) if left.branch else noted


# ---- in the running QEMU ------------------------------------------------------------------------


async def switch(bench: Bench, revert: Revert, overlays: dict[str, str]) -> None:
    """Put the disks of the stopped machine on the new layers.

    Raises: what QEMU says; the disks are as before then, all of them.
    """
    tops = [(disk, await _add_chain(bench, disk, overlays[disk.id])) for disk in revert.disks]
    bench.step("revert: nodes")
    await bench.execute([graph.switch(tops)])
    bench.step("revert: switched")


async def _add_chain(bench: Bench, disk: Disk, top: str) -> Layer:
    """Give QEMU every layer under `top`, and itself, that it does not have yet."""
    assert bench.graph is not None
    missing: list[tuple[str, bool]] = []
    path: str | None = top
    below: Layer | None = None
    while path is not None:
        below = bench.graph.node_of(disk.id, path)
        if below is not None:
            break
        raw = bench.is_raw(disk, path)
        missing.append((path, raw))
        path = None if raw else image_contents(path).backing_path
    taken = set(bench.graph.nodes)
    for each, raw in reversed(missing):
        active = each == top
        layer = graph.free_layer(disk.id, each, taken, read_only=not active)
        mergeable = not active and _is_ours(bench, disk, each)
        layer = evolve(layer, format="raw" if raw else "qcow2", mergeable=mergeable)
        taken |= {layer.node, layer.file_node}
        number = await live.hand_over(bench.session, each, write=active or mergeable)
        backing = below.node if below else None
        await bench.execute(graph.add_layer(disk, layer, number, backing=backing, active=active))
        below = layer
    assert below is not None
    bench.graph = evolve(bench.graph, nodes={**bench.graph.nodes, **dict.fromkeys(taken, "")})
    return below


def _is_ours(bench: Bench, disk: Disk, path: str) -> bool:
    owned = [path_of(disk, name) for name in bench.timeline.owned.get(disk.id, ())]
    return (path in owned or path == disk.image) and os.access(path, os.W_OK)


async def load(bench: Bench, snapshot: Snapshot, *, with_memory: bool) -> None:
    """Bring the stopped machine, whose disks are on the new layers, to the snapshot's moment.

    Raises: MemoryLoadError: this QEMU must not go on then.
    """
    if with_memory:
        await memory_load.load_in_process(
            bench.session,
            store.file_of(bench.name, snapshot.id, "memory"),
            step=bench.step,
        )
        assert bench.machine is not None
        await bench.machine.set_links("up", "down")
    else:
        await bench.session.execute("system_reset", timeout=RESET_TIMEOUT)
    bench.step("revert: loaded")


async def conclude(bench: Bench, *, go: bool) -> None:
    """The revert is done: it is no longer pending, and with `go` the guest goes on."""
    await bench.save(evolve(bench.timeline, pending=None, resume=go))
    bench.step("revert: concluded")
    if bench.machine is not None:
        await bench.go_on()
        await bench.note_layers()
        await drop_unused_nodes(bench)


async def take_back(bench: Bench) -> None:
    """Undo a revert that was noted and whose disks were not switched."""
    pending = bench.timeline.pending
    if pending is None:
        return
    made = {
        path_of(disk, bench.timeline.heads[disk.id])
        for disk in bench.plan.disks
        if disk.id in bench.timeline.heads
        and bench.timeline.heads[disk.id] != pending.heads.get(disk.id)
    }
    timeline = evolve(bench.timeline, heads=pending.heads, current=pending.current, pending=None)
    if pending.branch is not None:
        timeline = evolve(
            timeline,
            snapshots=tuple(each for each in timeline.snapshots if each.id != pending.branch),
        )
    await bench.save(timeline)
    if pending.branch is not None:
        await asyncio.to_thread(store.remove_files, bench.name, pending.branch)
    await forget_layers(bench, sorted(made))
    await bench.go_on()
    if bench.machine is not None:
        await bench.look()
        await drop_unused_nodes(bench)
        await bench.note_layers()


async def in_process(bench: Bench, revert: Revert, overlays: dict[str, str], *, go: bool) -> bool:
    """Finish the noted revert in the running QEMU.

    Returns: False when the memory could not be loaded: the machine must be started anew.
    Raises: what QEMU says; the machine is as before then.
    """
    try:
        await switch(bench, revert, overlays)
    except QlaunchError:
        await finish(take_back(bench))
        raise
    try:
        await load(bench, revert.snapshot, with_memory=revert.memory)
    except memory_load.MemoryLoadError as error:
        assert bench.machine is not None
        bench.machine.log.say(f"{error.message}; starting QEMU anew with it")
        return False
    await finish(conclude(bench, go=go))
    return True


def switched(bench: Bench) -> bool:
    """Whether the running QEMU has its disks where the pending revert wants them."""
    assert bench.graph is not None
    return all(
        path_of(disk, bench.timeline.heads.get(disk.id, disk.image))
        == bench.graph.chains[disk.id][0].path
        for disk in bench.plan.disks
    )
