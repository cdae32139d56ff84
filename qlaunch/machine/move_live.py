"""A disk's image moved to another place while its machine runs, by a mirror job.

The order: copy, ready, stop, complete, gone, the new path in plan and profile on the disk, go on,
old image removed. The guest writes nothing between the last two images, so a kill at any moment
leaves one that is right, and the profile names one that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from attrs import evolve

from qlaunch.aio import finish
from qlaunch.argv import graph, plug
from qlaunch.errors import (
    BusyError,
    CommandError,
    QlaunchError,
)
from qlaunch.host.images import create_image
from qlaunch.machine import live, plug_notes
from qlaunch.machine.bench import Bench, virtual_size
from qlaunch.machine.machine import Machine
from qlaunch.machine.move import Moved, Progress, is_said, say, sync
from qlaunch.machine.plug import check_idle
from qlaunch.machine.plug_notes import Move
from qlaunch.plan.model import Disk, Layer, Plan
from qlaunch.profile.load import load
from qlaunch.qmp.session import Session
from qlaunch.store import files

JOB = "qlaunch-move"
STOP_TIMEOUT = 30.0
# The last writes of a job that is ready, with the guest stopped.
PIVOT_TIMEOUT = 60.0
CANCEL_TIMEOUT = 30.0
_POLL, _POLL_MOST = 0.01, 0.25


def with_image(plan: Plan, ident: str, layer: Layer) -> Plan:
    """`plan` with the active layer and the image of a disk being `layer`."""
    disks = tuple(
        evolve(disk, image=layer.path, layers=(layer, *disk.layers[1:]), create=None)
        if disk.id == ident
        else disk
        for disk in plan.disks
    )
    return evolve(plan, disks=disks)


async def move_live(
    bench: Bench, disk: Disk, new: str, progress: Progress, *, speed: int = 0
) -> Moved:
    """Move a disk of the running machine. A cancellation ends it where it was.

    Raises: HostError, CommandError, BusyError, TimedOutError; the disk is where it was then.
    """
    machine, session, old = bench.machine, bench.session, bench.active(disk)
    assert machine is not None
    assert bench.graph is not None
    await check_idle(bench)
    said = is_said(bench, disk)
    note = Move(disk=disk.id, old=old.path, new=new)
    layer = graph.free_layer(disk.id, new, bench.graph.nodes)
    layer = evolve(layer, format=old.format)
    await finish(asyncio.to_thread(plug_notes.save, machine, (), note))
    try:
        await _make(bench, disk, old, new)
        bench.step("move: made")
        await finish(_begin(bench, disk, old, layer, speed))
        bench.step("move: begun")
        await _until_ready(session, progress)
        bench.step("move: ready")
        await asyncio.to_thread(sync, new)
        stopped = await finish(_pivot(bench, disk, old, layer, note, said=said))
    except BaseException:
        await finish(_remove_old(machine, note) if _counts(machine, note) else _undo(machine, note))
        raise
    await finish(_remove_old(machine, note))
    bench.plan = machine.plan
    warnings = () if said else ("it is not in the profile: the move counts for this run",)
    return Moved(old=old.path, new=new, stopped=stopped, warnings=warnings)


def _counts(machine: Machine, note: Move) -> bool:
    """Whether the machine goes on with the new image, come what may."""
    return any(disk.id == note.disk and disk.image == note.new for disk in machine.plan.disks)


async def _make(bench: Bench, disk: Disk, old: Layer, new: str) -> None:
    """An empty image like the old one, on the same image."""
    size = await asyncio.to_thread(virtual_size, old)
    below = disk.layers[1] if len(disk.layers) > 1 else None
    await create_image(
        new,
        image_format=old.format,
        size=size,
        backing=below.path if below else None,
        backing_format=below.format if below else None,
    )


async def _begin(bench: Bench, disk: Disk, old: Layer, layer: Layer, speed: int) -> None:
    number = await live.hand_over(bench.session, layer.path, write=True)
    try:
        below = disk.layers[1].node if len(disk.layers) > 1 else None
        await bench.execute(graph.add_layer(disk, layer, number, backing=below, active=True))
        await bench.execute([plug.mirror(JOB, disk, old, layer, speed=speed)])
    except BaseException:
        with contextlib.suppress(QlaunchError):
            await drop_nodes(bench.session, [layer])
            await live.take_back(bench.session, number)
        raise


async def job(session: Session) -> dict[str, Any] | None:
    """The move's job in QEMU."""
    jobs: list[dict[str, Any]] = await session.execute("query-jobs")
    return next((each for each in jobs if each["id"] == JOB), None)


async def _until_ready(session: Session, progress: Progress) -> None:
    """Raises: CommandError when the job failed, BusyError when it was cancelled."""
    pause = _POLL
    while (found := await job(session)) is not None and found["status"] != "ready":
        if found["status"] in ("concluded", "null", "aborting"):
            break
        progress(found["current-progress"], found["total-progress"])
        await asyncio.sleep(pause)
        pause = min(_POLL_MOST, pause * 1.5)
    else:
        if found is not None:
            return
    _raise_failed(session.name, found)


def _raise_failed(name: str, found: dict[str, Any] | None) -> None:
    error = (found or {}).get("error")
    if error is None or "cancel" in str(error).lower():
        raise BusyError(f"{name}: the move was cancelled; the disk is where it was")
    raise CommandError(
        f"{name}: the disk was not moved: {error}", hint="it is where it was; nothing is lost"
    )


async def _pivot(
    bench: Bench, disk: Disk, old: Layer, layer: Layer, note: Move, *, said: bool
) -> float:
    """Let the machine go on with the new image. Returns: how long the guest stood still."""
    machine, session = bench.machine, bench.session
    assert machine is not None
    runs = await machine.run_state() == "running"
    await asyncio.to_thread(plug_notes.save, machine, (), evolve(note, resume=runs))
    begun = time.monotonic()
    await session.execute("stop", timeout=STOP_TIMEOUT)
    bench.step("move: stopped")
    try:
        try:
            await _complete(session)
            bench.step("move: complete")
            await asyncio.to_thread(sync, layer.path)
            await _commit(machine, note, layer, said=said)
        except BaseException:  # both hold the same, and the guest has not run since
            with contextlib.suppress(QlaunchError):
                await _end_job(session)
            await bench.execute([graph.switch([(disk, old)])])
            raise
        bench.step("move: noted")
    finally:
        if runs:
            with contextlib.suppress(QlaunchError):  # QEMU may have ended
                await session.execute("cont")
    return time.monotonic() - begun


async def _commit(machine: Machine, note: Move, layer: Layer, *, said: bool) -> None:
    """From here on the new image counts, also for the next start. What fails is undone."""
    before = machine.plan
    try:
        await machine.change_plan(with_image(before, note.disk, layer))
        if said:
            await asyncio.to_thread(say, before, note.disk, note.new)
    except BaseException:
        with contextlib.suppress(QlaunchError):
            await machine.change_plan(before)
        raise


async def _complete(session: Session) -> None:
    """From ready to gone. Raises: CommandError, TimedOutError; QEMU is where it was then."""
    await session.execute("job-complete", {"id": JOB})
    found = await _concluded(session, PIVOT_TIMEOUT)
    if found is not None and found.get("error"):
        _raise_failed(session.name, found)


async def _concluded(session: Session, timeout: float) -> dict[str, Any] | None:
    """Wait until the job has ended, and dismiss it. Returns: what QEMU said of it in the end."""
    with session.expect("JOB_STATUS_CHANGE", match={"id": JOB}) as changes:
        while (found := await job(session)) is not None and found["status"] != "concluded":
            await changes.get(timeout=timeout)
    if found is not None:
        await session.execute("job-dismiss", {"id": JOB})
    return found


async def _remove_old(machine: Machine, note: Move) -> None:
    """The new image is in use and noted everywhere: remove the old one, nodes first."""
    with contextlib.suppress(QlaunchError):
        await _drop_loose(machine, note)
    await asyncio.to_thread(files.remove, note.old)
    await asyncio.to_thread(plug_notes.save, machine, ())
    machine.log.say(f"the disk {note.disk} is at {note.new} now")


async def _undo(machine: Machine, note: Move) -> None:
    """Undo a move that did not come to its pivot: the job, the nodes, the new image. What cannot be
    done now is noted for later."""
    with contextlib.suppress(QlaunchError):
        if machine.session is not None and not machine.process.ended:
            await _end_job(machine.talk())
            if await _active_path(machine, note) == note.new:
                return  # what is noted stays, for who comes later
            await _drop_loose(machine, note)
        await asyncio.to_thread(files.remove, note.new)
        await asyncio.to_thread(plug_notes.save, machine, ())


async def _end_job(session: Session) -> None:
    """Have the job ended, whatever it did; afterwards the graph says where the disk is."""
    with contextlib.suppress(CommandError):
        await session.execute("block-job-cancel", {"device": JOB, "force": True})
    await _concluded(session, CANCEL_TIMEOUT)


async def drop_nodes(session: Session, layers: list[Layer]) -> None:
    """Take away the nodes of layers that no disk stands on."""
    for layer in layers:
        for command in graph.remove_layer(layer):
            with contextlib.suppress(CommandError):
                await session.execute(command.name, command.arguments)


async def _graph(machine: Machine) -> graph.Graph:
    return await live.read(machine.talk(), [disk.id for disk in machine.plan.disks])


async def _active_path(machine: Machine, note: Move) -> str:
    found = await _graph(machine)
    chain = found.chains.get(note.disk) or ()
    return chain[0].path if chain else ""


async def _drop_loose(machine: Machine, note: Move) -> None:
    """Remove the disk's nodes that it does not stand on, and their descriptors."""
    found, session = await _graph(machine), machine.talk()
    used = {
        name
        for layer in found.chains.get(note.disk, ())
        for name in (layer.node, layer.file_node, note.disk)
    }
    loose = [name for name in found.nodes if plug.is_node_of(note.disk, name) and name not in used]
    for name in sorted(loose, key=lambda name: name.endswith("-file")):  # what is on top first
        await session.execute("blockdev-del", {"node-name": name})
        if (number := found.fdsets.get(name)) is not None and name.endswith("-file"):
            await live.take_back(session, number)


async def recover(machine: Machine) -> None:
    """Finish or undo a move in which a supervisor was cut off. Raises: QlaunchError."""
    note = await asyncio.to_thread(plug_notes.load_move, machine)
    if note is None:
        return
    await _end_job(machine.talk())
    chain = (await _graph(machine)).chains.get(note.disk) or ()
    if chain and chain[0].path == note.new:
        profile = load(machine.plan.profile, name=machine.name)
        await asyncio.to_thread(sync, note.new)
        said = any(disk.id == note.disk for disk in profile.disk)
        await _commit(machine, note, chain[0], said=said)
        await _go_on(machine, note)
        await _remove_old(machine, note)
        return
    # QEMU 7.2 closes no descriptors while the guest is stopped.
    await _go_on(machine, note)
    await _undo(machine, note)
    machine.log.say(f"a move of {note.disk} that was cut off is taken back")


async def _go_on(machine: Machine, note: Move) -> None:
    if note.resume and await machine.run_state() == "paused":
        await machine.talk().execute("cont")
