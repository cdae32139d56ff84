"""Makes new images: whole under their real name, or not there at all."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from typing import Literal

from attrs import frozen

from qlaunch.aio import finish
from qlaunch.errors import ConflictError, HostError, NotFoundError, RefusedError
from qlaunch.facts import ImageFacts
from qlaunch.host.image_facts import image_contents
from qlaunch.host.image_rights import rights
from qlaunch.host.newfile import FULL, part_file, publish, remove_stale, write_error
from qlaunch.host.tool import Output, percentages, run_tool
from qlaunch.units import short_size

CREATE_TIMEOUT = 60.0
CONVERT_TIMEOUT = 4 * 3600.0

Progress = Callable[[float], None]


@frozen(kw_only=True)
class _Order:
    """What is to be made; `size` is known unless the template decides it."""

    path: str
    format: Literal["raw", "qcow2"]
    size: int | None
    backing: str | None
    backing_format: str | None
    template: ImageFacts | None
    qemu_img: str


async def create_image(
    path: str,
    *,
    image_format: Literal["raw", "qcow2"],
    size: int | None = None,
    backing: str | None = None,
    backing_format: str | None = None,
    template: str | None = None,
    template_format: str | None = None,
    qemu_img: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Make a sparse image of `size` bytes at the absolute `path`: empty, on `backing`, or copied.

    Without a size it is as large as its backing file or template. It is made under another name
    in the same directory and gets its own when it is complete and on the disk; an existing file is
    never replaced. When this fails, is cancelled or is killed, nothing appears under `path`; what a
    killed one left behind is removed by the next. `progress` hears percentages of a copy.

    Raises: ConflictError when `path` exists, BusyError when another is making it, NotFoundError
    when the backing file or template is missing, RefusedError when it cannot be used for this,
    HostError for the rest (full disk, missing rights, no qemu-img), TimedOutError.
    """
    order = _Order(
        path=path,
        format=image_format,
        size=size if size is not None or backing is None else _size_of(backing, backing_format),
        backing=backing,
        backing_format=backing_format,
        template=None if template is None else _template(template, template_format, size),
        qemu_img=qemu_img or shutil.which("qemu-img") or "",
    )
    _check(order)
    remove_stale(path)
    with part_file(path) as (part, fd):
        try:
            await _fill(order, fd, progress)
            await finish(asyncio.to_thread(publish, fd, part, path))
        except OSError as error:
            raise write_error(path, error) from error


def _check(order: _Order) -> None:
    if os.path.lexists(order.path):
        raise ConflictError(f"{order.path} exists already; it is not replaced")
    directory = os.path.dirname(order.path)
    if not os.path.isabs(order.path) or not os.path.isdir(directory):
        raise HostError(f"{order.path} cannot be made: there is no directory {directory!r}")
    if order.size is None and order.template is None:
        raise RefusedError(f"{order.path} cannot be made without a size")
    if order.backing is not None and (order.format != "qcow2" or order.template is not None):
        raise RefusedError(f"{order.path}: only an empty qcow2 image can have a backing file")
    if order.backing is not None and order.backing_format not in ("raw", "qcow2"):
        raise RefusedError(f"{order.path}: the format of the backing file must be raw or qcow2")
    if not order.qemu_img and (order.format == "qcow2" or order.template is not None):
        raise HostError("qemu-img is missing", hint="sudo apt install qemu-utils")


def _size_of(backing: str, backing_format: str | None) -> int:
    facts = image_contents(backing)
    _must_be_there(facts, "backing file")
    size = facts.file_size if backing_format == "raw" else facts.virtual_size
    if size is None:
        raise RefusedError(f"the size of the backing file {backing} cannot be told")
    return size


def _template(path: str, declared: str | None, size: int | None) -> ImageFacts:
    facts = image_contents(os.path.abspath(path))
    _must_be_there(facts, "template")
    if declared == "raw":
        # A raw file is never looked into: what its guest wrote there is no header.
        return ImageFacts(path=facts.path, exists=True, format="raw", virtual_size=facts.file_size)
    if facts.format not in ("raw", "qcow2") or declared not in (None, facts.format):
        raise RefusedError(
            f"the template {path} is {facts.format}, not {declared or 'raw or qcow2'}"
        )
    # qemu-img would open these other files by itself, whatever they are.
    if facts.backing is not None or facts.data_file is not None:
        raise RefusedError(
            f"the template {path} stands on another file, {facts.backing or facts.data_file!r}",
            hint="flatten it first: qemu-img convert -O qcow2 TEMPLATE NEW",
        )
    if facts.corrupt or facts.encrypted:
        raise RefusedError(f"the template {path} is {'damaged' if facts.corrupt else 'encrypted'}")
    if size is not None and facts.virtual_size is not None and size < facts.virtual_size:
        raise RefusedError(
            f"the template {path} has {short_size(facts.virtual_size)}, more than the "
            f"{short_size(size)} asked for"
        )
    return facts


def _must_be_there(facts: ImageFacts, what: str) -> None:
    if facts.problem is not None:
        raise HostError(f"the {what} {facts.path}: {facts.problem}", hint=facts.hint)
    if not facts.exists:
        raise NotFoundError(f"the {what} {facts.path} does not exist")


async def _fill(order: _Order, fd: int, progress: Progress | None) -> None:
    if order.template is not None:
        await _copy(order, order.template, fd, progress)
        larger = order.size is not None and order.size > (order.template.virtual_size or 0)
        if larger and order.format == "raw":
            os.ftruncate(fd, order.size or 0)
        elif larger:
            await _qemu_img(
                order, fd, "resize", "-q", "-f", "qcow2", "--", _name(fd), str(order.size)
            )
    elif order.format == "raw":
        os.ftruncate(fd, order.size or 0)
    else:
        # -u: the header needs the backing file's name and size only, and both are known.
        below = () if order.backing is None else ("-u", *_backing_options(order))
        options = ("-q", "-f", "qcow2", "-o", "preallocation=off,lazy_refcounts=off", *below)
        await _qemu_img(order, fd, "create", *options, "--", _name(fd), str(order.size))


def _backing_options(order: _Order) -> tuple[str, ...]:
    backing = order.backing or ""
    name = os.path.basename(backing)
    # Relative where possible, so that the directory can be moved. A colon would name a protocol.
    if os.path.dirname(backing) != os.path.dirname(order.path) or ":" in name:
        name = os.path.abspath(backing)
    return ("-b", name, "-F", str(order.backing_format))


async def _copy(order: _Order, template: ImageFacts, fd: int, progress: Progress | None) -> None:
    extra = ",lazy_refcounts=off" if order.format == "qcow2" else ""
    formats = ("-f", template.format or "raw", "-O", order.format)
    options = (*formats, "-o", f"preallocation=off{extra}", "--", template.path, _name(fd))
    watched = None if progress is None else percentages(progress)
    shown = ("-p",) if progress is not None else ("-q",)
    await _qemu_img(order, fd, "convert", *shown, *options, timeout=CONVERT_TIMEOUT, heard=watched)


def _name(fd: int) -> str:
    # By descriptor: qemu-img opens with O_CREAT, and one whose supervisor was killed would make
    # the part file anew under its name after the next supervisor has removed it.
    return f"/proc/self/fd/{fd}"


async def _qemu_img(
    order: _Order,
    fd: int,
    *words: str,
    timeout: float = CREATE_TIMEOUT,
    heard: Callable[[bytes], None] | None = None,
) -> None:
    template = [] if order.template is None else [order.template.path]
    output = await run_tool(
        (order.qemu_img, *words),
        timeout=timeout,
        pass_fds=(fd,),
        on_output=heard,
        confinement=rights(order.qemu_img, read=template, write=[_name(fd)]),
    )
    if output.status != 0:
        raise _refused(order.path, output)


def _refused(path: str, output: Output) -> HostError:
    for number in FULL:
        if os.strerror(number) in output.stderr:
            return write_error(path, OSError(number, os.strerror(number)))
    words = output.last_words.removeprefix("qemu-img: ")
    return HostError(f"{path} cannot be made: qemu-img: {words or output.status}")
