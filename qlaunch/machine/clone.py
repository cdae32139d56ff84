"""Makes an independent copy of a machine under another name.

Everything is made in a hidden folder beside the machines; only what is complete gets its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator

from attrs import evolve, frozen

from qlaunch.argv.keyval import keyval
from qlaunch.errors import BusyError, HostError, NotFoundError, RefusedError, UsageError
from qlaunch.host.access import free_space, mount_point
from qlaunch.host.image_create import CONVERT_TIMEOUT
from qlaunch.host.image_facts import image_contents
from qlaunch.host.image_rights import rights
from qlaunch.host.qcow2_write import create_overlay
from qlaunch.host.tool import failure, run_tool
from qlaunch.machine import names, texts
from qlaunch.machine.chains import layers_at, node_of
from qlaunch.machine.files import Definition, walk
from qlaunch.machine.held import definitions, held
from qlaunch.machine.prepare import Prepared, prepare
from qlaunch.machine.steps import step
from qlaunch.plan.model import Layer, Leases
from qlaunch.store import files, machines, paths, timeline

Progress = Callable[[str, float], None]


@frozen(kw_only=True)
class Copy:
    """One image to be copied: its layers, active one first, the name and the format of the copy.
    One that is `linked` is not copied: the new image stands on the layers. With `tag` the internal
    snapshot of that name is copied out of the active layer."""

    ident: str
    layers: tuple[Layer, ...]
    name: str
    format: str
    linked: bool = False
    tag: str | None = None


@frozen(kw_only=True)
class Cloned:
    """The new profile and what lies in the new machine's folder."""

    profile: str
    files: tuple[str, ...]


async def clone(
    machine: Definition,
    new: str,
    progress: Progress | None = None,
    *,
    snapshot: str | None = None,
    linked: bool = False,
) -> Cloned:
    """Copy `machine` as `new`: profile with comments, disks, UEFI variables, TPM.

    The copy has a UUID and MAC addresses of its own, but the same hardware at the same places. Its
    disks are those of `snapshot`, else those of now; they stand on nothing, or with `linked` on the
    snapshot's layers, which stay as long as the copy is there. Snapshots are not copied. `progress`
    hears the id of an image and how many percent of it are done.

    Raises: PhaseError while it runs (a snapshot can be copied all the same), NotFoundError,
    UsageError, ConflictError when the name is taken, ProfileError, HostError (a full disk); then,
    and when it is cancelled, nothing of the copy is left.
    """
    if machine.file is None or machine.problem is not None:
        raise machine.problem or HostError(f"{machine.name} has no profile")
    if linked and snapshot is None:
        raise UsageError(
            "a linked copy stands on a snapshot: --snapshot NAME",
            hint=f"`qlaunch snapshot create {machine.name}` makes one",
        )
    with contextlib.ExitStack() as stack:
        if snapshot is None:
            stack.enter_context(held(machine.name, to="clone"))
        with definitions():
            names.check_free(new)
        prepared = await prepare(machine.file)
        if snapshot is None:
            _check_disks(prepared)
            copies = _copies(prepared, linked=linked)
        else:
            prepared, tag = _at_snapshot(prepared, snapshot, linked=linked)
            copies = [
                copy if copy.ident == "nvram" else evolve(copy, tag=tag)
                for copy in _copies(prepared, linked=linked)
            ]
        text = _text(machine, new, prepared, copies)
        with _staging(new) as folder:
            for copy in copies:
                target = os.path.join(folder, copy.name)
                if copy.linked:
                    await asyncio.to_thread(_link, copy, target)
                else:
                    await _convert(copy, target, progress)
            await asyncio.to_thread(_copy_tpm, os.path.join(machine.data, "tpm"), folder)
            files.sync_dir(folder)
            step("clone: copied")
            with definitions():
                names.check_free(new)
                _publish(machine, new, folder, text)
    return Cloned(profile=names.profile_of(new), files=tuple(walk(paths.machine_data(new))))


def _at_snapshot(prepared: Prepared, word: str, *, linked: bool) -> tuple[Prepared, str | None]:
    """`prepared` with the disks as they were, and the tag when they are inside the images.

    Raises: NotFoundError, RefusedError.
    """
    name = prepared.plan.name
    kept = timeline.load(name)
    snapshot = kept.find(word)
    if snapshot is None:
        raise NotFoundError(
            f"{name} has no snapshot {word!r}", hint=f"`qlaunch snapshot list {name}` shows them"
        )
    disks = tuple(
        evolve(disk, create=None, layers=layers_at(disk, snapshot.layers[disk.id], kept))
        for disk in prepared.plan.disks
        if disk.id in snapshot.layers
    )
    if linked and snapshot.kind == "internal":
        raise RefusedError(
            f"{name}: {snapshot.label} is inside an image, and nothing can stand on it there",
            hint="without --linked it is copied",
        )
    plan = evolve(prepared.plan, disks=disks)
    return evolve(prepared, resolution=evolve(prepared.resolution, plan=plan)), snapshot.tag


def _link(copy: Copy, target: str) -> None:
    base = copy.layers[0]
    facts = image_contents(base.path)
    size = facts.file_size if base.format == "raw" else facts.virtual_size
    create_overlay(target, size=size or 0, backing=base.path, backing_format=base.format)


def _check_disks(prepared: Prepared) -> None:
    """Raise what keeps a disk from being read; a missing ISO is no reason not to copy the rest."""
    disks = tuple(
        finding
        for finding in prepared.resolution.findings
        if finding.where.rpartition(": ")[2].startswith(("disk.", "machine.nvram"))
    )
    evolve(prepared.resolution, findings=disks).raise_errors()


def _copies(prepared: Prepared, *, linked: bool) -> list[Copy]:
    """What is to be copied: every image that exists, but for read-only ones that lie elsewhere."""
    plan, found = prepared.plan, []
    wished = {disk.id: disk.format or "qcow2" for disk in prepared.profile.disk}
    for disk in plan.disks:
        if disk.create is None and not _shared(disk.layers[0], plan.places.data):
            # A raw disk with snapshots is on a qcow2 layer; its copy is what the profile says.
            form = "qcow2" if linked else wished[disk.id]
            found.append(
                Copy(
                    ident=disk.id,
                    layers=disk.layers,
                    name=f"{disk.id}.{form}",
                    format=form,
                    linked=linked,
                )
            )
    if plan.firmware and not plan.firmware.create:
        top = plan.firmware.vars
        name = "nvram.qcow2" if top.format == "qcow2" else "nvram.fd"
        found.append(Copy(ident="nvram", layers=(top,), name=name, format=top.format))
    return found


def _shared(layer: Layer, data: str) -> bool:
    return layer.read_only and not layer.path.startswith(data + "/")


def _text(machine: Definition, new: str, prepared: Prepared, copies: list[Copy]) -> str:
    profile, plan = prepared.profile, prepared.plan
    data = paths.machine_data(new)
    wished = {disk.id: disk for disk in profile.disk}
    made = {copy.ident: copy for copy in copies if copy.ident in wished}
    said = {
        ident: {"path": os.path.join(data, copy.name)}
        for ident, copy in made.items()
        if wished[ident].path or copy.linked
    }
    for ident, copy in made.items():
        if copy.linked:
            said[ident] |= {"format": "qcow2", "backing": copy.layers[0].path}
    nvram = None
    if profile.machine.nvram and plan.firmware:
        suffix = "qcow2" if plan.firmware.vars.format == "qcow2" else "fd"
        nvram = os.path.join(data, f"nvram.{suffix}")
    assert machine.file is not None
    target = names.profile_of(new)
    return texts.cloned(machine.file, target, new=new, disks=said, nvram=nvram)


@contextlib.contextmanager
def _staging(new: str) -> Iterator[str]:
    """An empty hidden folder in which the copy is made; gone afterwards unless it got its name.

    Raises: BusyError when somebody else makes the same copy.
    """
    parent = os.path.dirname(paths.machine_data(new))
    folder = os.path.join(parent, f".{new}.cloning")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise HostError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino != os.lstat(folder).st_ino:
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            raise BusyError(f"a clone called {new} is being made just now") from None
        _empty(folder)
        with open(os.path.join(folder, names.UNFINISHED), "xb"):
            pass
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _empty(folder: str) -> None:
    """Remove what one that was killed has left."""
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


async def _convert(copy: Copy, target: str, progress: Progress | None) -> None:
    def heard(data: bytes) -> None:
        words = data.replace(b"\r", b"\n").split()
        if progress and (marks := [word for word in words if word.startswith(b"(")]):
            with contextlib.suppress(ValueError):
                progress(copy.ident, float(marks[-1][1:].split(b"/")[0]))

    form = copy.format
    extra = ",lazy_refcounts=off" if form == "qcow2" else ""
    options: tuple[str, ...] = ("-p", "-O", form, "-o", f"preallocation=off{extra}")
    # The whole chain is told, with its formats: no name in a header is followed.
    source = "json:" + json.dumps(node_of(copy.layers))
    if copy.tag is not None:
        options += ("-U", "-l", keyval(None, [("snapshot.name", copy.tag)]))
    command = ("qemu-img", "convert", *options, "--", source, target)
    mine = rights(
        "qemu-img",
        read=[layer.path for layer in copy.layers],
        write=[target],
        make_in=os.path.dirname(target),
    )
    output = await run_tool(command, timeout=CONVERT_TIMEOUT, on_output=heard, confinement=mine)
    if output.status != 0:
        if os.strerror(errno.ENOSPC) in output.stderr:
            raise _full(target)
        raise failure(f"{copy.layers[0].path} cannot be copied", output)
    await asyncio.to_thread(_sync, target)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fchmod(handle, 0o600)
        os.fsync(handle)
    except OSError as error:
        raise _full(path) if error.errno == errno.ENOSPC else error from error
    finally:
        os.close(handle)


def _full(path: str) -> HostError:
    folder = os.path.dirname(path)
    return HostError(
        f"the copy does not fit: the file system {mount_point(folder)} is full "
        f"({(free_space(folder) or 0) >> 20} MiB left)",
        hint="free some space there; nothing of the copy was kept",
    )


def _copy_tpm(tpm: str, folder: str) -> None:
    if not os.path.isdir(tpm) or os.path.islink(tpm):
        return
    for path in walk(tpm):
        if stat.S_ISREG(os.lstat(path).st_mode):
            target = os.path.join(folder, "tpm", os.path.relpath(path, tpm))
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            shutil.copyfile(path, target, follow_symlinks=False)
            _sync(target)
            files.sync_dir(os.path.dirname(target))


def _publish(machine: Definition, new: str, folder: str, text: str) -> None:
    """Give the copy its name: the folder, what the guest is used to, and last the profile."""
    data = paths.machine_data(new)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(data)
    os.rename(folder, data)
    try:
        files.sync_dir(os.path.dirname(data))
        step("clone: renamed")
        # The same board and places, so that the guest finds what it has drivers for; its `once`
        # has been used up too, or its installer would start again.
        leases: Leases = evolve(machines.load_leases(machine.name), macs={}, uuid=None)
        machines.save_leases(new, leases)
        step("clone: leases")
        texts.write_new(names.profile_of(new), text)
        step("clone: profile")
    except BaseException:
        shutil.rmtree(paths.machine_state(new), ignore_errors=True)
        os.rename(data, folder)
        raise
    names.complete(new)
