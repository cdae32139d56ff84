"""Internal snapshots: inside the images that the machine writes to, as `savevm` makes them.

They cost no second image, and that is all they are good for: the guest stands still while its
memory is written, and going back copies the disks out of the image that holds them, because
whatever stands on that image, or still writes to it, must not notice.

One that is being made or removed is in `Timeline.loose`; `clear` takes those out of their images.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence

from attrs import evolve

from qlaunch.aio import finish
from qlaunch.argv import graph
from qlaunch.argv.graph import Command
from qlaunch.argv.keyval import keyval
from qlaunch.errors import CommandError, ConflictError, HostError, RefusedError, TimedOutError
from qlaunch.host.image_facts import image_contents
from qlaunch.host.image_rights import rights
from qlaunch.host.newfile import FULL, part_file, publish, remove_stale, write_error
from qlaunch.host.qcow2 import ImageError
from qlaunch.host.qcow2_snapshots import InternalSnapshot, copy_vm_state, list_internal
from qlaunch.host.qcow2_write import STREAM_AT
from qlaunch.host.tool import failure, percentages, run_tool
from qlaunch.machine import chains, memory
from qlaunch.machine.bench import Bench, backing_name, said, telling
from qlaunch.plan.model import Disk, Layer
from qlaunch.store import timeline as store
from qlaunch.tree.drift import unmarked
from qlaunch.tree.model import Snapshot

JOB = "qlaunch-internal"
# Memory is written at disk speed, with the guest standing still.
JOB_TIMEOUT = 3600.0
# All tables of an image are read and written.
TOOL_TIMEOUT = 3600.0
COPY_TIMEOUT = 24 * 3600.0
_POLL = 0.02


def list_of(path: str) -> tuple[InternalSnapshot, ...]:
    """The internal snapshots of an image. Raises: HostError, RefusedError when it is damaged."""
    try:
        return list_internal(path)
    except ImageError as error:
        raise RefusedError(f"{path}: {error}") from error
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from error


def check(bench: Bench, disks: Sequence[Disk], name: str) -> None:
    """Raises: RefusedError when a disk can hold no internal snapshot, ConflictError when an image
    holds one of that name already: somebody else's."""
    for disk in disks:
        layer = bench.active(disk)
        if layer.format != "qcow2":
            raise RefusedError(
                f"{bench.name}: {layer.path} is a {layer.format} image and holds no snapshots",
                hint="leave --internal out: a layer on top of it does as well",
            )
        if any(each.name == name for each in list_of(layer.path)):
            raise ConflictError(
                f"{layer.path} has an internal snapshot {name!r} that qlaunch does not know",
                hint=f"take another name, or take it over: `qlaunch snapshot sync {bench.name}`",
            )


async def create(bench: Bench, snapshot: Snapshot, disks: Sequence[Disk]) -> float | None:
    """Make the internal snapshot in all of `disks`. It is noted as loose before: the caller commits
    it, or has it cleared.

    Returns: for how many seconds the guest stood still, if there is one. Raises: HostError,
    CommandError.
    """
    await bench.save(evolve(bench.timeline, loose=(*bench.timeline.loose, snapshot)))
    bench.step("internal: noted")
    begun = time.monotonic()
    if not bench.is_live:
        for disk in disks:
            await _qemu_img(bench, "-c", snapshot, bench.active(disk).path)
            bench.step("internal: one made")
        return None
    if snapshot.vmstate is None:
        await bench.execute([_transaction(disks, _tag(snapshot))])
    else:
        nodes = [disk.id for disk in disks]
        arguments = {"tag": _tag(snapshot), "vmstate": snapshot.vmstate, "devices": nodes}
        await _run_job(bench, "snapshot-save", arguments)
    bench.step("internal: made")
    return time.monotonic() - begun


def _tag(snapshot: Snapshot) -> str:
    assert snapshot.tag is not None
    return snapshot.tag


def _transaction(disks: Sequence[Disk], tag: str) -> Command:
    actions = [
        {"type": "blockdev-snapshot-internal-sync", "data": {"device": disk.id, "name": tag}}
        for disk in disks
    ]
    return Command("transaction", {"actions": actions})


async def _run_job(bench: Bench, name: str, arguments: Mapping[str, object]) -> None:
    """Raises: CommandError with what QEMU says, TimedOutError."""
    await bench.session.execute(name, {"job-id": JOB, **arguments})
    error = await _end_of_job(bench)
    if error:
        raise CommandError(f"{bench.name}: {name} failed: {error}")


async def _end_of_job(bench: Bench) -> str | None:
    """Wait for our job, if there is one, and dismiss it. Returns: what went wrong with it."""
    begun, tell = time.monotonic(), telling(bench.tell, "memory")
    while True:
        jobs = await bench.session.execute("query-jobs")
        mine = next((job for job in jobs if job["id"] == JOB), None)
        if mine is None:
            return None
        if mine["status"] == "concluded":
            await bench.session.execute("job-dismiss", {"id": JOB})
            return str(mine["error"]) if mine.get("error") else None
        if time.monotonic() - begun > JOB_TIMEOUT:
            raise TimedOutError(f"{bench.name}: QEMU has not ended a snapshot in {JOB_TIMEOUT:g} s")
        tell(int(mine["current-progress"]), int(mine["total-progress"]))
        await asyncio.sleep(_POLL)


async def _qemu_img(bench: Bench, what: str, snapshot: Snapshot, path: str) -> None:
    """Raises: HostError with qemu-img's words."""
    command = (bench.qemu_img, "snapshot", what, _tag(snapshot), "--", path)
    mine = rights(bench.qemu_img, write=[path], below=[path])
    output = await run_tool(command, timeout=TOOL_TIMEOUT, confinement=mine)
    if output.status:
        raise failure(f"{bench.name}: {path}", output)


# ---- taking them out ----------------------------------------------------------------------------


async def clear(bench: Bench) -> tuple[str, ...]:
    """Take loose snapshots out of their images.

    Returns: the images in which one must wait until the machine is stopped. Raises: CommandError,
    HostError.
    """
    if not bench.timeline.loose:
        return ()
    if bench.is_live:
        await _end_of_job(bench)
    waiting: list[str] = []
    left: list[Snapshot] = []
    for snapshot in bench.timeline.loose:
        stays = [
            path
            for disk in bench.plan.disks
            if disk.id in snapshot.layers and not await _clear_one(bench, disk, snapshot)
            for path in [bench.layer_path(snapshot, disk.id)]
        ]
        waiting += stays
        left += [snapshot] if stays else []
        bench.step("internal: cleared")
    written = {ident for each in bench.timeline.loose for ident in each.layers}
    await bench.save(unmarked(evolve(bench.timeline, loose=tuple(left)), written))
    return tuple(waiting)


def _holds(path: str, snapshot: Snapshot) -> bool:
    return os.path.exists(path) and any(each.name == _tag(snapshot) for each in list_of(path))


async def _clear_one(bench: Bench, disk: Disk, snapshot: Snapshot) -> bool:
    """Returns: whether it is out of the image."""
    path = bench.layer_path(snapshot, disk.id)
    if not _holds(path, snapshot):
        return True
    chain = bench.graph.chains[disk.id] if bench.graph is not None else ()
    at = next((at for at, layer in enumerate(chain) if layer.path == path), None)
    if at is None:  # QEMU, if it runs, does not have it open
        await _qemu_img(bench, "-d", snapshot, path)
        bench.step("internal: taken out")
        return True
    node, below = chain[at], chain[at + 1] if at + 1 < len(chain) else None
    if at:
        try:
            await bench.execute([graph.reopen(disk, node, below, read_only=False)])
        except CommandError:
            return False  # it is not ours to write to
    bench.step("internal: opened")
    try:
        arguments = {"tag": _tag(snapshot), "devices": [node.node if at else disk.id]}
        await _run_job(bench, "snapshot-delete", arguments)
        bench.step("internal: taken out")
    finally:
        if at:
            await finish(bench.execute([graph.reopen(disk, node, below, read_only=True)]))
    return True


# ---- getting them out ---------------------------------------------------------------------------


def check_there(bench: Bench, snapshot: Snapshot) -> None:
    """Raises: RefusedError when an image does not hold the snapshot any more."""
    for ident in snapshot.layers:
        path = bench.layer_path(snapshot, ident)
        if not _holds(path, snapshot):
            raise RefusedError(
                f"{bench.name}: {snapshot.label} is not in {path} any more",
                hint=f"`qlaunch snapshot delete {bench.name} {snapshot.label}` forgets it",
            )


def is_written_to(bench: Bench, snapshot: Snapshot) -> bool:
    """Whether QEMU writes to an image that holds the snapshot."""
    return bench.is_live and any(
        bench.active(bench.disk(ident)).path == bench.layer_path(snapshot, ident)
        for ident in snapshot.layers
    )


async def extract(bench: Bench, snapshot: Snapshot, targets: Mapping[str, str]) -> None:
    """Copy each disk of the snapshot into the new image that `targets` names. It stands on the one
    that holds the snapshot, like any layer made from it; nobody may write to that any more.

    Raises: HostError, RefusedError, TimedOutError.
    """
    for ident, target in targets.items():
        disk = bench.disk(ident)
        source = Layer(
            node="", file_node="", path=bench.layer_path(snapshot, ident), format="qcow2"
        )
        try:
            await _copy_disk(bench, disk, source, _tag(snapshot), target)
        except OSError as error:
            raise write_error(target, error) from error
        bench.step("internal: extracted")


async def _copy_disk(bench: Bench, disk: Disk, source: Layer, tag: str, target: str) -> None:
    remove_stale(target)
    below = image_contents(source.path).backing_path
    words: list[str] = []
    if below is not None:
        raw = bench.is_raw(disk, below)
        words = ["-B", backing_name(target, below), "-F", "raw" if raw else _format_of(below)]
    layers = chains.layers_at(disk, said(disk, source.path), bench.timeline)
    node = chains.node_of(layers)
    told, begun = bench.tell, time.monotonic()

    def progress(percent: float) -> None:
        told("copy", f"{disk.id}: {percent:.0f} %", time.monotonic() - begun)

    async def run(part: str, *words: str) -> None:
        read = [layer.path for layer in layers]
        output = await run_tool(
            (bench.qemu_img, *words),
            timeout=COPY_TIMEOUT,
            on_output=percentages(progress),
            confinement=rights(bench.qemu_img, read=read, write=[part]),
        )
        if output.status:
            for number in FULL:
                if os.strerror(number) in output.stderr:
                    raise write_error(target, OSError(number, os.strerror(number)))
            raise failure(f"{bench.name}: {tag} in {source.path} cannot be copied", output)

    # Sharing (-U) is sound: QEMU, if it has the image open at all, has written everything out.
    with part_file(target) as (part, fd):
        await run(
            part,
            *("convert", "-U", "-p", "-O", "qcow2", *words),
            *("-l", keyval(None, [("snapshot.name", tag)]), "--", f"json:{json.dumps(node)}", part),
        )
        name = backing_name(target, source.path)
        await run(part, "rebase", "-U", "-p", "-f", "qcow2", "-b", name, "-F", "qcow2", "--", part)
        await finish(asyncio.to_thread(publish, fd, part, target))


def _format_of(path: str) -> str:
    return "qcow2" if image_contents(path).format == "qcow2" else "raw"


async def extract_memory(bench: Bench, snapshot: Snapshot) -> str:
    """Make the memory file of an internal snapshot, once. Returns: its path.

    Raises: HostError, RefusedError.
    """
    path = store.file_of(bench.name, snapshot.id, "memory")
    if os.path.exists(path):  # noqa: ASYNC240
        return path
    assert snapshot.vmstate is not None
    source = bench.layer_path(snapshot, snapshot.vmstate)
    found = next((each for each in list_of(source) if each.name == _tag(snapshot)), None)
    if found is None or not found.vm_state:
        raise RefusedError(f"{bench.name}: {snapshot.label} has no memory in {source}")
    await finish(asyncio.to_thread(_copy_memory, source, found, path))
    return path


def _copy_memory(source: str, found: InternalSnapshot, path: str) -> None:
    try:
        with memory.new_file(path) as target, open(source, "rb") as file:
            copy_vm_state(file.fileno(), found, target, STREAM_AT)
            memory.wrap(target, path, found.vm_state)
    except ImageError as error:
        raise RefusedError(f"{source}: {found.name}: {error}") from error
    except OSError as error:
        raise write_error(path, error) from error
