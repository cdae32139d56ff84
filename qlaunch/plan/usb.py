"""The USB controller, who is plugged into which port, and the slots for a client's devices."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import Factory, define

from qlaunch.plan.draft import Draft
from qlaunch.plan.model import Chardev, Device
from qlaunch.plan.pci import Request

_PORTS = {"piix3-uhci": 2, "ich9-ehci1": 6, "xhci": 15}
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
    props = place.props()
    if controller == "xhci":
        draft.has("usb.controller", "qemu-xhci")
        yield Device(id="usb", driver="qemu-xhci", props={"p2": 15, "p3": 15, **props})
    elif controller == "piix3-uhci":
        draft.has("usb.controller", "piix3-usb-uhci")
        yield Device(id="usb", driver="piix3-usb-uhci", props=props)
    else:
        draft.has("usb.controller", "ich9-usb-ehci1")
        slot = f"{place.slot:#x}"
        # Companions first in the list would find no master bus yet, so the EHCI leads.
        yield Device(
            id="usb", driver="ich9-usb-ehci1", props={"bus": place.bus, "addr": f"{slot}.0x7"}
        )
        for number in (1, 2, 3):
            companion: dict[str, object] = {
                "masterbus": "usb.0",
                "firstport": (number - 1) * 2,
                "bus": place.bus,
                "addr": f"{slot}.{number - 1:#x}",
            }
            if number == 1:
                companion["multifunction"] = True
            yield Device(id=f"usb-uhci{number}", driver=f"ich9-usb-uhci{number}", props=companion)


@define(kw_only=True)
class Ports:
    """Gives out the controller's ports."""

    draft: Draft
    taken: dict[int, str] = Factory(dict)

    def reserve(self, key: str, ident: str, text: str | None) -> str | None:
        """The port said in the profile, kept for `ident` before others choose."""
        if text is None:
            return None
        count = _PORTS.get(controller_of(self.draft), 0)
        if not text.isdigit() or not 1 <= int(text) <= count:
            self.draft.notes.error(
                key,
                f"{text!r} is no port of this USB controller",
                hint=f"ports go from 1 to {count}",
            )
            return None
        holder = self.taken.setdefault(int(text), ident)
        if holder != ident:
            self.draft.notes.error(
                key,
                f"USB port {text} is already used by {holder}",
                hint="leave it out and qlaunch picks a free one",
            )
        return text

    def free(self, key: str, ident: str) -> str | None:
        """The leased port of `ident` if it is free, else the first free one."""
        count = _PORTS.get(controller_of(self.draft), 0)
        leased = self.draft.leases.places.get(ident, "").removeprefix("usb/")
        options = [int(leased)] if leased.isdigit() else []
        for port in (*options, *range(1, count + 1)):
            if port <= count and port not in self.taken:
                self.taken[port] = ident
                return str(port)
        if count:
            hint = 'use usb.controller = "xhci", or take devices away'
            self.draft.notes.error(key, f"the USB controller has only {count} ports", hint=hint)
        else:
            self.draft.notes.error(
                key, "there is no USB controller", hint="leave usb.controller out, or set it"
            )
        return None


def inputs(draft: Draft, ports: Ports) -> tuple[Device, ...]:
    """Tablets, mice and keyboards; a PS/2 mouse is part of every PC and needs no device."""
    said = {}
    for item in draft.profile.input:
        if (item.model or "usb-tablet") in _USB_INPUTS:
            said[item.id] = ports.reserve(f"input.{item.id}.address", item.id, item.address)
    found = []
    for item in draft.profile.input:
        model = item.model or "usb-tablet"
        if model == "ps2-mouse":
            continue
        if model in _USB_INPUTS:
            port = said.get(item.id) or ports.free(f"input.{item.id}", item.id)
            props: dict[str, object] = {"bus": "usb.0", **({"port": port} if port else {})}
            found.append(Device(id=item.id, driver=model, props=props))
        else:
            place = draft.pci.places.get(item.id)
            found.append(
                Device(
                    id=item.id, driver=f"{model}-pci", props=dict(place.props()) if place else {}
                )
            )
    return tuple(found)


def redirections(draft: Draft, ports: Ports) -> tuple[tuple[Chardev, ...], tuple[Device, ...]]:
    """The slots for USB devices of a SPICE client, with their chardevs; none without SPICE."""
    count = draft.profile.usb.redirect or 0
    if not draft.spice or not count:
        return (), ()
    draft.has("usb.redirect", "usb-redir")
    wanted = draft.profile.usb.redirect_ports
    if len(wanted) > count:
        draft.notes.error(
            "usb.redirect_ports",
            f"names {len(wanted)} ports for {count} slots",
            hint=f"set redirect = {len(wanted)}",
        )
    said = [
        ports.reserve("usb.redirect_ports", f"redir{n}", str(port))
        for n, port in enumerate(wanted[:count])
    ]
    chardevs, devices = [], []
    for number in range(count):
        ident = f"redir{number}"
        port = said[number] if number < len(said) else ports.free("usb.redirect", ident)
        chardevs.append(Chardev(id=f"{ident}-chr", kind="spicevmc", name="usbredir"))
        props = {"bus": "usb.0", "chardev": f"{ident}-chr", **({"port": port} if port else {})}
        devices.append(Device(id=ident, driver="usb-redir", props=props))
    return tuple(chardevs), tuple(devices)
