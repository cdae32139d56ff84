"""Images looked at, checked and made smaller, while no QEMU writes to them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from typing import Any, Literal

from attrs import frozen

from qlaunch.aio import finish
from qlaunch.errors import ConflictError, HostError, NotFoundError, QlaunchError, RefusedError
from qlaunch.facts import ImageFacts
from qlaunch.facts.confinement import Confinement
from qlaunch.host.image_facts import image_facts
from qlaunch.host.image_rights import rights
from qlaunch.host.newfile import FULL, part_file, remove_stale, write_error
from qlaunch.host.tool import Output, failure, percentages, run_tool
from qlaunch.machine.plug_plan import standing_on
from qlaunch.machine.steps import step
from qlaunch.store import files

# qemu-img reads all of a large image.
CHECK_TIMEOUT = 4 * 3600.0
COMPACT_TIMEOUT = 24 * 3600.0
INFO_TIMEOUT = 60.0
_LEAKS = 3
# Bytes by which QEMU says that it lets nobody else write to an image, or resize it
# (block/file-posix.c, RAW_LOCK_SHARED_BASE).
_NOT_SHARED = (201, 203)
_FLOCK = struct.Struct("@hhqqi4x")

Format = Literal["qcow2", "raw"]
# Hears what is being done, and how far it is (0 to 100).
Progress = Callable[[str, float], None]


@frozen(kw_only=True)
class Checked:
    """What a check of one image found. `errors` can make a guest lose data; `leaks` are only space
    that nobody uses. `skipped` says why there was no check."""

    path: str
    errors: int = 0
    leaks: int = 0
    repaired: int = 0
    skipped: str = ""

    @property
    def is_good(self) -> bool:
        return self.errors == 0


@frozen(kw_only=True)
class Compacted:
    """The bytes that an image takes of the file system, before and after."""

    path: str
    before: int
    after: int


def qemu_img() -> str:
    """Raises: HostError."""
    found = shutil.which("qemu-img")
    if found is None:
        raise HostError("qemu-img is missing", hint="sudo apt install qemu-utils")
    return found


def look(path: str, *, write: bool) -> ImageFacts:
    """The facts of an image that must be there and be sound enough to be worked on.

    Raises: NotFoundError, HostError, RefusedError, ConflictError when a QEMU has it open.
    """
    facts = image_facts(path, want_write=write)
    if not facts.exists and not facts.problem:
        raise NotFoundError(f"there is no image {path}")
    if facts.problem:
        raise HostError(f"{path}: {facts.problem}", hint=facts.hint)
    if facts.format not in ("qcow2", "raw"):
        raise RefusedError(f"{path} is a {facts.format} image; only qcow2 and raw are known here")
    if facts.holder:
        first = (
            "stop that machine first" if "machine" in facts.holder else "wait until it has ended"
        )
        raise ConflictError(f"{path} is in use by {facts.holder}", hint=first)
    return facts


# ---- checking -----------------------------------------------------------------------------------


async def check(path: str, form: Format, *, repair: bool = False) -> Checked:
    """Check the metadata of an image; with `repair`, mend what is found.

    One that QEMU only reads can be checked, one that it writes to cannot: QEMU has newer metadata
    in its memory.

    Raises: NotFoundError, HostError, ConflictError, TimedOutError.
    """
    look(path, write=repair)
    if form == "raw":
        return Checked(path=path, skipped="a raw image has no metadata that could be wrong")
    found = await _check(path)
    if not repair or not (found.errors or found.leaks):
        return found
    what = "all" if found.errors else "leaks"
    after = await _check(path, "-r", what)
    return Checked(
        path=path,
        errors=after.errors,
        leaks=after.leaks,
        repaired=found.errors + found.leaks - after.errors - after.leaks,
    )


async def _check(path: str, *words: str) -> Checked:
    shared = () if words else ("-U",)
    command = (qemu_img(), "check", "-f", "qcow2", *shared, "--output=json", *words, "--", path)
    mine = rights(qemu_img(), write=[path] if words else [], below=[path])
    output = await run_tool(command, timeout=CHECK_TIMEOUT, confinement=mine)
    try:
        plain = json.loads(output.stdout)
    except ValueError:
        raise failure(f"{path} cannot be checked", output) from None
    if output.status not in (0, 2, _LEAKS):
        raise failure(f"{path} cannot be checked", output)
    return Checked(
        path=path,
        errors=int(plain.get("corruptions", 0)) + int(plain.get("check-errors", 0)),
        leaks=int(plain.get("leaks", 0)),
    )


# ---- making smaller -----------------------------------------------------------------------------


async def compact(path: str, form: Format, progress: Progress) -> Compacted:
    """Write an image anew without what nobody uses, compare the two, and put the new one in its
    place. Until then nothing has changed, and a cancellation leaves nothing behind.

    Raises: NotFoundError, RefusedError, ConflictError, HostError, TimedOutError.
    """
    path = os.path.realpath(path)  # noqa: ASYNC240 -- a link's target is what is replaced
    facts = look(path, write=True)
    _check_compactable(facts, form)
    with _kept_from_writers(path):
        options = await _options(path, form)
        remove_stale(path)
        with part_file(path) as (part, fd):
            await _convert(facts, form, part, options, progress)
            await _compare(path, part, form, progress)
            before, after = facts.allocated or 0, os.fstat(fd).st_blocks * 512
            step("compact: compared")
            if after < before:
                await finish(asyncio.to_thread(_replace, fd, part, path))
                step("compact: replaced")
    return Compacted(path=path, before=before, after=min(before, after))


def _check_compactable(facts: ImageFacts, form: Format) -> None:
    path = facts.path
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError(f"{path} is a device, not a file")
    if found.st_nlink > 1:
        raise RefusedError(f"{path} has another name (a hard link), which would stay as it is")
    above = standing_on(path, ())
    if above:
        raise RefusedError(
            f"{path} is the backing file of {above[0]}, so it must stay as it is",
            hint=f"compact the image on top: qlaunch disk compact {above[0]}",
        )
    if form == "raw":
        return
    if facts.format != "qcow2":
        raise RefusedError(f"{path} is no qcow2 image")
    if facts.internal_snapshots:
        raise RefusedError(
            f"{path} has {facts.internal_snapshots} internal snapshots, which would be lost",
            hint=f"qemu-img snapshot -l {path} lists them",
        )
    if facts.corrupt or facts.encrypted or facts.data_file:
        what = "marked corrupt" if facts.corrupt else "encrypted" if facts.encrypted else "split"
        raise RefusedError(f"{path} is {what}", hint=f"qlaunch disk check {path}")


@contextlib.contextmanager
def _kept_from_writers(path: str) -> Iterator[None]:
    """No QEMU can write to the image for the body: it finds QEMU's own locks there."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for byte in _NOT_SHARED:
            lock = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.fcntl(handle, fcntl.F_OFD_SETLK, lock)
        look(path, write=False)  # nobody was quicker
        yield
    finally:
        os.close(handle)


async def _options(path: str, form: Format) -> list[str]:
    """What the new image is to have as the old one has it."""
    if form == "raw":
        return ["-o", "preallocation=off"]
    command = (qemu_img(), "info", "-U", "-f", "qcow2", "--output=json", "--", path)
    mine = rights(qemu_img(), below=[path])
    output = await run_tool(command, timeout=INFO_TIMEOUT, confinement=mine)
    if output.status:
        raise failure(path, output)
    plain = json.loads(output.stdout)
    known: dict[str, Any] = plain["format-specific"]["data"]
    said = {"cluster_size": plain["cluster-size"], "compat": known["compat"]}
    if known["compat"] != "0.10":
        said["refcount_bits"] = known["refcount-bits"]
    if known.get("extended-l2"):
        said["extended_l2"] = "on"
    return ["-o", ",".join(f"{name}={value}" for name, value in said.items())]


async def _convert(
    facts: ImageFacts, form: Format, part: str, options: list[str], progress: Progress
) -> None:
    below: list[str] = []
    if form == "qcow2" and facts.backing is not None:
        # As the header says it: relative names mean the same beside the old image.
        below = ["-B", facts.backing, "-F", facts.backing_format or "raw"]
    words = ["convert", "-p", "-f", form, "-O", form, *below, *options, "--", facts.path, part]
    mine = rights(qemu_img(), read=[facts.path], write=[part], below=_qcow2(facts.path, form))
    output = await _qemu_img(words, "compact", progress, mine)
    if output.status:
        for number in FULL:
            if os.strerror(number) in output.stderr:
                raise write_error(part, OSError(number, os.strerror(number)))
        raise failure(f"{facts.path} cannot be compacted", output)


async def _compare(path: str, part: str, form: Format, progress: Progress) -> None:
    words = ["compare", "-p", "-f", form, "-F", form, "--", path, part]
    mine = rights(qemu_img(), read=[path, part], below=_qcow2(path, form))
    output = await _qemu_img(words, "compare", progress, mine)
    if output.status:
        raise HostError(
            f"{path} was not compacted: the new image is not the same ({output.last_words})",
            hint=f"the old one is untouched; qlaunch disk check {path}",
        )


def _qcow2(path: str, form: Format) -> list[str]:
    """A raw image stands on nothing, whatever its guest wrote to where a header would be."""
    return [path] if form == "qcow2" else []


async def _qemu_img(
    words: list[str], what: str, progress: Progress, confinement: Confinement
) -> Output:
    heard = percentages(lambda percent: progress(what, percent))
    return await run_tool(
        (qemu_img(), *words), timeout=COMPACT_TIMEOUT, on_output=heard, confinement=confinement
    )


def _replace(fd: int, part: str, path: str) -> None:
    """Put `part` in the place of the image, as its owner had it."""
    old = os.stat(path)
    try:
        os.fchmod(fd, stat.S_IMODE(old.st_mode))
        with contextlib.suppress(PermissionError):
            os.fchown(fd, old.st_uid, old.st_gid)
        os.fsync(fd)
        os.rename(part, path)
        files.sync_dir(os.path.dirname(path))
    except OSError as error:
        raise write_error(path, error) from error


def holder_of(path: str) -> str | None:
    """Who writes to the image, None when nobody does."""
    with contextlib.suppress(QlaunchError):
        return image_facts(path, want_write=False).holder
    return None
