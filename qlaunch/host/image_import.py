"""Takes images of other programs in: qemu-img reads them, with rights to that one file and limits.

Its readers of VMDK, VHDX and the like were written for files of one's own. What it reads here may
be a trap: a name in it that leads to another file, a server, or a table without end.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
from collections.abc import Callable, Sequence

from attrs import frozen

from qlaunch.aio import finish
from qlaunch.errors import ConflictError, HostError, NotFoundError, RefusedError
from qlaunch.host import landlock
from qlaunch.host.image_rights import rights
from qlaunch.host.newfile import FULL, part_file, publish, remove_stale, write_error
from qlaunch.host.qcow2 import ImageError, ImageHeader, read_header
from qlaunch.host.tool import Output, percentages, run_tool
from qlaunch.units import format_size

FORMATS = ("raw", "qcow2", "qcow", "vmdk", "vdi", "vhdx", "vpc", "qed", "parallels", "dmg", "bochs")
# Formats that can name other files, which only Landlock keeps qemu-img from.
_NAME_OTHERS = ("vmdk", "qcow", "qed", "parallels")
INFO_TIMEOUT = 60.0
CONVERT_TIMEOUT = 24 * 3600.0
LARGEST = 64 << 40
_MEMORY = 4 << 30
_INFO_CPU, _CONVERT_CPU = 30, 24 * 3600
_OVERHEAD = 256 << 20


@frozen(kw_only=True)
class Imported:
    """What was made of it. `size` is what a guest sees."""

    source: str
    path: str
    format: str
    size: int


async def import_image(
    source: str,
    path: str,
    *,
    source_format: str | None = None,
    parts: Sequence[str] = (),
    progress: Callable[[float], None] | None = None,
) -> Imported:
    """Make the qcow2 image `path` of the image `source`; both absolute. `parts` are further files
    that it may consist of (the extents of a VMDK).

    Raises: NotFoundError, ConflictError, RefusedError with the reason, HostError, TimedOutError.
    """
    if os.path.lexists(path):  # noqa: ASYNC240 -- one look
        raise ConflictError(f"{path} exists already; it is not replaced")
    form = _format(source, source_format)
    qemu_img = shutil.which("qemu-img")
    if qemu_img is None:
        raise HostError("qemu-img is missing", hint="sudo apt install qemu-utils")
    for part in parts:
        _regular(part)
    size = await _size(qemu_img, source, form, parts)
    remove_stale(path)
    with part_file(path) as (part, fd):
        try:
            await _convert(qemu_img, source, form, parts, fd, size, progress)
            await finish(asyncio.to_thread(publish, fd, part, path))
        except OSError as error:
            raise write_error(path, error) from error
    return Imported(source=source, path=path, format=form, size=size)


# ---- what it is, without any QEMU code ----------------------------------------------------------


def _regular(path: str) -> None:
    """Raises: NotFoundError, RefusedError when it is a device, a pipe or a folder."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError(f"{path} is not a regular file")


def _format(source: str, said: str | None) -> str:
    """The format of `source`; refused is what could lead elsewhere."""
    _regular(source)
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise HostError(f"{source}: {error.strerror}") from None
    try:
        header = read_header(fd, os.fstat(fd).st_size)
    except ImageError as error:
        if said == "raw":
            return "raw"
        raise RefusedError(f"{source} is damaged: {error}") from None
    finally:
        os.close(fd)
    form = said or header.format
    if form not in FORMATS:
        raise RefusedError(f"{source} is a {form} image, which is not taken in")
    if said is not None and said != header.format and header.format == "qcow2" and said != "raw":
        raise RefusedError(f"{source} is qcow2, not {said}")
    if form == "qcow2":
        _refuse(source, header)
    if form in _NAME_OTHERS and not landlock.abi():
        raise RefusedError(
            f"{source}: an image of the format {form} can name other files, and without Landlock"
            " this kernel cannot keep qemu-img from opening them",
            hint="convert it on a computer that you can spare, or with a newer kernel",
        )
    return form


def _refuse(source: str, header: ImageHeader) -> None:
    why = None
    if header.data_file is not None:
        why = f"keeps its data in another file, {_shown(header.data_file)}"
    elif header.backing is not None:
        why = f"stands on another file, {_shown(header.backing)}"
    elif header.corrupt:
        why = "is marked corrupt"
    elif header.encrypted:
        why = "is encrypted"
    if why:
        raise RefusedError(
            f"{source} {why}: refused", hint="have it made whole where it comes from"
        )


def _shown(name: bytes) -> str:
    return ascii(name.decode(errors="replace"))


# ---- with qemu-img ------------------------------------------------------------------------------


async def _size(qemu_img: str, source: str, form: str, parts: Sequence[str]) -> int:
    words = [qemu_img, "info", "--output=json", "-f", form, "--", source]
    mine = rights(qemu_img, read=[source, *parts])
    output = await run_tool(
        _limited(words, cpu=_INFO_CPU, file=1 << 20), timeout=INFO_TIMEOUT, confinement=mine
    )
    if output.status:
        raise _refused(source, output)
    try:
        size = json.loads(output.stdout)["virtual-size"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RefusedError(f"{source}: qemu-img cannot tell its size") from None
    if not isinstance(size, int) or not 0 <= size <= LARGEST:
        raise RefusedError(f"{source} says that it has {size} bytes; {format_size(LARGEST)} go")
    return size


async def _convert(
    qemu_img: str,
    source: str,
    form: str,
    parts: Sequence[str],
    fd: int,
    size: int,
    progress: Callable[[float], None] | None,
) -> None:
    target = f"/proc/self/fd/{fd}"
    shown = ("-p",) if progress is not None else ("-q",)
    options = ("-o", "preallocation=off,lazy_refcounts=off")
    words = [qemu_img, "convert", *shown, "-f", form, "-O", "qcow2", *options, "--", source, target]
    output = await run_tool(
        _limited(words, cpu=_CONVERT_CPU, file=size + size // 16 + _OVERHEAD),
        timeout=CONVERT_TIMEOUT,
        pass_fds=(fd,),
        on_output=None if progress is None else percentages(progress),
        confinement=rights(qemu_img, read=[source, *parts], write=[target]),
    )
    if output.status:
        for number in FULL:
            if os.strerror(number) in output.stderr:
                raise OSError(number, os.strerror(number))
        raise _refused(source, output)


def _limited(words: Sequence[str], *, cpu: int, file: int) -> Sequence[str]:
    """`words` with limits to memory, processor time and what they write (util-linux)."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        return words
    return (prlimit, f"--as={_MEMORY}", f"--cpu={cpu}", f"--fsize={file}", "--core=0", *words)


def _refused(source: str, output: Output) -> RefusedError:
    words = output.last_words.removeprefix("qemu-img: ") or f"qemu-img ended ({output.status})"
    hint = None
    if "Permission denied" in words:
        hint = "it leads to another file; if that is right, name that one with --part"
    return RefusedError(f"{source} cannot be taken in: {words}", hint=hint)
