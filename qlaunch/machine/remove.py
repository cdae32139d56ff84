"""Removes a machine: first decided file by file, then done in an order that can be repeated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from attrs import evolve, frozen

from qlaunch.errors import ConflictError, HostError
from qlaunch.host.image_facts import image_facts
from qlaunch.machine.files import Definition, Entry, inventory, is_outside, needed
from qlaunch.store import files, paths


@frozen(kw_only=True)
class Removal:
    """What goes, in order, and what stays, each with its reason."""

    machine: Definition
    remove: tuple[Entry, ...]
    keep: tuple[Entry, ...]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.remove)


def plan_removal(machine: Definition, *, keep_disks: bool, all_disks: bool) -> Removal:
    """Decide about every file of `machine`. Nothing is touched.

    Raises: ConflictError when another profile builds on this one or a process has a disk open.
    """
    stays = {}
    for entry in (entries := inventory(machine)):
        if entry.kind == "profile":
            stays[entry.path] = _kept_profile(entry.path)
        elif entry.kind != "state" and keep_disks:
            stays[entry.path] = "--keep-disks"
        elif is_outside(machine, entry) and not all_disks:
            stays[entry.path] = "it lies outside the machine's own folder: --all-disks removes it"
        stays[entry.path] = stays.get(entry.path) or entry.keep
    also = [path for path, reason in stays.items() if reason]
    files = [entry.path for entry in entries if entry.kind != "state" and not stays[entry.path]]
    reasons = needed(machine, files, also)
    if machine.file in reasons:
        raise ConflictError(
            f"{machine.file} cannot be removed: {reasons[machine.file]}",
            hint="take it out of `extends` there first",
        )
    _refuse_open([path for path in files if path not in reasons])
    decided = [
        evolve(entry, keep=stays[entry.path] or reasons.get(entry.path)) for entry in entries
    ]
    return Removal(
        machine=machine,
        remove=tuple(entry for entry in decided if not entry.keep),
        keep=tuple(entry for entry in decided if entry.keep),
    )


def _refuse_open(paths_to_go: list[str]) -> None:
    """Nothing, when no QEMU has one of the images open, whoever started it."""
    for path in paths_to_go:
        holder = image_facts(path, want_write=True).holder
        if holder is not None:
            raise ConflictError(f"{path} is in use by {holder}", hint="stop that process first")


def _kept_profile(path: str) -> str | None:
    if os.path.dirname(os.path.abspath(path)) == paths.shipped_profiles():
        return "it came with qlaunch"
    if not os.access(os.path.dirname(path), os.W_OK):
        return "it belongs to the administrator of this computer"
    return None


def remove(removal: Removal, done: Callable[[Entry], None] | None = None) -> None:
    """Remove what `removal` says. The machine must be held.

    Disks go first and the profile last: after a kill the same command finds the rest. The lock is
    given up at the very end.

    Raises: HostError at the first file that cannot be removed.
    """
    machine = removal.machine
    lock = os.path.join(machine.state, "lock")
    for entry in removal.remove:
        if entry.path == lock:
            continue
        root = next(
            (top for top in (machine.data, machine.state) if entry.path.startswith(top + "/")), ""
        )
        try:
            unlink_below(root, entry.path)
        except OSError as error:
            raise HostError(
                f"{entry.path} cannot be removed: {error.strerror}",
                hint="what was removed before it is gone; the same command goes on from here",
            ) from error
        if done:
            done(entry)
    _remove_folders(machine.data)
    _remove_folders(machine.state, but=lock)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(lock)
    with contextlib.suppress(OSError):
        os.rmdir(machine.state)
        files.sync_dir(os.path.dirname(machine.state))


def unlink_below(root: str, path: str) -> None:
    """Unlink `path`, passing through no link between `root` and it; it may be gone already."""
    top = root or os.path.dirname(path)
    *folders, name = os.path.relpath(path, top).split("/")
    with contextlib.ExitStack() as stack:
        try:
            handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, handle)
            for folder in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
                handle = os.open(folder, flags, dir_fd=handle)
                stack.callback(os.close, handle)
            os.unlink(name, dir_fd=handle)
            os.fsync(handle)
        except FileNotFoundError:
            return


def _remove_folders(root: str, *, but: str = "") -> None:
    """Remove the empty folders from `root` down; one that still holds something stays."""
    if os.path.islink(root) or not os.path.isdir(root):
        return
    for folder, _folders, _names in os.walk(root, topdown=False, followlinks=False):
        if os.path.dirname(but) != folder:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    with contextlib.suppress(OSError):
        files.sync_dir(os.path.dirname(root))
