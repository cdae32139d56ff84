"""Disks, CD and floppy drives of a domain."""

from __future__ import annotations

from typing import Any

from qlaunch.libvirt import words
from qlaunch.libvirt.board import is_q35
from qlaunch.libvirt.buses import Buses, drive
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.wish import Wish

_BUSES = ("ide", "sata", "scsi", "virtio", "usb", "nvme")
_SOURCES = {"file": "file", "block": "dev", "dir": "dir"}
_THROTTLES = {
    "total_bytes_sec": "bps",
    "read_bytes_sec": "bps_read",
    "write_bytes_sec": "bps_write",
    "total_iops_sec": "iops",
    "read_iops_sec": "iops_read",
    "write_iops_sec": "iops_write",
}
_CACHES = ("none", "writeback", "writethrough", "directsync", "unsafe")


def disks(devices: Element, wish: Wish, buses: Buses) -> None:
    """Every `<disk>`."""
    for disk in devices.each("disk"):
        device = disk.attribute("device") or "disk"
        if device in ("disk", "lun"):
            _disk(disk, wish, buses)
        elif device == "cdrom":
            _cdrom(disk, wish, buses)
        elif device == "floppy":
            _floppy(disk, wish)
        else:
            wish.report.unsupported(disk, f"there is no drive of the kind {device[:40]!r}")


def source_of(disk: Element, wish: Wish) -> str | None:
    """The file of a drive, or the block device; empty without one, None for what is neither."""
    kind = disk.attribute("type") or "file"
    source = disk.first("source")
    if source is None:
        return ""
    name = _SOURCES.get(kind)
    if name is None:
        what = f"images are files or block devices, not of the type {kind[:40]!r}"
        wish.report.unsupported(source, what)
        return None
    # People write file= in a block disk and the other way round.
    found = source.attribute(name) or source.attribute("file") or source.attribute("dev")
    if source.attribute("lock") not in ("", "exclusive"):
        wish.report.unsupported(source, "qlaunch locks every image", attribute="lock")
    return found


def bus_of(disk: Element, wish: Wish, *, cdrom: bool = False) -> str:
    """The bus, as libvirt guesses it by the name where it is not said."""
    target = disk.within("target")
    bus, name = target.attribute("bus"), target.attribute("dev")
    guessed = {"hd": "ide", "sd": "scsi", "vd": "virtio", "ub": "usb"}.get(name[:2], "ide")
    bus = bus or guessed
    if bus not in _BUSES:
        wish.report.unsupported(target, f"there is no bus {bus[:40]!r} here", attribute="bus")
        bus = "sata" if is_q35(wish) else "ide"
    if cdrom and bus in ("virtio", "nvme"):
        wish.report.different(target, f"a CD drive is not on {bus}", attribute="bus")
        return "sata" if is_q35(wish) else "ide"
    return bus


def _disk(disk: Element, wish: Wish, buses: Buses) -> None:
    name = disk.within("target").attribute("dev") or "disk0"
    path = source_of(disk, wish)
    if path is None:
        what = "a disk without a file or block device is left out"
        wish.report.unsupported(disk, what)
        return
    item = wish.item("disk", name, disk)
    if path:
        wish.put(disk, "disk", item, "path", path)
    if disk.attribute("device") == "lun":
        wish.report.unsupported(disk, "SCSI commands reach no disk of the host", attribute="device")
    driver = disk.within("driver")
    _format(disk, driver, item, wish)
    bus = bus_of(disk, wish)
    wish.put(disk, "disk", item, "bus", bus)
    _place("disk", disk, item, bus, wish, buses)
    removable = disk.within("target").attribute("removable")
    if removable and bus == "usb":
        wish.put(disk, "disk", item, "removable", removable == "on")
    _modes(disk, driver, item, wish)
    _turn(disk, item, wish)
    _throttle(disk.within("iotune"), item, wish)
    _backing(disk, item, wish)


def _format(disk: Element, driver: Element, item: dict[str, Any], wish: Wish) -> None:
    kind = driver.attribute("type") or "raw"
    if kind not in ("qcow2", "raw"):
        what = f"images are qcow2 or raw; `qemu-img convert -O qcow2` makes one of {kind[:40]}"
        wish.report.unsupported(driver, what, attribute="type")
        kind = "qcow2"
    wish.put(disk, "disk", item, "format", kind)


def _modes(disk: Element, driver: Element, item: dict[str, Any], wish: Wish) -> None:
    cache, aio = driver.attribute("cache"), driver.attribute("io")
    if cache in _CACHES:
        wish.put(driver, "disk", item, "cache", cache)
    elif cache not in ("", "default"):
        wish.report.unsupported(driver, "there is no such cache mode", attribute="cache")
    if aio == "native" and cache not in ("none", "directsync"):
        what = 'needs cache="none" or "directsync"; threads are taken'
        wish.report.different(driver, what, attribute="io")
    elif aio:
        wish.put(driver, "disk", item, "aio", aio)
    if discard := driver.attribute("discard"):
        wish.put(driver, "disk", item, "discard", discard)
    serial = disk.first("serial")
    if serial is not None and serial.words():
        wish.put(serial, "disk", item, "serial", serial.words())
    if disk.first("readonly") is not None:
        if item.get("bus") in ("ide", "sata"):
            what = "a disk on IDE or SATA cannot be read-only: the guest can write to it"
            wish.report.unsupported(disk.within("readonly"), what)
        else:
            wish.put(disk, "disk", item, "read_only", value=True)
    if disk.attribute("snapshot") == "no":
        wish.put(disk, "disk", item, "snapshot", value=False)
    elif disk.attribute("snapshot") in ("internal", "manual"):
        what = "`qlaunch snapshot` chooses the kind each time"
        wish.report.different(disk, what, attribute="snapshot")
    shareable = disk.first("shareable")
    if shareable is not None:
        what = "an image belongs to one machine; lock = false would let two destroy it"
        wish.report.unsupported(shareable, what)
    transient = disk.first("transient")
    if transient is not None:
        wish.report.unsupported(transient, "`qlaunch revert` brings the disk back")


def _turn(disk: Element, item: dict[str, Any], wish: Wish) -> None:
    """The place in the boot order that a device says itself."""
    boot = disk.first("boot")
    if boot is None:
        return
    order = words.number(boot.attribute("order"))
    boot.attribute("loadparm")
    if order is not None and item["id"]:
        wish.turns[order] = item["id"]


turn = _turn


def _throttle(tune: Element, item: dict[str, Any], wish: Wish) -> None:
    for tag, key in _THROTTLES.items():
        element = tune.first(tag)
        if element is None:
            continue
        value = words.number(element.words())
        if value is None:
            wish.report.unsupported(element, "is no number")
        elif value:
            wish.put(element, "disk", item, key, value)
    for total in ("iops", "bps"):
        if item.get(total) and (item.pop(f"{total}_read", 0) or item.pop(f"{total}_write", 0)):
            item.pop(f"{total}_write", 0)
            wish.report.different(tune, f"the limit of all (`{total}`) counts")


def _backing(disk: Element, item: dict[str, Any], wish: Wish) -> None:
    """The first image below; those below it are known to the images."""
    store = disk.first("backingStore")
    if store is None:
        return
    source = store.within("source")
    path = source.attribute("file") or source.attribute("dev")
    below = store.first("backingStore")
    for name in ("type", "index"):
        store.attribute(name)
    source.attribute("index")
    store.within("format").attribute("type")
    if path:
        wish.put(source, "disk", item, "backing", path)
        if below is not None:
            below.take()
    elif store.children and store.attribute("type") not in ("", "file", "block"):
        wish.report.unsupported(store, "what it stands on is no file")


def _place(
    array: str, disk: Element, item: dict[str, Any], bus: str, wish: Wish, buses: Buses
) -> None:
    address: str | None
    if bus in ("virtio", "nvme"):
        address = buses.pci(disk, wish)
    elif bus == "usb":
        address = buses.usb(disk, wish)
    else:
        address = _seat(disk, bus, wish)
    if address is not None:
        wish.put(disk, array, item, "address", address)


def _seat(disk: Element, bus: str, wish: Wish) -> str | None:
    """The position on IDE, SATA or SCSI; by the name as libvirt counts where it is not said."""
    said = drive(disk)
    if said is None:
        name = disk.within("target").attribute("dev")
        number = ord(name[2]) - ord("a") if len(name) == 3 and name[2].isalpha() else -1
        if bus == "ide" and 0 <= number < 4:
            return f"{number // 2}.{number % 2}"
        if bus == "sata" and 0 <= number < 6:
            return str(number)
        return None
    controller, channel, target, unit = said
    if bus == "ide" and controller == 0 and channel < 2 and unit < 2:
        return f"{channel}.{unit}"
    if bus == "sata" and controller == 0 and unit < 6:
        return str(unit)
    if bus == "scsi" and controller == 0 and target < 256 and unit < 64:
        return f"{target}.{unit}" if unit else str(target)
    wish.report.different(disk.within("address"), "there is no such place here; it gets another")
    return None


def _cdrom(disk: Element, wish: Wish, buses: Buses) -> None:
    item = wish.item("cdrom", "cd0", disk)
    path = source_of(disk, wish)
    if path:
        wish.put(disk, "cdrom", item, "path", path)
    bus = bus_of(disk, wish, cdrom=True)
    wish.put(disk, "cdrom", item, "bus", bus)
    _place("cdrom", disk, item, bus, wish, buses)
    disk.first("readonly")
    _medium(disk)
    _turn(disk, item, wish)


def _floppy(disk: Element, wish: Wish) -> None:
    item = wish.item("floppy", "fd0", disk)
    path = source_of(disk, wish)
    if path:
        wish.put(disk, "floppy", item, "path", path)
    if disk.first("readonly") is not None:
        wish.put(disk, "floppy", item, "read_only", value=True)
    disk.within("target").take()
    drive(disk)
    _medium(disk)
    _turn(disk, item, wish)


def _medium(disk: Element) -> None:
    """What a drive with removable media says and what means nothing for it."""
    for name in ("type", "cache", "io", "discard"):
        disk.within("driver").attribute(name)
    store = disk.first("backingStore")
    if store is not None:
        store.take()
    disk.attribute("snapshot")
