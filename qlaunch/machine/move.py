"""A disk's image moved to another place: what keeps it from that, and moving it while its machine
is stopped. The old image holds all there is until the new one does, and goes last."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable

from attrs import frozen

from qlaunch.aio import finish
from qlaunch.errors import (
    ConflictError,
    HostError,
    PhaseError,
    QlaunchError,
    RefusedError,
)
from qlaunch.host.image_facts import image_contents, image_facts
from qlaunch.host.image_rights import rights
from qlaunch.host.newfile import write_error
from qlaunch.host.tool import failure, run_tool
from qlaunch.machine import live, plug_notes, plug_texts
from qlaunch.machine.bench import Bench
from qlaunch.machine.claims import Claims, claimants
from qlaunch.machine.move_copy import copy_image
from qlaunch.machine.plug_plan import standing_on
from qlaunch.machine.snapshot import check_phase
from qlaunch.plan.model import Disk, Plan
from qlaunch.profile.load import load
from qlaunch.store import files

REBASE_TIMEOUT = 60.0

Progress = Callable[[int, int], None]


@frozen(kw_only=True)
class Moved:
    """A disk that was moved. `stopped` is for how long the guest stood still, in seconds."""

    old: str
    new: str
    stopped: float | None = None
    warnings: tuple[str, ...] = ()


def target_of(disk: Disk, word: str) -> str:
    """The new image, absolute: `word`, or the old name in it where that is a folder."""
    if word.endswith("/") or os.path.isdir(word):
        word = os.path.join(word, os.path.basename(disk.image))
    return os.path.normpath(word)


def check(bench: Bench, disk: Disk, new: str) -> None:
    """Raises: what keeps `disk` from being moved to `new`."""
    check_phase(bench)
    old, layer = disk.image, bench.active(disk)
    if bench.timeline.snapshots or layer.path != old:
        raise RefusedError(
            f"{bench.name} has snapshots, which name the images where they are: its disks cannot be"
            " moved",
            hint=f"`qlaunch snapshot prune {bench.name} --keep 0` merges them all away; or"
            " `qlaunch clone` copies the machine",
        )
    if layer.read_only:
        raise RefusedError(f"{bench.name}: the disk {disk.id} is read-only; move the file yourself")
    found = os.stat(old)
    if not stat.S_ISREG(found.st_mode) or os.path.islink(old):
        raise RefusedError(f"{bench.name}: {old} is no plain file")
    if not os.path.isdir(os.path.dirname(new)):
        raise HostError(
            f"the folder {os.path.dirname(new)} does not exist",
            hint=f"mkdir -p {os.path.dirname(new)}",
        )
    if new == old:
        raise ConflictError(f"{disk.id} is there already: {new}")
    if os.path.lexists(new) and not _is_leftover(bench, disk, new):
        raise ConflictError(f"{new} exists already; it is not replaced")
    claims = Claims.of(claimants(bench.name, bench.plan.profile))
    who = claims.who_names(old) or next(
        (f"{image} stands on it" for image in standing_on(old, claims.folders)), None
    )
    if who:
        raise RefusedError(f"{old} is needed where it is: {who}")


def _is_leftover(bench: Bench, disk: Disk, new: str) -> bool:
    """Whether a move of this disk that was cut off has left the file; then it is removed."""
    if not bench.is_live and os.path.samefile(disk.image, new):
        return True  # another name of the same file
    note = plug_notes.left_move(bench.name)
    if note is None or (note.disk, note.old, note.new) != (disk.id, disk.image, new):
        return False
    files.remove(new)
    return True


def is_said(bench: Bench, disk: Disk) -> bool:
    """Whether the profile has the disk: then it is changed. Raises: ProfileError, NotFoundError."""
    return any(each.id == disk.id for each in load(bench.plan.profile, name=bench.name).disk)


def say(plan: Plan, disk: str, path: str) -> None:
    """Write the disk's new path to the profile. Raises: ProfileError, HostError, ConflictError."""
    plug_texts.change(plan.profile, plan.name, plug_texts.put(disk, {"path": path}))


# ---- stopped ------------------------------------------------------------------------------------


async def move_stopped(bench: Bench, disk: Disk, new: str, progress: Progress) -> Moved:
    """Move a disk of a machine that does not run. A cancellation leaves it where it was.

    Raises: HostError, ConflictError, ProfileError; the disk is where it was then.
    """
    old = disk.image
    facts = image_facts(old, want_write=True)
    if facts.holder:
        raise PhaseError(f"{old} is in use by {facts.holder}")
    plug_texts.check_writable(bench.plan.profile)
    if not os.path.lexists(new):  # noqa: ASYNC240 -- our folders
        await _stand_absolutely(bench, disk, old)
        if os.stat(old).st_dev == os.stat(os.path.dirname(new)).st_dev:
            await asyncio.to_thread(_link, old, new)
        else:
            await copy_image(old, new, progress)
    bench.step("move: copied")
    try:
        await finish(asyncio.to_thread(say, bench.plan, disk.id, new))
    except QlaunchError:
        await finish(asyncio.to_thread(files.remove, new))
        raise
    bench.step("move: noted")
    await finish(asyncio.to_thread(files.remove, old))
    return Moved(old=old, new=new)


async def _stand_absolutely(bench: Bench, disk: Disk, path: str) -> None:
    """Have the header of an image call what it stands on by its whole path."""
    facts = image_contents(path)
    if disk.layers[0].format == "raw" or facts.backing is None or facts.backing.startswith("/"):
        return
    below = disk.layers[1]
    words = ["rebase", "-u", "-f", "qcow2", "-F", below.format, "-b", below.path, "--", path]
    output = await run_tool(
        (bench.qemu_img, *words),
        timeout=REBASE_TIMEOUT,
        confinement=rights(bench.qemu_img, write=[path]),
    )
    if output.status:
        raise failure(path, output)
    await asyncio.to_thread(sync, path)


def _link(old: str, new: str) -> None:
    """A second name for the image, on the disk. Raises: HostError."""
    try:
        os.link(old, new, follow_symlinks=False)
        files.sync_dir(os.path.dirname(new))
    except OSError as error:
        raise write_error(new, error) from error


def sync(path: str) -> None:
    """The file is on the disk when this returns. Raises: HostError."""
    handle = live.open_file(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        files.sync_dir(os.path.dirname(path))
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    finally:
        os.close(handle)
