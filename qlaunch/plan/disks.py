"""Disks and removable drives: images, their node graph, the bus position of each device."""

from __future__ import annotations

import os
from collections.abc import Iterator

from attrs import Factory, define

from qlaunch.facts import ImageFacts
from qlaunch.plan.draft import Draft
from qlaunch.plan.images import chain_of
from qlaunch.plan.model import Device, Disk, Drive, Layer
from qlaunch.plan.pci import Request
from qlaunch.profile import devices as wish_of

_LIMITS = {
    "iops": "iops-total",
    "iops_read": "iops-read",
    "iops_write": "iops-write",
    "bps": "bps-total",
    "bps_read": "bps-read",
    "bps_write": "bps-write",
}
_UNITS = {"ide": 4, "sata": 6, "scsi": 256, "usb": 64}


@define(kw_only=True)
class Positions:
    """Who sits where on the buses that are no PCI: IDE, SATA, SCSI."""

    draft: Draft
    taken: dict[tuple[str, int], str] = Factory(dict)

    def place(
        self, bus: str, ident: str, key: str, explicit: str | None, preferred: int | None
    ) -> int:
        """A number on `bus` (IDE: channel * 2 + unit) for `ident`."""
        number = self._explicit(bus, key, explicit)
        if number is None:
            leased = self.draft.leases.places.get(ident, "")
            free = [n for n in range(_UNITS[bus]) if (bus, n) not in self.taken]
            if (
                leased.startswith(f"{bus}/")
                and leased[len(bus) + 1 :].isdigit()
                and int(leased[len(bus) + 1 :]) in free
            ):
                number = int(leased[len(bus) + 1 :])
            elif preferred in free:
                number = preferred
            else:
                number = free[0] if free else None
        if number is None:
            self.draft.notes.error(
                key,
                f"{bus} takes at most {_UNITS[bus]} drives",
                hint="put some of them on another bus",
            )
            return 0
        holder = self.taken.setdefault((bus, number), ident)
        if holder != ident:
            self.draft.notes.error(
                key,
                f"{bus} position {explicit} is already used by {holder}",
                hint="leave `address` out and qlaunch picks a free one",
            )
        return number

    def _explicit(self, bus: str, key: str, text: str | None) -> int | None:
        if text is None:
            return None
        words = text.split(".")
        good = all(word.isdigit() for word in words) and len(words) == (2 if bus == "ide" else 1)
        number = (
            int(words[0]) * 2 + int(words[1])
            if good and bus == "ide"
            else int(words[0])
            if good
            else -1
        )
        if not good or number >= _UNITS[bus] or (bus == "ide" and int(words[-1]) > 1):
            example = (
                "'0.0' to '1.1' (channel.unit)" if bus == "ide" else f"'0' to '{_UNITS[bus] - 1}'"
            )
            self.draft.notes.error(
                key, f"{text!r} is no position on {bus}", hint=f"write {example}"
            )
            return None
        return number


def bus_of(draft: Draft, key: str, said: str | None) -> str:
    """The bus a disk goes to; the board must have it."""
    bus = said or (draft.defaults.q35_bus if draft.q35 else draft.defaults.disk_bus)
    if bus == "ide" and draft.q35:
        draft.notes.error(
            key, "the q35 board has no IDE", hint='use bus = "sata", or machine.type = "pc"'
        )
    return bus


def request_addresses(draft: Draft) -> Iterator[Request]:
    """The PCI addresses that disks on virtio and nvme need."""
    for disk in draft.profile.disk:
        key = f"disk.{disk.id}"
        if bus_of(draft, f"{key}.bus", disk.bus) in ("virtio", "nvme"):
            yield Request(
                id=f"{disk.id}-dev", key=f"{key}.address", explicit=disk.address, express=True
            )


def disks(draft: Draft, positions: Positions) -> tuple[Disk, ...]:
    """Every disk of the profile."""
    return tuple(_disk(draft, positions, disk) for disk in draft.profile.disk)


def _disk(draft: Draft, positions: Positions, wish: wish_of.Disk) -> Disk:
    key = f"disk.{wish.id}"
    bus = bus_of(draft, f"{key}.bus", wish.bus)
    chain = chain_of(draft, wish)
    _check_modes(draft, key, wish, bus)
    direct = wish.cache in ("none", "directsync")
    return Disk(
        id=wish.id,
        bus=bus,
        layers=chain.layers,
        create=chain.create,
        device=_disk_device(draft, positions, wish, bus),
        direct=direct,
        no_flush=wish.cache == "unsafe",
        aio=wish.aio or "threads",
        discard="ignore" if wish.discard == "ignore" else "unmap",
        lock=wish.lock is not False,
        snapshot=wish.snapshot is not False,
        limits={name: getattr(wish, said) for said, name in _LIMITS.items() if getattr(wish, said)},
    )


def _check_modes(draft: Draft, key: str, wish: wish_of.Disk, bus: str) -> None:
    notes = draft.notes
    if wish.aio == "native" and wish.cache not in ("none", "directsync"):
        notes.error(
            f"{key}.aio",
            'aio = "native" needs a cache mode without the host\'s cache',
            hint='set cache = "none", or aio = "threads"',
        )
    if wish.read_only and bus in ("ide", "sata"):
        notes.error(
            f"{key}.read_only",
            f"an {bus} disk cannot be read-only",
            hint='use bus = "virtio" or "scsi", or a [[cdrom]]',
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
    if (wish.iops and (wish.iops_read or wish.iops_write)) or (
        wish.bps and (wish.bps_read or wish.bps_write)
    ):
        notes.error(
            f"{key}.iops" if wish.iops else f"{key}.bps",
            "a total limit and one for reads or writes exclude each other",
            hint="keep one of them",
        )


def _disk_device(draft: Draft, positions: Positions, wish: wish_of.Disk, bus: str) -> Device:
    key, ident = f"disk.{wish.id}", f"{wish.id}-dev"
    props: dict[str, object] = {"drive": wish.id}
    if wish.serial or bus == "nvme":
        props["serial"] = wish.serial or wish.id
    if bus in ("virtio", "nvme"):
        driver = "virtio-blk-pci" if bus == "virtio" else "nvme"
        props |= draft.pci.places[ident].props() if ident in draft.pci.places else {}
    elif bus == "usb":
        driver = "usb-storage"
    else:
        number = positions.place(bus, wish.id, f"{key}.address", wish.address, None)
        driver = "scsi-hd" if bus == "scsi" else "ide-hd"
        props |= _position(draft, bus, number)
    # A write-through cache is one that the guest sees: it needs no flush of its own.
    if wish.cache in ("writethrough", "directsync"):
        props["write-cache"] = "off"
    if bus not in ("nvme",):
        props |= {"werror": "stop", "rerror": "stop"}
    draft.has(f"{key}.bus", driver)
    return Device(id=ident, driver=driver, props=props)


def _position(draft: Draft, bus: str, number: int) -> dict[str, object]:
    if bus == "ide":
        return {"bus": f"ide.{number // 2}", "unit": number % 2}
    if bus == "sata":
        return {"bus": f"{'ide' if draft.q35 else 'ahci0'}.{number}"}
    return {"bus": "scsi0.0", "scsi-id": number, "channel": 0, "lun": 0}


def drives(draft: Draft, positions: Positions) -> tuple[Drive, ...]:
    """CD and floppy drives, empty or filled."""
    return tuple(
        [_cdrom(draft, positions, wish) for wish in draft.profile.cdrom]
        + [_floppy(draft, unit, wish) for unit, wish in enumerate(draft.profile.floppy)]
    )


def _cdrom(draft: Draft, positions: Positions, wish: wish_of.Cdrom) -> Drive:
    key = f"cdrom.{wish.id}"
    bus = wish.bus or ("sata" if draft.q35 else "ide")
    bus = bus_of(draft, f"{key}.bus", bus)
    if bus == "usb":
        device = Device(id=f"{wish.id}-dev", driver="usb-storage", props={"removable": True})
        if wish.path is None:
            draft.notes.error(
                f"{key}.bus",
                "a USB CD drive cannot be empty",
                hint='use bus = "ide", "sata" or "scsi"',
            )
    else:
        preferred = {"ide": 2, "sata": 1}.get(bus)
        number = positions.place(bus, wish.id, f"{key}.address", wish.address, preferred)
        driver = "scsi-cd" if bus == "scsi" else "ide-cd"
        device = Device(id=f"{wish.id}-dev", driver=driver, props=_position(draft, bus, number))
    medium = None
    if wish.path is not None:
        check_medium(draft, f"{key}.path", wish.path, write=False)
        medium = Layer(
            node=wish.id, file_node=f"{wish.id}-file", path=wish.path, format="raw", read_only=True
        )
        device = Device(
            id=device.id, driver=device.driver, props={**device.props, "drive": wish.id}
        )
    return Drive(id=wish.id, kind="cdrom", device=device, medium=medium)


def _floppy(draft: Draft, unit: int, wish: wish_of.Floppy) -> Drive:
    key = f"floppy.{wish.id}"
    if unit > 1:
        draft.notes.error(key, "a PC has at most two floppy drives", hint="take one away")
    props: dict[str, object] = {"unit": unit}
    props |= {"bus": "fdc0.0"} if draft.q35 else {}
    medium = None
    if wish.path is not None:
        read_only = bool(wish.read_only)
        check_medium(draft, f"{key}.path", wish.path, write=not read_only)
        medium = Layer(
            node=wish.id,
            file_node=f"{wish.id}-file",
            path=wish.path,
            format="raw",
            read_only=read_only,
        )
        props |= {"drive": wish.id}
    return Drive(
        id=wish.id,
        kind="floppy",
        device=Device(id=f"{wish.id}-dev", driver="floppy", props=props),
        medium=medium,
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
            hint=f"qemu-img convert -O raw {path} NEW.iso",
        )
    elif write and not facts.writable:
        draft.notes.error(key, f"{path} cannot be written", hint="set read_only = true")
    elif write and facts.holder:
        draft.notes.error(key, f"{path} is in use by {facts.holder}", cause="conflict")


def controllers(
    draft: Draft, all_disks: tuple[Disk, ...], all_drives: tuple[Drive, ...]
) -> Iterator[Device]:
    """The controllers that the drives need and the board has not."""
    items: tuple[Disk | Drive, ...] = (*all_disks, *all_drives)
    buses = {str(item.device.props.get("bus", "")).partition(".")[0] for item in items}
    for ident, driver in (("scsi0", "virtio-scsi-pci"), ("ahci0", "ich9-ahci")):
        if ident in buses and ident in draft.pci.places:
            draft.has("disk", driver)
            yield Device(id=ident, driver=driver, props=draft.pci.places[ident].props())
    if "fdc0" in buses:
        yield Device(id="fdc0", driver="isa-fdc")


def request_controllers(draft: Draft) -> Iterator[Request]:
    """PCI addresses for the controllers that drives will need."""
    buses = {bus_of(draft, f"disk.{d.id}.bus", d.bus) for d in draft.profile.disk}
    buses |= {c.bus or ("sata" if draft.q35 else "ide") for c in draft.profile.cdrom}
    if "scsi" in buses:
        yield Request(id="scsi0", key="disk", express=True)
    if "sata" in buses and not draft.q35:
        yield Request(id="ahci0", key="disk")
