"""Where devices sit: PCI, USB and drive addresses, and the controllers that there are."""

from __future__ import annotations

from attrs import Factory, define

from qlaunch.libvirt import words
from qlaunch.libvirt.board import is_q35
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.wish import Wish

_PORT_SLOTS = (2, 3, 4)
_USB_MODELS = {
    "piix3-uhci": "piix3-uhci",
    "piix4-uhci": "piix3-uhci",
    "ich9-ehci1": "ich9-ehci1",
    "ehci": "ich9-ehci1",
    "qemu-xhci": "xhci",
    "nec-xhci": "xhci",
    "none": "none",
}
_COMPANIONS = ("ich9-uhci1", "ich9-uhci2", "ich9-uhci3")
_ROOTS = ("pci-root", "pcie-root")
_ROOT_PORTS = ("pcie-root-port", "ioh3420")
# Of the controllers that qlaunch adds where they are needed: type -> id of its PCI address.
_PARTS = {"virtio-serial": "vser0", "scsi": "scsi0", "sata": "ahci0"}


@define
class Buses:
    """The PCI buses behind root ports: bus number -> number of qlaunch's root port."""

    ports: dict[int, int] = Factory(dict)
    usb_bus: int = 0
    scsi: set[int] = Factory(set)

    def pci(self, element: Element, wish: Wish) -> str | None:
        """The PCI address of a device as a profile writes it; None where it says none."""
        address = _address(element, "pci")
        if address is None:
            return None
        bus = words.number(address.attribute("bus") or "0")
        slot = words.number(address.attribute("slot") or "0")
        function = words.number(address.attribute("function") or "0")
        if bus is None or slot is None or function is None:
            return None
        if bus == 0 and 0 <= slot < 32 and 0 <= function < 8:
            return f"{slot:02x}.{function}"
        if bus in self.ports and slot == 0 and function == 0:
            return f"{self.ports[bus] + 1:02x}:00.0"
        wish.report.different(address, "there is no such PCI bus here; it gets another address")
        return None

    def usb(self, element: Element, wish: Wish) -> str | None:
        """The USB port of a device; None where it says none."""
        address = _address(element, "usb")
        if address is None:
            return None
        bus = words.number(address.attribute("bus") or "0")
        port = address.attribute("port")
        if bus != self.usb_bus or words.number(port) is None:
            wish.report.different(address, "there is one USB controller, and no hub")
            return None
        return port


def _address(element: Element, kind: str) -> Element | None:
    """The address of a device, if it is of that kind."""
    for child in element.children:
        if child.tag == "address" and child.attributes.get("type", kind) == kind:
            child.seen = True
            child.attribute("type")
            child.attribute("domain")
            return child
    return None


def drive(element: Element) -> tuple[int, int, int, int] | None:
    """Controller, bus, target and unit of a drive; None where it says none."""
    address = _address(element, "drive")
    if address is None:
        return None
    found = [
        words.number(address.attribute(name) or "0")
        for name in ("controller", "bus", "target", "unit")
    ]
    controller, bus, target, unit = (each or 0 for each in found)
    return controller, bus, target, unit


def serial_port(element: Element) -> int | None:
    """The number of a port on the virtio-serial controller; None where it says none."""
    address = _address(element, "virtio-serial")
    if address is None:
        return None
    address.attribute("controller")
    address.attribute("bus")
    return words.number(address.attribute("port"))


def isa(element: Element) -> None:
    """An address on the ISA bus or of a CCID card says nothing here."""
    for kind in ("isa", "ccid"):
        address = _address(element, kind)
        if address is not None:
            address.take()


def controllers(devices: Element, wish: Wish) -> Buses:
    """The controllers of the domain; what the profile has no word for is told."""
    buses = Buses()
    found = list(devices.each("controller"))
    for each in found:
        if each.attribute("type") == "pci":
            _pci(each, wish, buses)
    _usb([each for each in found if each.attribute("type") == "usb"], wish, buses)
    for each in found:
        if each.attribute("type") not in ("usb", "pci"):
            _other(each, wish, buses)
    return buses


def _pci(controller: Element, wish: Wish, buses: Buses) -> None:
    model, index = controller.attribute("model"), words.number(controller.attribute("index"))
    if model in _ROOTS:
        controller.take()
        return
    if model in _ROOT_PORTS and is_q35(wish):
        controller.within("model").take()
        controller.within("target").take()
        address = _address(controller, "pci")
        if address is not None:
            address.attribute("bus")
        slot = words.number(address.attribute("slot")) if address else None
        function = words.number(address.attribute("function") or "0") if address else None
        if index is not None and slot in _PORT_SLOTS and function is not None:
            buses.ports[index] = (slot - 2) * 8 + function
        elif index is not None and address is None and 0 < index <= 24:
            buses.ports[index] = index - 1
        else:
            wish.report.different(controller, "root ports are at 02.0 to 04.7 here")
        return
    what = "devices sit on the root bus or on root ports, not behind bridges"
    wish.report.different(controller, what)


def _usb(found: list[Element], wish: Wish, buses: Buses) -> None:
    """The one USB controller. Where the XML has none, libvirt adds one."""
    if not found:
        default = "xhci" if is_q35(wish) else "piix3-uhci"
        wish.say(Element("devices", 0), "usb.controller", default)
        return
    masters = []
    for controller in found:
        model = controller.attribute("model")
        if model in _COMPANIONS:
            controller.take()
        elif model in _USB_MODELS or not model:
            masters.append(controller)
        else:
            wish.report.unsupported(controller, f"there is no USB controller {model[:40]!r}")
    for extra in masters[1:]:
        wish.report.unsupported(extra, "a machine has one USB controller here")
    if not masters:
        return
    first = masters[0]
    model = first.attribute("model") or ("xhci" if is_q35(wish) else "piix3-uhci")
    buses.usb_bus = words.number(first.attribute("index") or "0") or 0
    wish.say(first, "usb.controller", _USB_MODELS.get(model, model))
    if model in ("nec-xhci", "piix4-uhci"):
        close = "qemu-xhci" if model == "nec-xhci" else "piix3-uhci"
        wish.report.different(first, f"{close} takes its place", attribute="model")
    first.attribute("ports")
    place = buses.pci(first, wish)
    if place is not None and model != "none":
        wish.say(first, "usb.address", place)


def _other(controller: Element, wish: Wish, buses: Buses) -> None:
    kind, model = controller.attribute("type"), controller.attribute("model")
    index = words.number(controller.attribute("index") or "0") or 0
    if kind == "scsi" and model not in ("virtio-scsi", "virtio-transitional", ""):
        what = f"SCSI disks sit on virtio-scsi here, not on {model[:40]}"
        wish.report.unsupported(controller, what, attribute="model")
    elif kind == "scsi" and not model:
        what = "libvirt means an LSI controller; SCSI disks sit on virtio-scsi here"
        wish.report.unsupported(controller, what)
    if kind not in ("ide", "fdc", *_PARTS):
        wish.report.unsupported(controller, f"there is no controller of the type {kind[:40]!r}")
        return
    for name in ("ports", "vectors"):
        controller.attribute(name)
    driver = controller.first("driver")
    if driver is not None:
        wish.report.unneeded(driver, "QEMU's default")
    if index and kind != "sata":
        what = "one controller of its kind is enough here"
        wish.report.different(controller, what)
        return
    on_board = kind in ("ide", "fdc") or (kind == "sata" and is_q35(wish) and not index)
    place = None if on_board else buses.pci(controller, wish)
    if on_board:
        controller.take()
    elif place is not None:
        wish.places.setdefault(_PARTS[kind], place)
