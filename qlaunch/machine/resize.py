"""Making a disk larger, while its machine runs or not. Never smaller: that would cut off what the
guest has at the end."""

from __future__ import annotations

import asyncio
import os
import stat

from attrs import frozen

from qlaunch.aio import finish
from qlaunch.argv import plug
from qlaunch.errors import HostError, PhaseError, RefusedError, UsageError
from qlaunch.host.image_facts import image_contents, image_facts
from qlaunch.host.image_rights import rights
from qlaunch.host.newfile import FULL, write_error
from qlaunch.host.tool import run_tool
from qlaunch.machine.bench import Bench, virtual_size
from qlaunch.machine.snapshot import check_phase
from qlaunch.plan.model import Disk, Layer
from qlaunch.units import MAX_SIZE, format_size, short_size

RESIZE_TIMEOUT = 120.0
_SECTOR = 512


@frozen(kw_only=True)
class Resized:
    """A disk's size before and after, in bytes, and what the user should know."""

    before: int
    after: int
    warnings: tuple[str, ...] = ()


async def resize(bench: Bench, disk: Disk, size: int, *, more: bool) -> Resized:
    """Make `disk` `size` bytes large, or with `more` that much larger. Layers below stay as they
    are: going back to a snapshot brings the old size back.

    Raises: RefusedError, PhaseError, UsageError, HostError, CommandError.
    """
    check_phase(bench)
    layer = bench.active(disk)
    _check(bench, disk, layer)
    before = await asyncio.to_thread(virtual_size, layer)
    after = wanted(before, size, more=more)
    if after < before:
        raise RefusedError(
            f"{bench.name}: {disk.id} has {format_size(before)} already; a disk only grows",
            hint=f"`qlaunch disk resize {bench.name} {disk.id} +1GiB` adds to it",
        )
    if after > before:
        bench.step("resize: begun")
        if bench.is_live:
            command = plug.resize(disk.id, after)
            await finish(bench.session.execute(command.name, command.arguments))
        else:
            await finish(_offline(bench, layer, after))
        bench.step("resize: done")
    return Resized(before=before, after=after, warnings=tuple(_room(layer, after)))


def wanted(before: int, size: int, *, more: bool) -> int:
    """The new size: whole sectors. Raises: UsageError."""
    after = before + size if more else size
    after = -(-after // _SECTOR) * _SECTOR
    if after > MAX_SIZE:
        raise UsageError(f"{format_size(after)} is larger than any disk can be")
    return after


def _check(bench: Bench, disk: Disk, layer: Layer) -> None:
    if layer.read_only:
        raise RefusedError(f"{bench.name}: the disk {disk.id} is read-only")
    try:
        mode = os.stat(layer.path).st_mode
    except OSError as error:
        raise HostError(f"{layer.path}: {error.strerror}") from error
    if stat.S_ISBLK(mode):
        raise RefusedError(
            f"{bench.name}: {layer.path} is a device, not a file",
            hint="make the device larger; the disk has its size from the next start on",
        )


async def _offline(bench: Bench, layer: Layer, size: int) -> None:
    facts = image_facts(layer.path, want_write=True)
    if facts.holder:
        raise PhaseError(f"{layer.path} is in use by {facts.holder}")
    command = (bench.qemu_img, "resize", "-q", "-f", layer.format, "--", layer.path, str(size))
    below = [layer.path] if layer.format == "qcow2" else []
    mine = rights(bench.qemu_img, write=[layer.path], below=below)
    output = await run_tool(command, timeout=RESIZE_TIMEOUT, confinement=mine)
    if output.status:
        for number in FULL:
            if os.strerror(number) in output.stderr:
                raise write_error(layer.path, OSError(number, os.strerror(number)))
        words = output.last_words.removeprefix("qemu-img: ")
        raise HostError(f"{layer.path} cannot be resized: {words or output.status}")
    handle = os.open(layer.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await asyncio.to_thread(os.fsync, handle)
    finally:
        os.close(handle)


def _room(layer: Layer, size: int) -> list[str]:
    """A warning where the file system cannot hold all that the guest may write."""
    facts = image_contents(layer.path)
    free, used = facts.free_space or 0, facts.allocated or 0
    if size - used <= free:
        return []
    return [
        f"the file system of {layer.path} has {short_size(free)} free: a guest that fills the disk"
        " is stopped there until there is room"
    ]
