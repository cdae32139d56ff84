"""The images under a disk: what exists, what is made, what is refused."""

from __future__ import annotations

import os
import shlex
from typing import Literal, cast

from attrs import evolve, frozen

from qlaunch.facts import ImageFacts
from qlaunch.plan.draft import Draft
from qlaunch.plan.model import Creation, Layer
from qlaunch.profile import devices as wish_of
from qlaunch.units import format_size

Format = Literal["qcow2", "raw"]
MAX_CHAIN = 200
_SECTOR = 512


@frozen(kw_only=True)
class Chain:
    """A disk's layers, active one first, and the image to be made if it is not there yet."""

    layers: tuple[Layer, ...]
    create: Creation | None = None


def image_path(draft: Draft, wish: wish_of.Disk) -> str:
    """Where the disk's image is: as said, or in the machine's own folder."""
    suffix = "raw" if wish.format == "raw" else "qcow2"
    return wish.path or os.path.join(draft.places.data, f"{wish.id}.{suffix}")


def chain_of(draft: Draft, wish: wish_of.Disk) -> Chain:
    """The layers of `wish`; what is wrong with them goes to the notes."""
    path = image_path(draft, wish)
    fmt = cast("Format", wish.format or "qcow2")
    key = f"disk.{wish.id}"
    if (head := draft.heads.get(wish.id, path)) != path:
        path, fmt = head, "qcow2"
    facts = draft.facts.image(path)
    if head == path and not facts.exists and not facts.problem and wish.id in draft.heads:
        _head_is_gone(draft, key, path)
        return Chain(layers=(_layer(wish, 0, path, fmt),))
    # A guest may write anything into a raw disk, something like a broken qcow2 header too.
    harmless = fmt == "raw" and facts.format == "qcow2" and facts.readable
    if facts.problem and not harmless:
        draft.notes.error(f"{key}.path", facts.problem, hint=facts.hint)
    elif not facts.exists:
        _check_folder(draft, key, facts)
        return _new(draft, wish, path, fmt)
    else:
        _check(draft, key, wish, facts, fmt)
    below = () if fmt == "raw" else _below(draft, wish, facts, 1)
    layers = (_layer(wish, 0, path, fmt), *below)
    if wish.id not in draft.heads:
        return Chain(layers=layers)
    own = os.path.normpath(image_path(draft, wish))
    if all(os.path.normpath(layer.path) != own for layer in layers):
        draft.notes.error(
            f"{key}.path",
            f"{os.path.basename(path)} holds its present state, but does not stand on {own}",
            hint=f"`qlaunch snapshot tree {draft.name}` shows what stands on what",
        )
    return Chain(layers=_mergeable(draft, layers, own))


def _head_is_gone(draft: Draft, key: str, path: str) -> None:
    draft.notes.error(
        f"{key}.path",
        f"{path}, which holds its present state, is missing",
        hint="put it back where it was, or go back to a snapshot:"
        f" `qlaunch snapshot tree {draft.name}`",
    )


def _check_folder(draft: Draft, key: str, facts: ImageFacts) -> None:
    """Only the machine's own folder is made by itself; elsewhere a missing one is a mistake."""
    folder = facts.missing_directory
    if folder and os.path.dirname(facts.path) != draft.places.data:
        draft.notes.error(
            f"{key}.path",
            f"the folder {folder} does not exist",
            hint=f"mkdir -p {shlex.quote(folder)}",
        )


def _layer(wish: wish_of.Disk, depth: int, path: str, fmt: Format) -> Layer:
    name = f"{wish.id}-{depth}" if depth else wish.id
    return Layer(
        node=f"{name}-format", file_node=f"{name}-file", path=path, format=fmt,
        read_only=depth > 0 or bool(wish.read_only),
    )  # fmt: skip


def _mergeable(draft: Draft, layers: tuple[Layer, ...], own: str) -> tuple[Layer, ...]:
    """`layers` with those marked that snapshots have put between the head and the disk's own image,
    and that one. What is below belongs to others as well: it is never written."""
    names = [os.path.normpath(layer.path) for layer in layers]
    last = names.index(own) if own in names else 0
    return tuple(
        evolve(layer, mergeable=0 < depth <= last and draft.facts.image(layer.path).writable)
        for depth, layer in enumerate(layers)
    )


def _new(draft: Draft, wish: wish_of.Disk, path: str, fmt: Format) -> Chain:
    """A disk that does not exist yet: what it is made from."""
    template = draft.facts.image(wish.template) if wish.template else None
    base = draft.facts.image(wish.backing) if wish.backing else None
    _check_new(draft, wish, path, fmt)
    below: tuple[Layer, ...] = ()
    if template is not None:
        _check_source(draft, f"disk.{wish.id}.template", template, wish.size)
    if base is not None:
        _check_source(draft, f"disk.{wish.id}.backing", base, wish.size)
        below = (_layer(wish, 1, base.path, _format_of(base)), *_below(draft, wish, base, 2))
    create = Creation(
        path=path,
        format=fmt,
        size=wish.size,
        backing=wish.backing,
        backing_format=_format_of(base) if base else None,
        template=wish.template,
        template_format=_format_of(template) if template else None,
    )
    return Chain(layers=(_layer(wish, 0, path, fmt), *below), create=create)


def _check_new(draft: Draft, wish: wish_of.Disk, path: str, fmt: Format) -> None:
    key = f"disk.{wish.id}"
    if wish.backing and wish.template:
        draft.notes.error(
            f"{key}.template", "a new disk is a copy of `template` or stands on `backing`, not both"
        )
    if not (wish.size or wish.backing or wish.template):
        draft.notes.error(
            f"{key}.path",
            f"{path} is not there and has no size, so it cannot be made",
            hint='add size = "20GiB", or correct the path',
        )
    if wish.size and wish.size % _SECTOR:
        draft.notes.error(
            f"{key}.size",
            f"{format_size(wish.size)} is not a whole number of sectors ({_SECTOR} bytes)",
            hint=f"write '{-(-wish.size // 1024)}KiB'",
        )
    if wish.backing and fmt == "raw":
        draft.notes.error(
            f"{key}.backing", "a raw image cannot stand on another", hint='set format = "qcow2"'
        )
    if draft.facts.host.qemu_img is None and (fmt == "qcow2" or wish.template):
        draft.notes.error(
            f"{key}.path",
            f"{path} is made with qemu-img, which is not installed",
            hint="on Debian and Ubuntu: sudo apt install qemu-utils",
            cause="host",
        )


def _format_of(facts: ImageFacts) -> Format:
    return "qcow2" if facts.format == "qcow2" else "raw"


def _check_source(draft: Draft, key: str, facts: ImageFacts, size: int | None) -> None:
    """A template or a backing file must be there, be one of the two formats that run, and fit."""
    if facts.problem:
        draft.notes.error(key, facts.problem, hint=facts.hint)
    elif not facts.exists:
        draft.notes.error(key, f"{facts.path} is not there")
    else:
        _check_header(draft, key, facts)
        if size and facts.virtual_size and size < facts.virtual_size:
            draft.notes.error(
                key.rpartition(".")[0] + ".size",
                f"{format_size(size)} is less than {os.path.basename(facts.path)} has,"
                f" {format_size(facts.virtual_size)}",
                hint="leave `size` out, and the disk is as large",
            )


def _check_header(draft: Draft, key: str, facts: ImageFacts) -> None:
    """What no image may have, whoever names it."""
    name = os.path.basename(facts.path)
    if facts.data_file is not None:
        draft.notes.error(
            key,
            f"{name} keeps its data in another file, {facts.data_file!r}: refused",
            hint="qemu-img convert makes it whole",
        )
    if facts.corrupt:
        draft.notes.error(
            key,
            f"{name} is marked corrupt",
            hint=f"qemu-img check -r all {shlex.quote(facts.path)}",
        )
    if facts.encrypted:
        draft.notes.error(key, f"{name} is encrypted, which is not supported")
    if facts.format not in ("qcow2", "raw"):
        draft.notes.error(
            key,
            f"{name} is a {facts.format} image; only qcow2 and raw can run",
            hint=f"qlaunch image import {shlex.quote(facts.path)} NEW.qcow2",
        )


def _check(draft: Draft, key: str, wish: wish_of.Disk, facts: ImageFacts, fmt: Format) -> None:
    """What keeps an existing image from being this disk."""
    name = os.path.basename(facts.path)
    # A raw disk may hold anything, a qcow2 header too: then the guest wrote it, and it stays data.
    if fmt == "qcow2" and facts.format != "qcow2":
        what = "empty" if facts.file_size == 0 else facts.format
        draft.notes.error(
            f"{key}.format",
            f'says format = "qcow2", but {name} is {what}',
            hint='set format = "raw", or convert it:'
            f" qlaunch image import {shlex.quote(facts.path)} NEW.qcow2",
        )
    elif fmt == "raw" and facts.format == "qcow2":
        draft.notes.warn(
            f"{key}.format",
            f"{name} has a qcow2 header but is used as raw:"
            " the guest sees the container, not the disk in it",
            hint='set format = "qcow2" if that is not meant',
        )
    elif fmt == "qcow2":
        _check_header(draft, f"{key}.path", facts)
    if not facts.readable:
        draft.notes.error(
            f"{key}.path",
            f"{facts.path} cannot be read by {draft.facts.host.user}",
            hint=facts.hint,
        )
    elif not facts.writable and not wish.read_only:
        draft.notes.error(
            f"{key}.path",
            f"{facts.path} cannot be written by {draft.facts.host.user}",
            hint=facts.hint or "set read_only = true, or change its owner",
        )
    if facts.holder and wish.lock is not False:
        draft.notes.error(
            f"{key}.path",
            f"{facts.path} is in use by {facts.holder}",
            hint="stop that machine, or give this one a copy",
            cause="conflict",
        )
    # XP's 0x7B and every partition table depend on the size: it is never changed behind the guest.
    if wish.size and facts.virtual_size and facts.virtual_size != wish.size:
        draft.notes.warn(
            f"{key}.size",
            f"{name} exists with {format_size(facts.virtual_size)};"
            " `size` counts only when a disk is made",
            hint="leave `size` as it was, or resize the image",
        )


def _below(draft: Draft, wish: wish_of.Disk, top: ImageFacts, depth: int) -> tuple[Layer, ...]:
    """The layers under `top`, each allowed: named by the profile, or beside the disk."""
    if top.format != "qcow2" or top.backing is None:
        return ()
    key = f"disk.{wish.id}.backing"
    path = top.backing_path
    name = os.path.basename(top.path)
    if path is None:
        draft.notes.error(key, f"{name} stands on {top.backing!r}, which is no plain file: refused")
        return ()
    if depth > MAX_CHAIN:
        draft.notes.error(
            key, f"the chain of backing files is longer than {MAX_CHAIN} or has a loop"
        )
        return ()
    if not _allowed(draft, wish, path):
        draft.notes.error(
            key,
            f"{name} stands on {path}, which the profile does not allow",
            hint=f'if that is right, write backing = "{path}"',
        )
        return ()
    facts = draft.facts.image(path)
    if facts.problem or not facts.exists:
        draft.notes.error(
            key,
            f"backing file {path} of {name} is missing" if not facts.problem else facts.problem,
            hint=facts.hint
            if facts.problem
            else "put it back where it was: without it the disk cannot be read",
        )
        return ()
    _check_header(draft, key, facts)
    if top.backing_format not in (None, facts.format) and top.backing_format != "raw":
        draft.notes.error(
            key, f"{name} says its backing file is {top.backing_format}, but it is {facts.format}"
        )
    fmt: Format = "raw" if top.backing_format == "raw" else _format_of(facts)
    layer = _layer(wish, depth, path, fmt)
    return (layer, *(() if fmt == "raw" else _below(draft, wish, facts, depth + 1)))


def _allowed(draft: Draft, wish: wish_of.Disk, path: str) -> bool:
    """A backing file is allowed when the profile names it, or when it is one of qlaunch's own: in
    the machine's folder, or beside the disk and called after it (`c.img`, `c.snap1.qcow2`)."""
    own = image_path(draft, wish)
    if path in (own, wish.backing) or os.path.dirname(path) == draft.places.data:
        return True
    # What a base stands on beside itself is its own affair: a linked clone stands on a snapshot.
    return any(_beside(path, image) for image in (own, wish.backing) if image)


def _beside(path: str, image: str) -> bool:
    """Whether `path` lies beside `image` and is called after it."""
    (folder, name), (own_folder, own_name) = os.path.split(path), os.path.split(image)
    return folder == own_folder and name.split(".")[0] == own_name.split(".")[0]
