"""Disks and removable drives: images, their node graph, the bus position of each device."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from qlaunch.facts import ImageFacts
from qlaunch.plan.draft import Draft
from qlaunch.plan.images import chain_of, image_path
from qlaunch.plan.model import Device, Disk, Drive, Layer
from qlaunch.plan.pci import Request
from qlaunch.plan.seats import Seat
from qlaunch.profile import devices as wish_of

LIMITS = {
    "iops": "iops-total",
    "iops_read": "iops-read",
    "iops_write": "iops-write",
    "bps": "bps-total",
    "bps_read": "bps-read",
    "bps_write": "bps-write",
}
_DISKS = {
    "ide": "ide-hd",
    "sata": "ide-hd",
    "scsi": "scsi-hd",
    "usb": "scsi-hd",
    "virtio": "virtio-blk-pci",
    "nvme": "nvme",
}
_CDROMS = {"ide": "ide-cd", "sata": "ide-cd", "scsi": "scsi-cd", "usb": "scsi-cd"}
MOST = 10**15  # QEMU's own bound of a limit (THROTTLE_VALUE_MAX)


def bus_of(draft: Draft, wish: wish_of.Disk | wish_of.Cdrom) -> str:
    """The bus of a disk or a CD drive; the board must have it."""
    cdrom = isinstance(wish, wish_of.Cdrom)
    default = ("sata" if draft.q35 else "ide") if cdrom else draft.disk_bus
    bus = wish.bus or default
    if bus == "ide" and draft.q35:
        draft.notes.error(
            f"{'cdrom' if cdrom else 'disk'}.{wish.id}.bus",
            "the q35 board has no IDE",
            hint='use bus = "sata", or machine.type = "pc"',
        )
    return bus


def requests(draft: Draft) -> Iterator[Request]:
    """The PCI addresses of controllers, and of disks on virtio and nvme."""
    drives: tuple[wish_of.Disk | wish_of.Cdrom, ...] = (*draft.profile.disk, *draft.profile.cdrom)
    buses = {bus_of(draft, wish) for wish in drives}
    if "scsi" in buses:
        yield Request(id="scsi0", key="disk", express=True)
    if "sata" in buses and not draft.q35:
        yield Request(id="ahci0", key="disk")
    for disk in draft.profile.disk:
        if bus_of(draft, disk) in ("virtio", "nvme"):
            key = f"disk.{disk.id}.address"
            yield Request(id=f"{disk.id}-dev", key=key, explicit=disk.address, express=True)


def seats(draft: Draft) -> Iterator[Seat]:
    """The positions of disks and CD drives on all other buses."""
    for disk in draft.profile.disk:
        bus = bus_of(draft, disk)
        if bus not in ("virtio", "nvme"):
            yield _seat(f"disk.{disk.id}", bus, disk, None)
    for drive in draft.profile.cdrom:
        bus = bus_of(draft, drive)
        yield _seat(f"cdrom.{drive.id}", bus, drive, {"ide": 2, "sata": 1}.get(bus))


def _seat(key: str, bus: str, wish: wish_of.Disk | wish_of.Cdrom, preferred: int | None) -> Seat:
    return Seat(
        id=_seat_id(wish.id, bus),
        bus=bus,
        key=key,
        said=f"{key}.address",
        explicit=wish.address,
        preferred=preferred,
    )


def _seat_id(ident: str, bus: str) -> str:
    """The device that sits there: on USB an adapter is between the port and the drive."""
    return f"{ident}-usb" if bus == "usb" else f"{ident}-dev"


def disks(draft: Draft) -> tuple[Disk, ...]:
    """Every disk of the profile."""
    return tuple(_disk(draft, disk) for disk in draft.profile.disk)


def _disk(draft: Draft, wish: wish_of.Disk) -> Disk:
    bus = bus_of(draft, wish)
    chain = chain_of(draft, wish)
    _check_modes(draft, wish, bus)
    _check_limits(draft, wish)
    return Disk(
        id=wish.id,
        bus=bus,
        image=image_path(draft, wish),
        layers=chain.layers,
        create=chain.create,
        device=_disk_device(draft, wish, bus),
        direct=wish.cache in ("none", "directsync"),
        no_flush=wish.cache == "unsafe",
        aio=wish.aio or "threads",
        discard="ignore" if wish.discard == "ignore" else "unmap",
        lock=wish.lock is not False,
        snapshot=wish.snapshot is not False,
        limits={name: getattr(wish, said) for said, name in LIMITS.items() if getattr(wish, said)},
    )


def _check_modes(draft: Draft, wish: wish_of.Disk, bus: str) -> None:
    notes, key = draft.notes, f"disk.{wish.id}"
    if wish.aio == "native" and wish.cache not in ("none", "directsync"):
        notes.error(
            f"{key}.aio",
            'aio = "native" needs a cache mode without the host\'s cache',
            hint='set cache = "none", or aio = "threads"',
        )
    if wish.read_only and bus in ("ide", "sata"):
        notes.error(
            f"{key}.read_only",
            f"a disk on {bus.upper()} cannot be read-only",
            hint='use bus = "virtio" or "scsi", or a [[cdrom]]',
        )
    if wish.removable and bus != "usb":
        notes.error(
            f"{key}.removable",
            f"a disk on {bus.upper()} is no stick",
            hint='use bus = "usb"',
        )
    if wish.cache == "unsafe":
        notes.warn(
            f"{key}.cache",
            'cache = "unsafe" ignores the guest\'s flushes: a power cut can destroy the disk',
            hint="use it for scratch disks only",
        )
    if wish.lock is False:
        notes.warn(
            f"{key}.lock", "nothing keeps a second machine from this image: two writers destroy it"
        )


def _check_limits(draft: Draft, wish: wish_of.Disk) -> None:
    key = f"disk.{wish.id}"
    for total in ("iops", "bps"):
        parts = getattr(wish, f"{total}_read") or getattr(wish, f"{total}_write")
        if getattr(wish, total) and parts:
            draft.notes.error(
                f"{key}.{total}",
                "a total limit and one for reads or writes exclude each other",
                hint="keep one of them",
            )
    for name in LIMITS:
        if (getattr(wish, name) or 0) > MOST:
            draft.notes.error(
                f"{key}.{name}", "QEMU takes at most 1000TB a second", hint="leave the limit out"
            )


def _disk_device(draft: Draft, wish: wish_of.Disk, bus: str) -> Device:
    props: dict[str, object] = {"drive": wish.id}
    if wish.serial or bus == "nvme":
        props["serial"] = wish.serial or wish.id
    # A write-through cache is one that the guest sees: it needs no flush of its own.
    if wish.cache in ("writethrough", "directsync"):
        props["write-cache"] = "off"
    if wish.removable and bus == "usb":
        props["removable"] = True
    if bus != "nvme":
        props |= {"werror": "stop", "rerror": "stop"}
    props |= _position(draft, wish.id, bus)
    return draft.device(f"disk.{wish.id}.bus", f"{wish.id}-dev", _DISKS[bus], props)


def _position(draft: Draft, ident: str, bus: str) -> dict[str, object]:
    """Where a drive sits on its bus; the buses of PCI are not meant."""
    number = draft.seats.number(_seat_id(ident, bus))
    if number is None or bus in ("virtio", "nvme"):
        return {}
    if bus == "ide":
        return {"bus": f"ide.{number // 2}", "unit": number % 2}
    if bus == "sata":
        return {"bus": f"{'ide' if draft.q35 else 'ahci0'}.{number}"}
    if bus == "usb":
        return {"bus": f"{ident}-usb.0", "scsi-id": 0, "channel": 0, "lun": 0}
    return {"bus": "scsi0.0", "scsi-id": number % 256, "channel": 0, "lun": number // 256}


def drives(draft: Draft) -> tuple[Drive, ...]:
    """CD and floppy drives, empty or filled."""
    return tuple(
        [_cdrom(draft, wish) for wish in draft.profile.cdrom]
        + [_floppy(draft, unit, wish) for unit, wish in enumerate(draft.profile.floppy)]
    )


def _cdrom(draft: Draft, wish: wish_of.Cdrom) -> Drive:
    key, bus = f"cdrom.{wish.id}", bus_of(draft, wish)
    props = _position(draft, wish.id, bus)
    medium = None
    if wish.path is not None:
        check_medium(draft, f"{key}.path", wish.path, write=False)
        medium = _medium(wish.id, wish.path, read_only=True)
        props["drive"] = wish.id
    device = draft.device(f"{key}.bus", f"{wish.id}-dev", _CDROMS[bus], props)
    return Drive(id=wish.id, kind="cdrom", device=device, medium=medium)


def _floppy(draft: Draft, unit: int, wish: wish_of.Floppy) -> Drive:
    """The first floppy drive of the profile is A:, the second B:."""
    key = f"floppy.{wish.id}"
    if unit > 1:
        draft.notes.error(key, "a PC has at most two floppy drives", hint="take one away")
    props: dict[str, object] = {"unit": unit}
    props |= {"bus": "fdc0.0"} if draft.q35 else {}
    medium = None
    if wish.path is not None:
        read_only = bool(wish.read_only)
        check_medium(draft, f"{key}.path", wish.path, write=not read_only)
        medium = _medium(wish.id, wish.path, read_only=read_only)
        props["drive"] = wish.id
    device = draft.device(key, f"{wish.id}-dev", "floppy", props)
    return Drive(id=wish.id, kind="floppy", device=device, medium=medium)


def _medium(ident: str, path: str, *, read_only: bool) -> Layer:
    return Layer(
        node=ident, file_node=f"{ident}-file", path=path, format="raw", read_only=read_only
    )


def check_medium(draft: Draft, key: str, path: str, *, write: bool) -> None:
    """Say what keeps the file at `path` from being a medium."""
    facts: ImageFacts = draft.facts.image(path)
    if facts.problem:
        draft.notes.error(key, facts.problem, hint=facts.hint)
    elif not facts.exists:
        draft.notes.error(key, f"{path} is not there", hint="leave `path` out for an empty drive")
    elif facts.format not in (None, "raw"):
        draft.notes.error(
            key,
            f"{os.path.basename(path)} is a {facts.format} image, a medium must be raw (ISO)",
            hint=f"qemu-img convert -O raw {shlex.quote(path)} NEW.iso",
        )
    elif write and not facts.writable:
        draft.notes.error(key, f"{path} cannot be written", hint="set read_only = true")
    elif write and facts.holder:
        draft.notes.error(key, f"{path} is in use by {facts.holder}", cause="conflict")


def controllers(draft: Draft) -> Iterator[Device]:
    """The controllers that the drives need and the board has not."""
    for ident, driver in (("scsi0", "virtio-scsi-pci"), ("ahci0", "ich9-ahci")):
        if ident in draft.pci.places:
            yield draft.device("disk", ident, driver, {})
    if draft.profile.floppy and draft.q35:
        yield draft.device("floppy", "fdc0", "isa-fdc", {})
    drives: tuple[wish_of.Disk | wish_of.Cdrom, ...] = (*draft.profile.disk, *draft.profile.cdrom)
    for wish in drives:
        # `usb-storage` would be shorter, but its drive is always a disk and never empty.
        if wish.bus == "usb":
            key = f"{'cdrom' if isinstance(wish, wish_of.Cdrom) else 'disk'}.{wish.id}.bus"
            # Linux asks a disk on USB for no serial number: it shows the USB device's.
            serial = getattr(wish, "serial", None)
            props: dict[str, object] = {"serial": serial} if serial else {}
            yield draft.device(key, f"{wish.id}-usb", "usb-bot", props)
