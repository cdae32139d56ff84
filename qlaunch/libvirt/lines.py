"""Serial ports, consoles, channels and USB redirection of a domain."""

from __future__ import annotations

from qlaunch.libvirt import words
from qlaunch.libvirt.buses import Buses, isa, serial_port
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.wish import Wish
from qlaunch.libvirt.words import number as words_number

_SPICE_AGENT = "com.redhat.spice.0"
_GUEST_AGENT = "org.qemu.guest_agent.0"
_WEBDAV = "org.spice-space.webdav.0"
_IDS = {_SPICE_AGENT: "vdagent0", _GUEST_AGENT: "agent0", _WEBDAV: "webdav0"}
_CONSOLE = "`qlaunch console` and `qlaunch logs` have the port"


def lines(devices: Element, wish: Wish, buses: Buses) -> None:
    """Everything by which guest and host talk, the network apart."""
    _serials(devices, wish)
    _channels(devices, wish)
    _redirections(devices, wish, buses)


def _serials(devices: Element, wish: Wish) -> None:
    ports: list[tuple[int, Element]] = []
    for serial in devices.each("serial"):
        target = serial.within("target")
        kind = target.attribute("type") or target.within("model").attribute("name")
        target.within("model").attribute("name")
        isa(serial)
        if kind not in ("", "isa-serial"):
            wish.report.unsupported(serial, f"serial ports are those of a PC, not {kind[:40]}")
            continue
        port = words.number(target.attribute("port") or "0") or 0
        ports.append((port, serial))
        _backend(serial, wish)
    for console in devices.each("console"):
        target = console.within("target")
        kind = target.attribute("type") or "serial"
        target.attribute("port")
        isa(console)
        if kind != "serial":
            wish.report.unsupported(console, f"a console is a serial port, not {kind[:40]}")
        else:
            console.within("source").take()
            for name in ("type", "tty"):
                console.attribute(name)
            # The first console is the first serial port; alone it stands for it.
            if not ports:
                ports.append((0, console))
                _backend(console, wish)
    for at, (port, serial) in enumerate(sorted(ports, key=lambda pair: pair[0])):
        wish.item("serial", "serial0", serial)
        if port != at:
            wish.report.different(serial.within("target"), f"it is COM{at + 1} here")
    for parallel in devices.each("parallel"):
        wish.report.unsupported(parallel, "a machine has no parallel port")


def _backend(serial: Element, wish: Wish) -> None:
    kind = serial.attribute("type")
    serial.attribute("tty")
    if kind in ("pty", "", "unix", "null", "spiceport"):
        serial.within("source").take()
        return
    source = serial.first("source")
    if source is not None:
        wish.report.different(source, _CONSOLE)
    else:
        wish.report.different(serial, _CONSOLE, attribute="type")


def _channels(devices: Element, wish: Wish) -> None:
    found = []
    for channel in devices.each("channel"):
        target = channel.within("target")
        if (target.attribute("type") or "virtio") != "virtio":
            wish.report.unsupported(channel, "channels are of virtio-serial")
            continue
        kind = channel.attribute("type")
        name = target.attribute("name")
        if kind == "spicevmc":
            name = name or _SPICE_AGENT
        elif kind == "spiceport":
            channel.within("source").attribute("channel")
        elif kind == "qemu-vdagent":
            channel.within("source").take()
            name = _SPICE_AGENT
        elif kind not in ("unix", "pty", ""):
            what = "its other end is a unix socket (`qlaunch status`)"
            wish.report.different(channel, what, attribute="type")
        found.append((serial_port(channel), kind, name, channel))
    for number, (port, kind, name, channel) in enumerate(found, 1):
        item = wish.item("channel", _IDS.get(name, f"channel{number - 1}"), channel)
        spice = kind in ("spicevmc", "spiceport", "qemu-vdagent")
        kinds = {_GUEST_AGENT: "guest-agent", _SPICE_AGENT: "spicevmc"}
        wish.put(
            channel,
            "channel",
            item,
            "type",
            "spicevmc" if spice else kinds.get(name, "socket"),
        )
        if name:
            wish.put(channel, "channel", item, "name", name)
        wish.put(channel, "channel", item, "port", port or number)
    has_webdav = any(name == _WEBDAV for _port, _kind, name, _channel in found)
    wish.say(devices, "display.folder_sharing", has_webdav)


def _rule(usbdev: Element) -> str:
    """A rule as `usb.filter` says it: what the device is for, and which it is."""
    verb = "allow" if usbdev.is_on("allow") else "deny"
    said = {name: usbdev.attribute(name) for name in ("class", "vendor", "product", "version")}
    said = {name: "" if value == "-1" else value for name, value in said.items()}
    words = [verb]
    if number := words_number(said["class"]):
        words.append(f"class {number:#04x}")
    if said["vendor"]:
        vendor, product = (said[name].lower().removeprefix("0x") for name in ("vendor", "product"))
        which = f"{vendor:0>4}:{product:0>4}" if product else f"{vendor:0>4}:*"
        words.append(which + (f"@{said['version']}" if said["version"] else ""))
    return " ".join(words if len(words) > 1 else [verb, "all"])


def _redirections(devices: Element, wish: Wish, buses: Buses) -> None:
    ports: list[int] = []
    count = 0
    for each in devices.each("redirdev"):
        bus, kind = each.attribute("bus"), each.attribute("type")
        if bus not in ("usb", "") or kind not in ("spicevmc", ""):
            wish.report.unsupported(each, "devices come over USB from a SPICE client")
            continue
        count += 1
        place = words.number(buses.usb(each, wish) or "")
        boot = each.first("boot")
        if boot is not None:
            wish.report.unsupported(boot, "nothing boots from a client's device")
        if place is not None:
            ports.append(place)
    wish.say(devices, "usb.redirect", count)
    rules = tuple(
        _rule(each) for block in devices.each("redirfilter") for each in block.each("usbdev")
    )
    if rules and count:
        wish.say(devices, "usb.filter", rules)
    if ports and len(ports) == count:
        wish.say(devices, "usb.redirect_ports", tuple(ports))
