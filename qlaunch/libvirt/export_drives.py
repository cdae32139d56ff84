"""The drives of a profile as libvirt writes them."""

from __future__ import annotations

from collections.abc import Iterator

from qlaunch.libvirt.element import Element
from qlaunch.libvirt.export_places import alias, drive, order, pci, usb
from qlaunch.libvirt.render import element
from qlaunch.profile.devices import Cdrom, Disk
from qlaunch.profile.model import Profile

_THROTTLES = (
    ("bps", "total_bytes_sec"), ("bps_read", "read_bytes_sec"), ("bps_write", "write_bytes_sec"),
    ("iops", "total_iops_sec"), ("iops_read", "read_iops_sec"), ("iops_write", "write_iops_sec"),
)  # fmt: skip


def disks(whole: Profile, turns: dict[str, int]) -> Iterator[Element]:
    """Disks, CD and floppy drives; `turns` is the boot order."""
    names = _letters(whole)
    for disk in whole.disk:
        yield _disk(disk, names[disk.id], turns.get(disk.id))
    for cd in whole.cdrom:
        target = element("target", dev=names[cd.id], bus=cd.bus)
        found = element("disk", type="file", device="cdrom")
        found.children.append(element("driver", name="qemu", type="raw"))
        found.children += [element("source", file=cd.path)] if cd.path else []
        found.children += [target, element("readonly"), *order(turns.get(cd.id))]
        found.children += [alias(cd.id), *_seat(cd)]
        yield found
    for number, floppy in enumerate(whole.floppy):
        found = element("disk", type="file", device="floppy")
        found.children.append(element("driver", name="qemu", type="raw"))
        found.children += [element("source", file=floppy.path)] if floppy.path else []
        found.children.append(element("target", dev=f"fd{'ab'[number % 2]}", bus="fdc"))
        found.children += [element("readonly")] if floppy.read_only else []
        found.children += [*order(turns.get(floppy.id)), alias(floppy.id)]
        yield found


def _seat(item: Disk | Cdrom) -> Iterator[Element]:
    if item.bus in ("virtio", "nvme"):
        return pci(item.address)
    return usb(item.address) if item.bus == "usb" else drive(item.bus or "ide", item.address)


def _letters(whole: Profile) -> dict[str, str]:
    """What libvirt calls each item. On IDE and SATA the letter tells the seat, as for libvirt."""
    found: dict[str, str] = {}
    free = iter("ghijklmnopqrstuvwxyz" * 20)
    virtio = iter("abcdefghijklmnopqrstuvwxyz" * 20)
    seats: dict[str, list[int]] = {"ide": [], "sata": []}
    waiting: list[Disk | Cdrom] = [*whole.disk, *whole.cdrom]
    firsts = {bus: next((d.id for d in whole.cdrom if d.bus == bus), "") for bus in seats}
    # As the plan: said seats first, then the first CD drive's usual one, then free ones.
    waiting.sort(key=lambda d: (d.address is None, d.id not in firsts.values()))
    for item in waiting:
        bus = item.bus or "ide"
        if bus in seats:
            seat = _number(bus, item.address)
            if seat is None and item.id == firsts[bus]:
                usual = 2 if bus == "ide" else 1
                seat = usual if usual not in seats[bus] else None
            if seat is None:
                seat = next(n for n in range(26) if n not in seats[bus])
            seats[bus].append(seat)
            found[item.id] = f"{'hd' if bus == 'ide' else 'sd'}{chr(ord('a') + seat)}"
        elif bus in ("virtio", "nvme"):
            found[item.id] = f"vd{next(virtio)}"
        else:
            found[item.id] = f"sd{next(free)}"
    return found


def _number(bus: str, address: str | None) -> int | None:
    if address is None:
        return None
    first, _, second = address.partition(".")
    return int(first) * 2 + int(second or "0") if bus == "ide" else int(first)


def _disk(disk: Disk, name: str, turn: int | None) -> Element:
    driver = element(
        "driver",
        name="qemu",
        type=disk.format,
        cache=disk.cache,
        io=disk.aio,
        discard=disk.discard,
    )
    source = element("source", file=disk.path)
    kind = "block" if (disk.path or "").startswith("/dev/") else "file"
    if kind == "block":
        source = element("source", dev=disk.path)
    found = element("disk", driver, source, type=kind, device="disk")
    if disk.snapshot is False:
        found.attributes["snapshot"] = "no"
    if disk.backing:
        below = element("source", file=disk.backing)
        store = element("backingStore", element("format", type="qcow2"), below, type="file")
        found.children.append(store)
    bus = "virtio" if disk.bus == "nvme" else disk.bus
    removable = "on" if disk.removable and bus == "usb" else None
    found.children.append(element("target", dev=name, bus=bus, removable=removable))
    limits = [
        element(tag, text=getattr(disk, key)) for key, tag in _THROTTLES if getattr(disk, key)
    ]
    found.children += [element("iotune", *limits)] if limits else []
    found.children += [element("readonly")] if disk.read_only else []
    found.children += [element("serial", text=disk.serial)] if disk.serial else []
    found.children += [*order(turn), alias(disk.id), *_seat(disk)]
    return found
