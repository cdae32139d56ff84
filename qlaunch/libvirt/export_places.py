"""Where the devices of a profile sit, and what they are called, as libvirt writes it."""

from __future__ import annotations

from collections.abc import Iterator

from qlaunch.libvirt.element import Element
from qlaunch.libvirt.render import element
from qlaunch.plan.pci import parse, parse_port
from qlaunch.profile.model import Profile


def alias(ident: str) -> Element:
    return element("alias", name=f"ua-{ident}")


def order(turn: int | None) -> list[Element]:
    return [] if turn is None else [element("boot", order=turn)]


def pci(text: str | None) -> Iterator[Element]:
    if text is None:
        return
    place, port = parse(text), parse_port(text)
    bus, slot, function = (0, *place) if place else ((port or 0) + 1, 0, 0)
    yield element(
        "address",
        type="pci",
        domain="0x0000",
        bus=f"{bus:#04x}",
        slot=f"{slot:#04x}",
        function=f"{function:#x}",
    )


def usb(text: str | None) -> Iterator[Element]:
    if text is not None:
        yield element("address", type="usb", bus=0, port=text)


def named(whole: Profile, ident: str) -> Iterator[Element]:
    """The PCI address that `machine.pci` gives to a part."""
    return pci(dict(word.split("=", 1) for word in whole.machine.pci).get(ident))


def drive(bus: str, text: str | None) -> Iterator[Element]:
    if text is None:
        return
    first, _, second = text.partition(".")
    seats = {"ide": (first, "0", second or "0"), "sata": ("0", "0", first)}
    channel, target, unit = seats.get(bus, ("0", first, second or "0"))
    yield element("address", type="drive", controller=0, bus=channel, target=target, unit=unit)
