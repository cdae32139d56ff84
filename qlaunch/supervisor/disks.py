"""The verbs of disks: plugging in and taking out while the machine runs, resizing, moving."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from qlaunch.aio import finish
from qlaunch.argv import plug as words
from qlaunch.errors import QlaunchError, RefusedError, UsageError
from qlaunch.host.images import create_image
from qlaunch.machine import letting_go, move, move_live, plug, plug_texts, resize
from qlaunch.machine.bench import Bench, telling
from qlaunch.machine.machine import ensure_folder
from qlaunch.machine.plug_plan import Planned, Wish, plan_plug
from qlaunch.machine.snapshot import check_phase
from qlaunch.plan.model import Creation, Disk
from qlaunch.profile.load import load
from qlaunch.store import files, machines, paths
from qlaunch.supervisor import unplugging
from qlaunch.supervisor.benches import bench_of, live_bench
from qlaunch.supervisor.request import Request
from qlaunch.supervisor.snapshots import until_merged
from qlaunch.units import MAX_SIZE, format_size, short_size

# ---- plugging in --------------------------------------------------------------------------------


async def attach(request: Request) -> Any:
    begun = time.monotonic()
    wish, persist = _wish(request), request.flag("persist")
    name = paths.check_name(request.text("name"))
    actor = await request.actor()
    await unplugging.wait(actor)
    await until_merged(request, name)
    async with live_bench(actor, "plugging", request.tell) as bench:
        check_phase(bench)
        planned = await plan_plug(bench, wish)
        disk, profile = planned.plug.disk, bench.plan.profile
        change = plug_texts.put(disk.id, planned.values)
        write = persist and not planned.is_said
        if write:
            plug_texts.check_writable(profile)
            plug_texts.changed(plug_texts.text_of(profile), profile, name, change)
        made = await _create(request, bench, disk.create)
        warnings = list(planned.warnings)
        try:
            await finish(asyncio.to_thread(machines.save_leases, name, planned.leases))
            problem = await plug.attach(bench, planned.plug)
        except BaseException:
            if made:
                files.remove(made)
            raise
        warnings += [f"it is plugged in, but: {problem}"] if problem else []
        if write:
            try:
                await finish(asyncio.to_thread(plug_texts.change, profile, name, change))
            except QlaunchError as error:
                warnings.append(f"it is plugged in for this run only: {error.message}")
                write = False
    return {
        "name": name,
        "disk": disk.id,
        "bus": disk.bus,
        "path": disk.layers[0].path,
        "address": _address(planned),
        "created": made is not None,
        "persistent": write or planned.is_said,
        "warnings": warnings,
        "seconds": round(time.monotonic() - begun, 3),
    }


def _wish(request: Request) -> Wish:
    file, backing = request.optional_text("file"), request.optional_text("backing")
    for path in (file, backing):
        if path is not None and not os.path.isabs(path):
            raise UsageError(f"the path is not absolute: {path}")
    bus, form = request.optional_text("bus"), request.optional_text("format")
    if bus not in (None, "ide", "sata", *words.HOT):
        raise UsageError(f"there is no bus {bus!r}", hint=f"there are {', '.join(words.HOT)}")
    if form not in (None, "raw", "qcow2"):
        raise UsageError(f"the format {form!r} cannot run", hint="raw or qcow2")
    return Wish(
        file=file,
        ident=request.optional_text("id"),
        bus=bus,
        size=_size(request),
        format=form,
        backing=backing,
        serial=request.optional_text("serial"),
        read_only=request.flag("read_only"),
        stick=request.flag("stick"),
    )


def _size(request: Request) -> int | None:
    size = request.args.get("size")
    if size is not None and (type(size) is not int or not 0 < size <= MAX_SIZE):
        raise UsageError("'size' is not a number of bytes")
    return size


async def _create(request: Request, bench: Bench, creation: Creation | None) -> str | None:
    """Make the image if there is none. Returns: its path when it was made."""
    if creation is None:
        return None
    begun = time.monotonic()
    if os.path.dirname(creation.path) == bench.plan.places.data:
        ensure_folder(bench.plan.places.data)
    await create_image(
        creation.path,
        image_format=creation.format,
        size=creation.size,
        backing=creation.backing,
        backing_format=creation.backing_format,
        template=creation.template,
        template_format=creation.template_format,
    )
    size = f", {short_size(creation.size)}" if creation.size else ""
    text = f"made {os.path.basename(creation.path)}{size}, {creation.format}"
    request.tell("disk", text, time.monotonic() - begun)
    bench.step("attach: created")
    return creation.path


def _address(planned: Planned) -> str:
    device = planned.plug.adapter or planned.plug.disk.device
    return planned.leases.places.get(device.id, "")


# ---- taking out ---------------------------------------------------------------------------------


async def detach(request: Request) -> Any:
    begun = time.monotonic()
    timeout = request.seconds("timeout")
    name, persist = paths.check_name(request.text("name")), request.flag("persist")
    actor = await request.actor()
    await unplugging.wait(actor)
    await until_merged(request, name)
    async with live_bench(actor, "plugging", request.tell) as bench:
        check_phase(bench)
        disk, profile = bench.disk(request.text("disk")), bench.plan.profile
        _check_detachable(bench, disk, force=request.flag("force"))
        said = _is_said(profile, name, disk.id)
        drop = plug_texts.drop(disk.id, profile)
        if persist and said:
            plug_texts.check_writable(profile)
            plug_texts.changed(plug_texts.text_of(profile), profile, name, drop)
        limit = letting_go.DETACH_TIMEOUT if timeout is None else timeout
        await plug.detach(bench, disk, timeout=limit)
        warnings = []
        if persist and said:
            try:
                await finish(asyncio.to_thread(plug_texts.change, profile, name, drop))
                said = False
            except QlaunchError as error:
                warnings.append(f"it is detached, but still in the profile: {error.message}")
        timeline = bench.timeline
    kept = [each.label for each in timeline.snapshots if disk.id in each.layers]
    return {
        "name": name,
        "disk": disk.id,
        "path": disk.layers[0].path,
        "in_profile": said,
        "snapshots": kept,
        "warnings": warnings,
        "seconds": round(time.monotonic() - begun, 3),
    }


def _check_detachable(bench: Bench, disk: Disk, *, force: bool) -> None:
    """Raises: RefusedError."""
    if disk.bus not in words.HOT:
        raise RefusedError(
            f"{bench.name}: the bus {disk.bus} does not support hot-plug",
            hint=f"take {disk.id} out of the profile (`qlaunch edit {bench.name}`) and restart",
        )
    turns = {each.id: each.device.props.get("bootindex") for each in bench.plan.disks}
    first = min(
        (each for each in bench.plan.disks if turns[each.id] is not None),
        key=lambda each: int(str(turns[each.id])),
        default=None,
    )
    if disk is first and not force:
        raise RefusedError(
            f"{bench.name}: {disk.id} is the disk that it starts from; a guest that runs from it"
            " breaks without it",
            hint="--force if it does not",
        )


def _is_said(profile: str, name: str, ident: str) -> bool:
    """Whether the disk is in the machine's profile, as far as that can be read."""
    try:
        return any(disk.id == ident for disk in load(profile, name=name).disk)
    except QlaunchError:
        return False


# ---- resizing -----------------------------------------------------------------------------------


async def resize_disk(request: Request) -> Any:
    begun = time.monotonic()
    size, more, persist = _size(request), request.flag("more"), request.flag("persist")
    if size is None:
        raise UsageError("how large?", hint="30GiB, or +10GiB for that much more")
    name = paths.check_name(request.text("name"))
    await until_merged(request, name)
    async with bench_of(request.server, name, "changing", request.tell) as bench:
        disk = bench.disk(request.text("disk"))
        if disk.create is not None and not bench.is_live:
            raise RefusedError(
                f"{name}: its disk {disk.id} has not been made yet",
                hint=f"change `size` in its profile: `qlaunch edit {name}`",
            )
        live, path = bench.is_live, bench.active(disk).path
        done = await resize.resize(bench, disk, size, more=more)
        warnings = list(done.warnings)
        said, note = await _said_size(bench.plan.profile, name, disk.id, done.after, persist)
        warnings += [note] if note else []
    return {
        "name": name,
        "disk": disk.id,
        "path": path,
        "before": done.before,
        "after": done.after,
        "live": live,
        "profile_size": said,
        "warnings": warnings,
        "seconds": round(time.monotonic() - begun, 3),
    }


async def _said_size(
    profile: str, name: str, ident: str, size: int, persist: bool
) -> tuple[int | None, str | None]:
    """The size that the profile says in the end, and what is to be known of it."""
    try:
        said = next((disk.size for disk in load(profile, name=name).disk if disk.id == ident), None)
    except QlaunchError as error:
        return None, error.message
    if said in (None, size):
        return said, None
    if not persist:
        return said, (
            f"its profile says size = {format_size(said or 0)}, which counts only when a disk is"
            " made; --persist corrects it"
        )
    change = plug_texts.put(ident, {"size": format_size(size)})
    try:
        await finish(asyncio.to_thread(plug_texts.change, profile, name, change))
    except QlaunchError as error:
        return said, f"its profile still says size = {format_size(said or 0)}: {error.message}"
    return size, None


# ---- moving -------------------------------------------------------------------------------------


async def move_disk(request: Request) -> Any:
    begun = time.monotonic()
    target, speed = request.text("target"), request.args.get("speed") or 0
    if not os.path.isabs(target):
        raise UsageError(f"the path is not absolute: {target}")
    if type(speed) is not int or speed < 0:
        raise UsageError("the speed is a number of bytes a second")
    name = paths.check_name(request.text("name"))
    await until_merged(request, name)
    async with bench_of(request.server, name, "changing", request.tell) as bench:
        disk = bench.disk(request.text("disk"))
        new = move.target_of(disk, target)
        await asyncio.to_thread(move.check, bench, disk, new)
        progress = telling(request.tell, "move")
        live = bench.is_live
        if live:
            moved = await move_live.move_live(bench, disk, new, progress, speed=speed)
        else:
            moved = await move.move_stopped(bench, disk, new, progress)
    return {
        "name": name,
        "disk": disk.id,
        "old": moved.old,
        "new": moved.new,
        "live": live,
        "stopped": moved.stopped,
        "warnings": list(moved.warnings),
        "seconds": round(time.monotonic() - begun, 3),
    }
