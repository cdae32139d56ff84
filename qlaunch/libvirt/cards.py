"""Network, graphics and sound cards of a domain, and how its screen can be reached."""

from __future__ import annotations

import re
from typing import Any

from qlaunch.libvirt import words
from qlaunch.libvirt.buses import Buses
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.storage import turn
from qlaunch.libvirt.wish import Wish
from qlaunch.profile.fields import NETWORK_NAME

_MIB = 1 << 20
_NICS = {
    "rtl8139": "rtl8139",
    "pcnet": "pcnet",
    "e1000": "e1000",
    "e1000-82540em": "e1000",
    "e1000e": "e1000e",
    "virtio": "virtio",
    "virtio-transitional": "virtio",
    "virtio-non-transitional": "virtio",
    "virtio-net-pci": "virtio",
}
_FILTERS = {
    "clean-traffic": "clean",
    "clean-traffic-gateway": "clean",
    "no-mac-spoofing": "mac",
    "no-ip-spoofing": "clean",
    "no-arp-spoofing": "clean",
}
_VIDEOS = {
    "qxl": "qxl", "vga": "std", "bochs": "std", "virtio": "virtio", "cirrus": "cirrus",
    "none": "none",
}  # fmt: skip
_SOUNDS = {
    "ac97": "ac97", "ich6": "ich6", "ich7": "ich6", "ich9": "hda", "hda": "hda", "usb": "usb",
}  # fmt: skip
DEFAULT_NETWORK = "default"


# ---- network ------------------------------------------------------------------------------------


def nics(devices: Element, wish: Wish, buses: Buses) -> None:
    """Every `<interface>`."""
    for interface in devices.each("interface"):
        item = wish.item("nic", "net0", interface)
        _cable(interface, item, wish)
        model = interface.within("model").attribute("type") or "rtl8139"
        if model in _NICS:
            wish.put(interface, "nic", item, "model", _NICS[model])
        else:
            what = f"there is no card {model[:40]!r} here"
            wish.report.unsupported(interface.within("model"), what)
        if mac := interface.within("mac").attribute("address"):
            wish.put(interface, "nic", item, "mac", mac.lower())
        for name in ("type", "check", "currentAddress"):
            interface.within("mac").attribute(name)
        if interface.within("link").attribute("state") == "down":
            wish.put(interface, "nic", item, "link", "down")
        place = buses.pci(interface, wish)
        if place is not None:
            wish.put(interface, "nic", item, "address", place)
        turn(interface, item, wish)
        _filter(interface, item, wish)
        _queues(interface, item, wish)


def _cable(interface: Element, item: dict[str, Any], wish: Wish) -> None:
    kind = interface.attribute("type")
    source = interface.within("source")
    backend = interface.within("backend").attribute("type")
    if kind == "network":
        name = source.attribute("network")
        _network(interface, item, name, wish)
    elif kind == "bridge":
        bridge = source.attribute("bridge")
        name = re.sub(r"[^a-z0-9_-]", "-", bridge.lower())[:15].lstrip("-_")
        wish.put(source, "nic", item, "network", name or "bridge")
        what = f'networks/{name}.toml says mode = "bridge" and bridge = "{bridge[:15]}"'
        wish.report.different(interface, what, attribute="type")
    elif kind == "user":
        wish.put(interface, "nic", item, "backend", "passt" if backend == "passt" else "user")
        _forwards(interface, item, wish)
    elif kind == "null":
        wish.put(interface, "nic", item, "backend", "none")
    else:
        wish.put(interface, "nic", item, "backend", "user")
        what = f"a card is plugged into a network, not into {kind[:40]!r}: it gets QEMU's own NAT"
        if kind == "direct":
            what = 'a network of mode = "uplink" has its place; until then it gets QEMU\'s own NAT'
        source.take()
        wish.report.unsupported(interface, what, attribute="type")


def _network(interface: Element, item: dict[str, Any], name: str, wish: Wish) -> None:
    if name == DEFAULT_NETWORK:
        why = "the network `default` where there is one, else what needs no root"
        wish.put(interface, "nic", item, "backend", "auto", why)
        return
    tame = re.sub(r"[^a-z0-9_-]", "-", name.lower())[:15].lstrip("-_")
    if not re.fullmatch(NETWORK_NAME, name):
        what = f"the network {name[:40]!r} is called {tame!r} here"
        wish.report.different(interface.within("source"), what, attribute="network")
    wish.put(interface, "nic", item, "network", tame)
    if portgroup := interface.within("source").attribute("portgroup"):
        what = f"there are no port groups ({portgroup[:40]})"
        wish.report.unsupported(interface.within("source"), what, attribute="portgroup")


def _forwards(interface: Element, item: dict[str, Any], wish: Wish) -> None:
    found = []
    for forward in interface.each("portForward"):
        protocol, address = forward.attribute("proto"), forward.attribute("address")
        for ports in forward.each("range"):
            first = ports.attribute("start")
            last = ports.attribute("end") or first
            to = words.number(ports.attribute("to") or first) or 0
            span = (words.number(last) or 0) - (words.number(first) or 0)
            own = first if last == first else f"{first}-{last}"
            guest = str(to) if last == first else f"{to}-{to + span}"
            where = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
            found.append(f"{'udp:' if protocol == 'udp' else ''}{where}{own}:{guest}")
    if found:
        wish.put(interface, "nic", item, "forward", tuple(found[:256]))


def _filter(interface: Element, item: dict[str, Any], wish: Wish) -> None:
    filters = interface.first("filterref")
    if filters is None:
        return
    name = filters.attribute("filter")
    known = _FILTERS.get(name)
    for parameter in filters.each("parameter"):
        if parameter.attribute("name") == "IP" and "network" in item:
            wish.put(parameter, "nic", item, "ipv4", parameter.attribute("value"))
        else:
            wish.report.different(parameter, "the network knows the guest's addresses")
    if known is None:
        wish.report.unsupported(filters, f"there is no filter {name[:40]!r}")
    elif "network" in item:
        wish.put(filters, "nic", item, "filter", known)


def _queues(interface: Element, item: dict[str, Any], wish: Wish) -> None:
    driver = interface.first("driver")
    count = words.number(driver.attribute("queues")) if driver is not None else None
    if driver is None or not count or count < 2:
        return
    if "network" in item and item.get("model") == "virtio":
        wish.put(driver, "nic", item, "queues", count)
    else:
        what = "queues are of virtio cards in a network"
        wish.report.different(driver, what, attribute="queues")


# ---- graphics and sound -------------------------------------------------------------------------


def video(devices: Element, wish: Wish, buses: Buses) -> None:
    """The first `<video>`; libvirt adds one where there is a screen to be seen."""
    found = list(devices.each("video"))
    for extra in found[1:]:
        wish.report.unsupported(extra, "a machine has one graphics card; `heads` gives it screens")
    if not found:
        seen = any(child.tag == "graphics" for child in devices.children)
        wish.say(devices, "video.model", "cirrus" if seen else "none")
        if seen:
            wish.say(devices, "video.vram", 4 * _MIB)
        return
    model = found[0].within("model")
    kind = model.attribute("type") or "cirrus"
    if kind not in _VIDEOS:
        what = f"there is no graphics card {kind[:40]!r} here: a plain VGA is taken"
        wish.report.unsupported(model, what, attribute="type")
    elif kind == "bochs":
        wish.report.different(model, "a plain VGA, which has the same display", attribute="type")
    chosen = _VIDEOS.get(kind, "std")
    wish.say(model, "video.model", chosen)
    _sizes(model, chosen, wish)
    model.attribute("primary")
    acceleration = model.first("acceleration")
    if acceleration is not None and acceleration.is_on("accel3d"):
        wish.report.unsupported(acceleration, "the guest draws by itself, without the host's GPU")
    elif acceleration is not None:
        acceleration.take()
    place = buses.pci(found[0], wish)
    if place is not None and chosen != "none":
        wish.say(found[0], "video.address", place)


def _sizes(model: Element, chosen: str, wish: Wish) -> None:
    """Video memory, which libvirt counts in KiB and rounds up to powers of two."""
    for name in ("vram", "ram", "vgamem"):
        size = words.number(model.attribute(name))
        if not size or (name != "vram" and chosen != "qxl") or chosen in ("virtio", "cirrus"):
            continue
        whole = max(_MIB, 1 << max(0, size * 1024 - 1).bit_length())
        wish.say(model, f"video.{name}", whole)
    if words.number(model.attribute("vram64") or "0"):
        wish.report.different(model, "QXL's 64-bit memory is not used", attribute="vram64")
    heads = words.number(model.attribute("heads") or "1")
    if heads and heads > 1 and chosen in ("qxl", "virtio"):
        wish.say(model, "video.heads", heads)
    if chosen == "cirrus":
        # libvirt hands its size on to QXL and VGA only, and QEMU gives a Cirrus card this much.
        wish.say(model, "video.vram", 4 * _MIB)
    if resolution := model.first("resolution"):
        wish.report.different(resolution, "the guest chooses its resolution")


def sound(devices: Element, wish: Wish, buses: Buses) -> None:
    """The first `<sound>`."""
    found = list(devices.each("sound"))
    for extra in found[1:]:
        wish.report.unsupported(extra, "a machine has one sound card")
    wish.say(devices, "sound.model", "none")
    if not found:
        return
    card = found[0]
    model = card.attribute("model")
    if model not in _SOUNDS:
        what = f"there is no sound card {model[:40]!r} here"
        wish.report.unsupported(card, what)
        return
    wish.say(card, "sound.model", _SOUNDS[model])
    for codec in card.each("codec"):
        if codec.attribute("type") not in ("", "duplex"):
            wish.report.different(codec, "the codec plays and records")
    place = buses.usb(card, wish) if model == "usb" else buses.pci(card, wish)
    if place is not None:
        wish.say(card, "sound.address", place)


# ---- the way to the screen ----------------------------------------------------------------------


def graphics(devices: Element, wish: Wish) -> None:
    """Every `<graphics>`."""
    found = list(devices.each("graphics"))
    kinds = [each.attribute("type") for each in found]
    wish.say(devices, "display.spice", "spice" in kinds)
    wish.say(devices, "display.vnc", "vnc" in kinds)
    for each, kind in zip(found, kinds, strict=True):
        if kind == "spice":
            _spice(each, wish)
        elif kind == "vnc":
            _access(each, wish, "vnc_port")
        else:
            each.take()
            wish.report.different(each, "`qlaunch view` opens a window on this computer")
            if not {"spice", "vnc"} & set(kinds):
                wish.say(each, "display.spice", value=True)


def _spice(element: Element, wish: Wish) -> None:
    _access(element, wish, "port")
    if element.within("clipboard").attribute("copypaste") == "no":
        wish.say(element, "display.clipboard", value=False)
    if element.within("filetransfer").attribute("enable") == "no":
        wish.say(element, "display.file_transfer", value=False)
    if compression := element.within("image").attribute("compression"):
        wish.say(element, "display.compression", compression)
    mouse = element.within("mouse").attribute("mode")
    # libvirt knows no <agent_mouse>, but a blog does, and it is clear what is meant.
    guess = element.first("agent_mouse")
    if guess is not None:
        wish.say(guess, "display.agent_mouse", guess.is_on("mode"))
        wish.report.add("mended", guess, "libvirt ignores <agent_mouse>: display.agent_mouse")
    elif mouse in ("server", "client"):
        wish.say(element, "display.agent_mouse", mouse == "client")
    gl = element.first("gl")
    if gl is not None and gl.is_on("enable"):
        wish.report.unsupported(gl, "the guest draws by itself, without the host's GPU")
    elif gl is not None:
        gl.take()


def _access(element: Element, wish: Wish, key: str) -> None:
    """Ports and addresses. What libvirt chooses itself is a unix socket here."""
    port = words.number(element.attribute("port"))
    tls = words.number(element.attribute("tlsPort")) if key == "port" else None
    auto = element.attribute("autoport") == "yes"
    for name in ("websocket", "socket"):
        if element.attribute(name):
            what = "the unix socket has a place of its own (`qlaunch status`)"
            wish.report.different(element, what, attribute=name)
    listen = element.attribute("listen")
    for child in element.each("listen"):
        kind = child.attribute("type")
        listen = child.attribute("address") or listen
        if kind in ("none", "socket"):
            port = tls = None
            child.attribute("socket")
    fixed = port is not None and port > 0 and not auto
    if fixed:
        wish.say(element, f"display.{key}", port)
    if tls is not None and tls > 0 and not auto:
        wish.say(element, "display.tls_port", tls)
    elif not fixed:
        what = "a unix socket, which `qlaunch view` finds by itself"
        wish.report.different(element, what, attribute="port")
    if fixed and listen and listen not in ("127.0.0.1", "localhost"):
        wish.say(element, "display.listen", listen)
    if element.attribute("passwd"):
        what = "secrets are not written into a profile: `qlaunch display password` makes one"
        wish.report.different(element, what, attribute="passwd")
        if fixed:
            why = 'or a password of yours: password = { file = "..." }'
            wish.say(element, "display.ticket", value=True, comment=why)
