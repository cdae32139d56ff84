"""The USB controller, who is plugged into which port, and the slots for a client's devices."""

from __future__ import annotations

from collections.abc import Iterator

from qlaunch.plan.draft import Draft
from qlaunch.plan.gadgets import about, host_props, slot_props
from qlaunch.plan.model import Chardev, Device
from qlaunch.plan.pci import Request
from qlaunch.plan.seats import Seat
from qlaunch.plan.usb_filter import for_qemu

PORTS = {"piix3-uhci": 2, "ich9-ehci1": 6, "xhci": 15}
_USB_INPUTS = ("usb-tablet", "usb-mouse", "usb-kbd")


def controller_of(draft: Draft) -> str:
    """The controller: as said, or the one that the USB devices of the profile need."""
    wish = draft.profile
    if wish.usb.controller:
        return wish.usb.controller
    wanted = (
        any((item.model or "usb-tablet") in _USB_INPUTS for item in wish.input)
        or any(disk.bus == "usb" for disk in wish.disk)
        or any(drive.bus == "usb" for drive in wish.cdrom)
        or wish.sound.model == "usb"
        or bool(wish.usb.redirect)
        or bool(wish.hostdev)
    )
    if not wanted:
        return "none"
    return "xhci" if draft.q35 else "ich9-ehci1"


def requests(draft: Draft) -> Iterator[Request]:
    """The controller's PCI address: EHCI is function 7 and its companions take 0 to 2."""
    controller, explicit = controller_of(draft), draft.profile.usb.address
    if controller == "ich9-ehci1":
        yield Request(id="usb", key="usb.address", explicit=explicit, functions=(0, 1, 2, 7))
    elif controller == "piix3-uhci":
        # Function 2 of the i440fx board's south bridge is where PCs had it.
        preferred = None if draft.q35 else "01.2"
        yield Request(id="usb", key="usb.address", explicit=explicit, preferred=preferred)
    elif controller == "xhci":
        yield Request(id="usb", key="usb.address", explicit=explicit, express=True)


def controllers(draft: Draft) -> Iterator[Device]:
    """The controller, with its companions."""
    controller, place = controller_of(draft), draft.pci.places.get("usb")
    if place is None:
        return
    if controller == "xhci":
        yield draft.device("usb.controller", "usb", "qemu-xhci", {"p2": 15, "p3": 15})
    elif controller == "piix3-uhci":
        yield draft.device("usb.controller", "usb", "piix3-usb-uhci", {})
    else:
        # Companions first in the list would find no master bus yet, so the EHCI leads.
        yield draft.device("usb.controller", "usb", "ich9-usb-ehci1", {})
        for number in range(3):
            companion: dict[str, object] = {
                "masterbus": "usb.0",
                "firstport": number * 2,
                "bus": place.bus,
                "addr": f"{place.slot:#x}.{number:#x}",
            }
            if number == 0:
                companion["multifunction"] = True
            driver = f"ich9-usb-uhci{number + 1}"
            yield draft.device("usb.controller", f"usb-uhci{number + 1}", driver, companion)


def _redirect_count(draft: Draft) -> int:
    """How many slots there are for a client's USB devices; none without SPICE."""
    return (draft.profile.usb.redirect or 0) if draft.spice else 0


def seats(draft: Draft) -> Iterator[Seat]:
    """The USB ports of all devices but the drives."""
    for item in draft.profile.input:
        if (item.model or "usb-tablet") in _USB_INPUTS:
            key = f"input.{item.id}"
            yield Seat(id=item.id, bus="usb", key=key, said=f"{key}.address", explicit=item.address)
    wanted = draft.profile.usb.redirect_ports
    for number in range(_redirect_count(draft)):
        yield Seat(
            id=f"redir{number}",
            bus="usb",
            key="usb.redirect",
            said="usb.redirect_ports",
            explicit=str(wanted[number]) if number < len(wanted) else None,
        )
    for device in draft.profile.hostdev:
        key = f"hostdev.{device.id}"
        said = f"{key}.address"
        yield Seat(id=device.id, bus="usb", key=key, said=said, explicit=device.address)
    sound = draft.profile.sound
    if sound.model == "usb":
        yield Seat(
            id="sound0",
            bus="usb",
            key="sound.model",
            said="sound.address",
            explicit=sound.address,
        )


def inputs(draft: Draft) -> Iterator[Device]:
    """Tablets, mice and keyboards; a PS/2 mouse is part of every PC and needs no device."""
    for item in draft.profile.input:
        model = item.model or "usb-tablet"
        if model != "ps2-mouse":
            driver = model if model in _USB_INPUTS else f"{model}-pci"
            yield draft.device(f"input.{item.id}.model", item.id, driver, {})


def redirections(draft: Draft) -> tuple[tuple[Chardev, ...], tuple[Device, ...]]:
    """The slots for USB devices of a SPICE client, with their chardevs; none without SPICE."""
    usb = draft.profile.usb
    if len(usb.redirect_ports) > (usb.redirect or 0):
        count = len(usb.redirect_ports)
        draft.notes.error(
            "usb.redirect_ports",
            f"names {count} ports for {usb.redirect or 0} slots",
            hint=f"set redirect = {count}",
        )
    if usb.redirect and not draft.spice and not draft.profile.from_base("usb.redirect"):
        draft.notes.warn(
            "usb.redirect",
            "has no effect without SPICE: its client brings the USB devices",
            hint="set display.spice = true",
        )
    chardevs, devices = [], []
    for ident in (f"redir{number}" for number in range(_redirect_count(draft))):
        chardevs.append(Chardev(id=f"{ident}-chr", kind="spicevmc", name="usbredir"))
        props = slot_props(ident, for_qemu(usb.filter))
        devices.append(draft.device("usb.redirect", ident, "usb-redir", props))
    return tuple(chardevs), tuple(devices)


def host_devices(draft: Draft) -> Iterator[Device]:
    """The devices of this computer. One that is not plugged in now may come later."""
    known: dict[str, str] = {}
    for wish in draft.profile.hostdev:
        key, which = f"hostdev.{wish.id}.device", (wish.device or "").lower()
        holder = known.setdefault(which, wish.id)
        if holder != wish.id:
            draft.notes.error(key, f"{which} is already given to the guest as {holder}")
        _look_at(draft, key, which)
        yield draft.device(key, wish.id, "usb-host", host_props(which))


def _look_at(draft: Draft, key: str, which: str) -> None:
    """Say what is to be known of a device of this computer."""
    found = [device for device in draft.facts.usb if device.is_meant(which)]
    for message, hint in about(which, found, draft.facts.host.user):
        draft.notes.warn(key, message, hint=hint, cause="host")
