"""The devices of a profile as libvirt writes them, each with its id as an alias (`ua-ID`)."""

from __future__ import annotations

from collections.abc import Iterator

from qlaunch.libvirt.element import Element
from qlaunch.libvirt.export_drives import disks
from qlaunch.libvirt.export_places import alias, named, order, pci, usb
from qlaunch.libvirt.filled import drives_of, is_q35
from qlaunch.libvirt.render import element
from qlaunch.plan.lines import WEBDAV
from qlaunch.plan.pci import parse, parse_port
from qlaunch.profile.devices import Nic
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import BOOT_ORDER

_USB = {"xhci": "qemu-xhci"}
_VIDEOS = {"std": "vga"}
_SOUNDS = {"hda": "ich9"}
_INPUTS = {
    "usb-tablet": ("tablet", "usb"), "usb-mouse": ("mouse", "usb"), "usb-kbd": ("keyboard", "usb"),
    "ps2-mouse": ("mouse", "ps2"), "virtio-tablet": ("tablet", "virtio"),
    "virtio-keyboard": ("keyboard", "virtio"),
}  # fmt: skip


def devices(whole: Profile) -> Element:
    """The `<devices>` of a filled profile."""
    found = element("devices")
    add = found.children.extend
    emulator = whole.machine.emulator
    arch = whole.machine.arch or "x86_64"
    add([element("emulator", text=emulator or f"/usr/bin/qemu-system-{arch}")])
    turns = _turns(whole)
    add(disks(whole, turns))
    add(_controllers(whole))
    add(_nic(whole, nic, turns.get(nic.id)) for nic in whole.nic)
    add(_inputs(whole))
    add(_lines(whole))
    add(_screen(whole))
    add(_redirections(whole))
    add(_parts(whole))
    return found


def _turns(whole: Profile) -> dict[str, int]:
    """The place of each device in the boot order."""
    kinds = {
        "disk": [disk.id for disk in whole.disk],
        "cdrom": [drive.id for drive in whole.cdrom],
        "floppy": [drive.id for drive in whole.floppy],
        "network": [nic.id for nic in whole.nic],
    }
    found: dict[str, int] = {}
    for word in whole.boot.order or BOOT_ORDER:
        for ident in kinds.get(word, [word]):
            found.setdefault(ident, len(found) + 1)
    return found


# ---- controllers --------------------------------------------------------------------------------


def _controllers(whole: Profile) -> Iterator[Element]:
    yield from _usb_controllers(whole)
    buses = {drive.bus for drive in drives_of(whole)}
    if "scsi" in buses:
        place = named(whole, "scsi0")
        yield element("controller", *place, type="scsi", index=0, model="virtio-scsi")
    if "sata" in buses and not is_q35(whole):
        yield element("controller", *named(whole, "ahci0"), type="sata", index=0)
    if whole.channel:
        yield element("controller", *named(whole, "vser0"), type="virtio-serial", index=0)
    yield from _root_ports(whole)


def _usb_controllers(whole: Profile) -> Iterator[Element]:
    controller, address = whole.usb.controller or "none", whole.usb.address
    model = _USB.get(controller, controller)
    place = list(pci(address)) if controller != "none" else []
    ports = 15 if controller == "xhci" else None
    yield element("controller", *place, type="usb", index=0, model=model, ports=ports)
    if controller != "ich9-ehci1":
        return
    slot = parse(address)[0] if address and parse(address) else None  # type: ignore[index]
    for number in range(3):
        where = list(pci(f"{slot:02x}.{number}")) if slot is not None else []
        if where and number == 0:
            where[0].attributes["multifunction"] = "on"
        yield element(
            "controller",
            element("master", startport=number * 2),
            *where,
            type="usb",
            index=0,
            model=f"ich9-uhci{number + 1}",
        )


def _root_ports(whole: Profile) -> Iterator[Element]:
    """The root ports up to the last one that is asked for."""
    if not is_q35(whole):
        return
    said = [word.partition("=")[2] for word in whole.machine.pci]
    said += [item.address for item in whole.disk if item.address]
    said += [item.address for item in whole.input if item.address]
    said += [item.address for item in whole.nic if item.address]
    said += [word for word in (whole.usb.address, whole.video.address) if word]
    last = max((port for text in said if (port := parse_port(text)) is not None), default=-1)
    for number in range(last + 1):
        place = list(pci(f"{2 + number // 8:02x}.{number % 8}"))
        if number % 8 == 0:
            place[0].attributes["multifunction"] = "on"
        yield element(
            "controller",
            element("target", chassis=number + 1, port=f"{0x10 + number:#x}"),
            *place,
            type="pci",
            index=number + 1,
            model="pcie-root-port",
        )


# ---- cards --------------------------------------------------------------------------------------


def _nic(whole: Profile, nic: Nic, turn: int | None) -> Element:
    network = nic.network or ("default" if nic.backend == "auto" else None)
    found = element("interface", type="network" if network else "user")
    add = found.children.append
    if nic.mac:
        add(element("mac", address=nic.mac))
    if network:
        add(element("source", network=network))
    add(element("model", type=nic.model))
    if network and nic.filter in ("clean", "mac"):
        name = "clean-traffic" if nic.filter == "clean" else "no-mac-spoofing"
        add(element("filterref", filter=name))
    if (nic.queues or 1) > 1 and network:
        add(element("driver", name="vhost", queues=nic.queues))
    if nic.link == "down":
        add(element("link", state="down"))
    found.children += [*order(turn), alias(nic.id), *pci(nic.address)]
    return found


def _screen(whole: Profile) -> Iterator[Element]:
    display, video = whole.display, whole.video
    if display.spice:
        yield _spice(whole)
    if display.vnc:
        yield _listening(element("graphics", type="vnc"), display.vnc_port, display.listen)
    model = video.model or "std"
    card = element("model", type=_VIDEOS.get(model, model), heads=video.heads)
    for name in ("ram", "vram", "vgamem"):
        size = getattr(video, name)
        if size is not None and (model == "qxl" or (model == "std" and name == "vram")):
            card.attributes[name] = str(size >> 10)
    yield element("video", card, *(pci(video.address) if model != "none" else ()))
    sound = whole.sound.model or "none"
    if sound != "none":
        address = whole.sound.address
        place = usb(address) if sound == "usb" else pci(address)
        yield element("sound", *place, model=_SOUNDS.get(sound, sound))


def _listening(graphics: Element, port: int | None, listen: str | None) -> Element:
    graphics.attributes["autoport"] = "no" if port else "yes"
    if port:
        graphics.attributes["port"] = str(port)
        address = listen or "127.0.0.1"
        graphics.children.append(element("listen", type="address", address=address))
    return graphics


def _spice(whole: Profile) -> Element:
    display = whole.display
    found = _listening(element("graphics", type="spice"), display.port, display.listen)
    if display.tls_port:
        found.attributes |= {"tlsPort": str(display.tls_port), "autoport": "no"}
        if not display.port:
            address = display.listen or "127.0.0.1"
            found.children.append(element("listen", type="address", address=address))
    if display.compression:
        found.children.append(element("image", compression=display.compression))
    if display.agent_mouse is not None:
        mode = "client" if display.agent_mouse else "server"
        found.children.append(element("mouse", mode=mode))
    if display.clipboard is False:
        found.children.append(element("clipboard", copypaste="no"))
    if display.file_transfer is False:
        found.children.append(element("filetransfer", enable="no"))
    return found


# ---- the rest -----------------------------------------------------------------------------------


def _inputs(whole: Profile) -> Iterator[Element]:
    for item in whole.input:
        kind, bus = _INPUTS[item.model or "usb-tablet"]
        place = usb(item.address) if bus == "usb" else pci(item.address)
        yield element("input", alias(item.id), *place, type=kind, bus=bus)


def _lines(whole: Profile) -> Iterator[Element]:
    for number, serial in enumerate(whole.serial):
        target = element("target", type="isa-serial", port=number)
        yield element("serial", target, alias(serial.id), type="pty")
    for channel in whole.channel:
        target = element("target", type="virtio", name=channel.name)
        found = element("channel", target, type="unix")
        if channel.type == "spicevmc" and channel.name == WEBDAV:
            found.attributes["type"] = "spiceport"
            found.children.insert(0, element("source", channel=channel.name))
        elif channel.type == "spicevmc":
            found.attributes["type"] = "spicevmc"
        found.children.append(alias(channel.id))
        if channel.port is not None:
            place = element("address", type="virtio-serial", controller=0, bus=0, port=channel.port)
            found.children.append(place)
        yield found


def _redirections(whole: Profile) -> Iterator[Element]:
    ports = whole.usb.redirect_ports
    for number in range(whole.usb.redirect or 0 if whole.display.spice else 0):
        place = usb(str(ports[number])) if number < len(ports) else ()
        yield element("redirdev", *place, bus="usb", type="spicevmc")


def _hostdevs(whole: Profile) -> Iterator[Element]:
    """USB devices by what they are; one by its port is a matter of the metadata."""
    for item in whole.hostdev:
        vendor, colon, product = (item.device or "").partition(":")
        if colon:
            ids = (element("vendor", id=f"0x{vendor}"), element("product", id=f"0x{product}"))
            yield element(
                "hostdev",
                element("source", *ids),
                alias(item.id),
                *usb(item.address),
                mode="subsystem",
                type="usb",
                managed="yes",
            )


def _parts(whole: Profile) -> Iterator[Element]:
    machine = whole.machine
    yield from _hostdevs(whole)
    for share in whole.share:
        found = element("filesystem", type="mount", accessmode="passthrough")
        found.children.append(element("source", dir=share.path))
        found.children.append(element("target", dir=share.tag or share.id))
        found.children += [element("readonly")] if share.read_only else []
        found.children += [alias(share.id), *named(whole, f"{share.id}-dev")]
        yield found
    if machine.tpm:
        model = "tpm-crb" if is_q35(whole) else "tpm-tis"
        backend = element("backend", type="emulator", version="2.0")
        yield element("tpm", backend, model=model)
    if machine.watchdog and machine.watchdog != "none":
        action = machine.watchdog_action or "reset"
        place = named(whole, "watchdog0") if machine.watchdog == "i6300esb" else ()
        yield element("watchdog", *place, model=machine.watchdog, action=action)
    if machine.rng:
        backend = element("backend", text="/dev/urandom", model="random")
        yield element("rng", backend, *named(whole, "rng0"), model="virtio")
    if machine.panic:
        yield element("panic", model="isa")
    model = "virtio" if whole.memory.balloon else "none"
    place = named(whole, "balloon0") if whole.memory.balloon else ()
    yield element("memballoon", *place, model=model)
