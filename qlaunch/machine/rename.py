"""Gives a machine another name.

The profile first becomes a hidden note that holds both names; from then on neither name can be
started, and the same command goes on from wherever it was killed. The new profile comes last.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat

from qlaunch.aio import finish
from qlaunch.errors import ConflictError, HostError, NotFoundError, RefusedError
from qlaunch.host.image_rights import rights
from qlaunch.host.qcow2 import ImageError, ImageHeader, backing_path, read_header
from qlaunch.host.tool import failure, run_tool
from qlaunch.machine import names, texts
from qlaunch.machine.files import Definition, definition, inventory, is_outside, needed, walk
from qlaunch.machine.held import definitions, held
from qlaunch.profile.load import loads
from qlaunch.store import files, paths, timeline
from qlaunch.tree.drift import unmarked

REBASE_TIMEOUT = 60.0


async def rename(old: str, new: str) -> str:
    """Rename the user's own profile `old`, with the folders of its machine; returns the new file.

    Raises: NotFoundError, UsageError, ProfileError when the profile is broken, RefusedError when
    it is not the user's, PhaseError while it runs, ConflictError when the name is taken or
    something else needs a file where it is.
    """
    paths.check_name(new)
    half = names.interrupted_renames().get(old)
    if half is not None and half != new:
        raise ConflictError(
            f"renaming {old} to {half} was interrupted",
            hint=f"finish it first: qlaunch rename {old} {half}",
        )
    note = names.rename_note(old, new)
    file = note if half else _own_file(old)
    name = loads(texts.read(file), names.profile_of(old)).name or old
    with held(_state_is_at(name, new) if half else name, to="rename"), definitions():
        if not half:
            _check(definition(old, file), new)
            os.rename(file, note)
            files.sync_dir(os.path.dirname(note))
        return await finish(_go_on(name, new, note))


def _state_is_at(name: str, new: str) -> str:
    return name if os.path.lexists(paths.machine_state(name)) else new


def _own_file(old: str) -> str:
    paths.check_name(old)
    file = names.profile_of(old)
    if os.path.lexists(file):
        return file
    found = paths.profile_names().get(old)
    if found is None:
        paths.find_profile(old)
        raise NotFoundError(f"there is no profile {old!r}")
    raise RefusedError(
        f"{found} is not yours to rename", hint=f"qlaunch clone {old} NEW makes a copy of yours"
    )


def _check(machine: Definition, new: str) -> None:
    """See that the name is free and that nobody else counts on the old one."""
    names.check_free(new)
    if machine.problem is not None:
        raise machine.problem
    entries = [entry for entry in inventory(machine) if entry.kind != "state"]
    also = [entry.path for entry in entries if is_outside(machine, entry)]
    reasons = needed(machine, [entry.path for entry in entries if entry.path not in also], also)
    if reasons:
        told = "; ".join(f"{path}: {reason}" for path, reason in reasons.items())
        raise ConflictError(
            f"{machine.name} cannot be renamed, its files are needed where they are: {told}",
            hint="`qlaunch clone` makes an independent copy under another name",
        )
    for image in walk(machine.data):
        if (header := _header(image)) and header.data_file is not None:
            raise RefusedError(f"{image} keeps its data in another file: it cannot be moved")


async def _go_on(name: str, new: str, note: str) -> str:
    """All steps from the note on; each may have been done before."""
    old_data, new_data = paths.machine_data(name), paths.machine_data(new)
    _move(old_data, new_data)
    await _rebase(old_data, new_data)
    _forget_marks(new)
    _move(paths.machine_state(name), paths.machine_state(new))
    # The plan of the last start names the old folders; leases and logs hold no paths.
    files.remove(os.path.join(paths.machine_state(new), "plan.json"))
    target = names.profile_of(new)
    _write_profile(note, target, new, (old_data, new_data))
    files.remove(note)
    return target


def _forget_marks(name: str) -> None:
    """Layers have another header now, and we know why."""
    kept = timeline.load(name)
    fresh = unmarked(kept, {disk for each in kept.snapshots for disk in each.marks})
    if fresh != kept:
        timeline.save(name, fresh)


def _write_profile(note: str, target: str, new: str, data: tuple[str, str]) -> None:
    if os.path.lexists(target):
        return  # killed between this and the end of the note
    text = texts.renamed(note, new=new, old_data=data[0], new_data=data[1])
    loads(text, target)
    texts.write_new(target, text, mode=stat.S_IMODE(os.stat(note).st_mode))


def _move(old: str, new: str) -> None:
    if not os.path.lexists(old):
        return
    if set(_listed(new)) <= {"lock"}:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(new)
        try:
            os.rename(old, new)
        except OSError as error:
            raise HostError(f"{old} cannot be renamed to {new}: {error.strerror}") from error
        files.sync_dir(os.path.dirname(new))


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


async def _rebase(old_data: str, new_data: str) -> None:
    """Let images that name their backing file by its whole old path name the new one."""
    for image, below, form in _strayed(old_data, new_data):
        command = ("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", below, "-F", form, "--", image)
        mine = rights("qemu-img", write=[image])
        output = await run_tool(command, timeout=REBASE_TIMEOUT, confinement=mine)
        if output.status != 0:
            raise failure(f"{image} cannot be told where its backing file is now", output)


def _strayed(old_data: str, new_data: str) -> list[tuple[str, str, str]]:
    """The images that look for their backing file in the old folder, its new place and format."""
    found = []
    for image in walk(os.path.realpath(new_data)):
        header = _header(image)
        if header is None or header.backing is None:
            continue
        with contextlib.suppress(ImageError):
            below = backing_path(image, header.backing)
            if below.startswith(old_data + "/"):
                below = new_data + below[len(old_data) :]
                base = _header(below)
                known = header.backing_format.decode() if header.backing_format else None
                found.append((image, below, known or (base.format if base else "raw")))
    return found


def _header(image: str) -> ImageHeader | None:
    try:
        if not stat.S_ISREG(os.lstat(image).st_mode):
            return None
        handle = os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return read_header(handle, os.fstat(handle).st_size)
    except (OSError, ImageError):
        return None
    finally:
        os.close(handle)
