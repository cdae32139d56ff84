"""The smaller devices of a domain: input, balloon, random numbers, TPM, watchdog, shares."""

from __future__ import annotations

import os

from qlaunch.libvirt.board import is_q35
from qlaunch.libvirt.buses import Buses, isa
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.wish import Wish

_INPUTS = {
    ("tablet", "usb"): ("tablet0", "usb-tablet"),
    ("mouse", "usb"): ("mouse0", "usb-mouse"),
    ("keyboard", "usb"): ("keyboard0", "usb-kbd"),
    ("tablet", "virtio"): ("tablet0", "virtio-tablet"),
    ("keyboard", "virtio"): ("keyboard0", "virtio-keyboard"),
}
_UNKNOWN = {
    "smartcard": "there is no card reader",
    "hub": "there are no USB hubs",
    "shmem": "machines share no memory",
    "memory": "memory is there from the start",
    "iommu": "there is no IOMMU in the guest",
    "vsock": "there is no vsock; a channel or the network has its place",
    "nvram": "of other architectures",
    "crypto": "there is no virtio-crypto",
    "lease": "qlaunch locks images by itself",
    "pstore": "there is no pstore",
}


def parts(domain: Element, wish: Wish, buses: Buses) -> None:
    """Every device that is no drive, card or line."""
    devices = domain.within("devices")
    _inputs(devices, wish, buses)
    _balloon(devices, wish, buses)
    _rng(devices, wish, buses)
    _tpm(devices, wish)
    _watchdog(devices, wish, buses)
    _panic(devices, wish)
    _shares(devices, wish, buses)
    _hostdevs(devices, wish, buses)
    genid = domain.first("genid")
    wish.say(domain, "machine.generation_id", genid is not None)
    if genid is not None:
        wish.report.different(genid, "QEMU makes the id")
    domain.within("memoryBacking")
    for tag, why in _UNKNOWN.items():
        for element in devices.each(tag):
            wish.report.unsupported(element, why)


def _inputs(devices: Element, wish: Wish, buses: Buses) -> None:
    for element in devices.each("input"):
        kind, bus = element.attribute("type"), element.attribute("bus") or "ps2"
        if bus == "ps2" and _is_ours(element):
            item = wish.item("input", "mouse0", element)
            wish.put(element, "input", item, "model", "ps2-mouse")
            continue
        if bus == "ps2" or (kind in ("mouse", "keyboard") and bus not in ("usb", "virtio")):
            element.take()  # every PC has them
            continue
        known = _INPUTS.get((kind, bus))
        if known is None:
            what = f"there is no {kind[:20]} on {bus[:20]} here"
            wish.report.unsupported(element, what)
            continue
        ident, model = known
        item = wish.item("input", ident, element)
        wish.put(element, "input", item, "model", model)
        place = buses.usb(element, wish) if bus == "usb" else buses.pci(element, wish)
        if place is not None:
            wish.put(element, "input", item, "address", place)


def _is_ours(element: Element) -> bool:
    """Whether a PS/2 mouse is one that a profile names, not the one that libvirt always writes."""
    return any(
        child.tag == "alias" and child.attributes.get("name", "").startswith("ua-")
        for child in element.children
    )


def _balloon(devices: Element, wish: Wish, buses: Buses) -> None:
    element = devices.first("memballoon")
    model = element.attribute("model") if element is not None else "virtio"
    wish.say(devices, "memory.balloon", model != "none")
    if element is None:
        return
    if model == "none":
        if wish.tables.get("memory", {}).pop("current", None) is not None:
            what = "memory is taken back by a balloon, and there is none"
            wish.report.different(element, what, attribute="model")
        return
    _place(element, "balloon0", wish, buses)


def _rng(devices: Element, wish: Wish, buses: Buses) -> None:
    found = list(devices.each("rng"))
    wish.say(devices, "machine.rng", bool(found))
    for extra in found[1:]:
        wish.report.unsupported(extra, "one random number generator is enough")
    if not found:
        return
    element = found[0]
    element.attribute("model")
    backend = element.within("backend")
    kind = backend.attribute("model")
    if kind not in ("random", "builtin", "") or backend.words() not in (
        "", "/dev/urandom", "/dev/random", "/dev/hwrng",
    ):  # fmt: skip
        wish.report.different(backend, "random numbers come from /dev/urandom")
    rate = element.first("rate")
    if rate is not None:
        wish.report.different(rate, "the guest takes as many as it likes")
    _place(element, "rng0", wish, buses)


def _tpm(devices: Element, wish: Wish) -> None:
    element = devices.first("tpm")
    if element is None:
        wish.say(devices, "machine.tpm", value=False)
        return
    model, backend = element.attribute("model"), element.within("backend")
    kind, version = backend.attribute("type"), backend.attribute("version")
    if kind not in ("emulator", ""):
        wish.report.unsupported(backend, f"a TPM is emulated, not {kind[:40]}")
        return
    if version == "1.2":
        wish.report.unsupported(backend, "a TPM is of version 2.0", attribute="version")
    expected = "tpm-crb" if is_q35(wish) else "tpm-tis"
    if model and model != expected:
        what = f"the TPM is a {expected} here"
        wish.report.different(element, what, attribute="model")
    for name in ("persistent_state", "debug"):
        backend.attribute(name)
    for child in backend.each("encryption"):
        wish.report.unsupported(child, "the TPM's state is not encrypted")
    wish.say(element, "machine.tpm", value=True)


def _watchdog(devices: Element, wish: Wish, buses: Buses) -> None:
    for element in devices.each("watchdog"):
        model, action = element.attribute("model"), element.attribute("action") or "reset"
        if model == "itco":
            wish.report.different(element, "the board's own watchdog is not armed")
            continue
        if model not in ("i6300esb", "ib700"):
            wish.report.unsupported(element, f"there is no watchdog {model[:40]!r} here")
            continue
        wish.say(element, "machine.watchdog", model)
        if action == "dump":
            wish.report.different(element, "`qlaunch dump` writes memory", attribute="action")
            action = "pause"
        wish.say(element, "machine.watchdog_action", action)
        _place(element, "watchdog0", wish, buses)


def _panic(devices: Element, wish: Wish) -> None:
    isa_panic = False
    for element in devices.each("panic"):
        model = element.attribute("model") or "isa"
        isa(element)
        if model == "isa":
            isa_panic = True
        elif model == "hyperv":
            wish.cpu_flags.append("+hv-crash")
        else:
            wish.report.unsupported(element, f"there is no panic device {model[:40]!r} here")
    wish.say(devices, "machine.panic", isa_panic)


def _shares(devices: Element, wish: Wish, buses: Buses) -> None:
    for element in devices.each("filesystem"):
        kind = element.attribute("type") or "mount"
        driver = element.within("driver")
        source, target = element.within("source"), element.within("target")
        tag, path = target.attribute("dir"), source.attribute("dir")
        if kind != "mount" or not path:
            wish.report.unsupported(element, "a share is a folder of this computer")
            continue
        item = wish.item("share", os.path.basename(tag) or "share0", element)
        wish.put(element, "share", item, "path", path)
        if tag and tag != item["id"]:
            wish.put(element, "share", item, "tag", tag)
        if element.first("readonly") is not None:
            wish.put(element, "share", item, "read_only", value=True)
        if driver.attribute("type") == "virtiofs":
            what = "it is shared by 9p: in the guest, mount -t 9p TAG FOLDER"
            wish.report.different(driver, what, attribute="type")
        access = element.attribute("accessmode") or "passthrough"
        if access not in ("passthrough", "squash"):
            what = "the guest's users are those of QEMU"
            wish.report.different(element, what, attribute="accessmode")
        for name in ("multidevs", "model", "fmode", "dmode"):
            element.attribute(name)
        place = buses.pci(element, wish)
        if place is not None:
            wish.places[f"{item['id']}-dev"] = place


def _hostdevs(devices: Element, wish: Wish, buses: Buses) -> None:
    """USB devices of the host, by what they are; the number that one has today says nothing."""
    for element in devices.each("hostdev"):
        kind = element.attribute("type")
        source = element.within("source")
        vendor, product = (
            source.within(tag).attribute("id").lower().removeprefix("0x")
            for tag in ("vendor", "product")
        )
        if kind != "usb":
            what = f"devices of the host are given away on USB, not on {kind[:40]}"
            wish.report.unsupported(element, what)
            continue
        if not vendor or not product:
            what = "say which device it is: `qlaunch usb list`, then [[hostdev]]"
            wish.report.unsupported(element, what)
            continue
        item = wish.item("hostdev", "usb0", element)
        wish.put(element, "hostdev", item, "device", f"{vendor:0>4}:{product:0>4}")
        for name in ("mode", "managed"):
            element.attribute(name)
        place = buses.usb(element, wish)
        if place is not None:
            wish.put(element, "hostdev", item, "address", place)
        for name in ("startupPolicy", "guestReset"):
            source.attribute(name)


def _place(element: Element, ident: str, wish: Wish, buses: Buses) -> None:
    place = buses.pci(element, wish)
    if place is not None:
        wish.places[ident] = place
