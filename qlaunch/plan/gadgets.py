"""USB devices that come and go while the machine runs: devices of this computer, slots for a
client's, CD drives. As data; `argv.gadgets` says it to QEMU."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from attrs import evolve, frozen

from qlaunch.facts import UsbDevice
from qlaunch.plan.model import Chardev, Device, Drive, Layer, Leases, Plan

# How many ports a controller has, by QEMU's driver.
_PORTS_OF = {"piix3-usb-uhci": 2, "ich9-usb-ehci1": 6, "qemu-xhci": 15}
_BUS = "usb.0"
_SLOT = re.compile(r"redir([0-9]+)")


@frozen(kw_only=True)
class Gadget:
    """One of them. `host` is a device of this computer, `slot` has a chardev, `cd` is a drive in an
    adapter. A `passing` one is there for as long as somebody holds it, and in no plan."""

    kind: Literal["host", "slot", "cd"]
    device: Device
    chardev: Chardev | None = None
    drive: Drive | None = None
    passing: bool = False

    @property
    def id(self) -> str:
        """Its name for people."""
        return self.drive.id if self.drive is not None else self.device.id


def host_device(ident: str, which: str, port: int) -> Gadget:
    """A device of this computer, by port or by vendor and product."""
    device = Device(id=ident, driver="usb-host", props={**host_props(which), **_at(port)})
    return Gadget(kind="host", device=device)


def slot(ident: str, port: int, rules: str, *, passing: bool = False) -> Gadget:
    """A slot for a device of the SPICE client; a `passing` one is for whoever is connected."""
    props = {**slot_props(ident, "" if passing else rules), **_at(port)}
    chardev = Chardev(id=f"{ident}-chr", kind="spicevmc", name="usbredir")
    if passing:
        chardev = Chardev(id=f"{ident}-chr", kind="socket")
    device = Device(id=ident, driver="usb-redir", props=props)
    return Gadget(kind="slot", device=device, chardev=chardev, passing=passing)


def cd(ident: str, path: str, port: int) -> Gadget:
    """A CD drive with a medium in it."""
    layer = Layer(node=ident, file_node=f"{ident}-file", path=path, format="raw", read_only=True)
    props = {"bus": f"{ident}-usb.0", "scsi-id": 0, "channel": 0, "lun": 0, "drive": ident}
    drive = Drive(
        id=ident,
        kind="cdrom",
        device=Device(id=f"{ident}-dev", driver="scsi-cd", props=props),
        medium=layer,
    )
    adapter = Device(id=f"{ident}-usb", driver="usb-bot", props=_at(port))
    return Gadget(kind="cd", device=adapter, drive=drive)


def host_props(which: str) -> Mapping[str, object]:
    """How QEMU's `usb-host` is told which device: it is looked for as long as the machine runs."""
    if ":" in which:
        vendor, _, product = which.partition(":")
        return {"vendorid": int(vendor, 16), "productid": int(product, 16)}
    bus, _, port = which.partition("-")
    return {"hostbus": int(bus), "hostport": port}


def which_of(device: Device) -> str:
    """The device of this computer that a `usb-host` is for: what `host_props` was made of."""
    props = device.props
    if "vendorid" in props:
        return f"{props['vendorid']:04x}:{props['productid']:04x}"
    return f"{props['hostbus']}-{props['hostport']}"


def slot_props(ident: str, rules: str) -> Mapping[str, object]:
    found: dict[str, object] = {"chardev": f"{ident}-chr"}
    return found | {"filter": rules} if rules else found


def _at(port: int) -> Mapping[str, object]:
    return {"bus": _BUS, "port": str(port)}


def about(which: str, found: list[UsbDevice], user: str) -> Iterator[tuple[str, str]]:
    """What is to be known of a wish for the device `which` of this computer, where `found` are
    those that it can mean: a sentence, and what to do."""
    if not found:
        what = f"the USB device {which}" if ":" in which else f"a device at the USB port {which}"
        yield (
            f"{what} is not plugged into this computer now: the guest has it as soon as it is",
            "`qlaunch usb list` shows what is",
        )
    for device in found:
        if not device.usable:
            yield (
                f"{user or 'you'} may not use the USB device {device.ident} ({device.node})",
                'a rule for udev allows it: echo \'SUBSYSTEM=="usb",'
                f' ATTR{{idVendor}}=="{device.vendor:04x}",'
                f' ATTR{{idProduct}}=="{device.product:04x}", TAG+="uaccess"\''
                " | sudo tee /etc/udev/rules.d/70-qlaunch-usb.rules; then plug it in again",
            )
    if len(found) > 1 and ":" in which:
        ports = ", ".join(device.port for device in found)
        yield (
            f"{len(found)} devices are {which} (at {ports}): the guest has one of them",
            "name the port instead",
        )


# ---- in a plan ----------------------------------------------------------------------------------


def gadgets(plan: Plan) -> tuple[Gadget, ...]:
    """Those that a machine has, whether they were there at its start or came later."""
    found = []
    for device in plan.devices:
        if device.driver == "usb-host":
            found.append(Gadget(kind="host", device=device))
        elif device.driver == "usb-redir":
            chardev = plan.chardev(str(device.props["chardev"]))
            found.append(Gadget(kind="slot", device=device, chardev=chardev))
    adapters = {device.id: device for device in plan.controllers}
    found += [
        Gadget(kind="cd", device=adapters[f"{drive.id}-usb"], drive=drive)
        for drive in plan.drives
        if f"{drive.id}-usb" in adapters
    ]
    return tuple(found)


def with_gadget(plan: Plan, gadget: Gadget) -> Plan:
    """`plan` with one more."""
    if gadget.drive is not None:
        return evolve(
            plan,
            controllers=(*plan.controllers, gadget.device),
            drives=(*plan.drives, gadget.drive),
        )
    chardevs = (gadget.chardev,) if gadget.chardev is not None else ()
    return evolve(
        plan, devices=(*plan.devices, gadget.device), chardevs=(*plan.chardevs, *chardevs)
    )


def without_gadget(plan: Plan, gadget: Gadget) -> Plan:
    """`plan` without it."""
    chardev = gadget.chardev.id if gadget.chardev is not None else None
    ident = gadget.device.id
    drive = gadget.drive.device.id if gadget.drive is not None else None
    later = {name: turn for name, turn in plan.boot.later.items() if name != drive}
    return evolve(
        plan,
        controllers=tuple(each for each in plan.controllers if each.id != ident),
        drives=tuple(each for each in plan.drives if each.device.id != drive),
        devices=tuple(each for each in plan.devices if each.id != ident),
        chardevs=tuple(each for each in plan.chardevs if each.id != chardev),
        boot=evolve(plan.boot, later=later),
    )


def has_controller(plan: Plan) -> bool:
    return _ports(plan) > 0


def _ports(plan: Plan) -> int:
    driver = next((each.driver for each in plan.controllers if each.id == "usb"), "")
    return _PORTS_OF.get(driver, 0)


def free_port(plan: Plan, leases: Leases, ident: str, more: Iterable[str] = ()) -> int | None:
    """A port of the machine's USB controller for `ident`: the one it had before, else one that
    nobody had, else any; None when all are used. `more` are ports that are used as well."""
    here = {each.id: str(each.props.get("port")) for each in plan.all_devices() if _sits(each)}
    taken = {*here.values(), *more}
    free = [number for number in range(1, _ports(plan) + 1) if str(number) not in taken]
    leased = {
        name: int(place.removeprefix("usb/"))
        for name, place in leases.places.items()
        if place.startswith("usb/")
    }
    if leased.get(ident) in free:
        return leased[ident]
    kept = {number for name, number in leased.items() if name not in here}
    return next(iter([*(number for number in free if number not in kept), *free]), None)


def _sits(device: Device) -> bool:
    return device.props.get("bus") == _BUS


def slot_number(ident: str) -> int:
    """The number of the slot `redirN`."""
    found = _SLOT.fullmatch(ident)
    return int(found[1]) if found else -1


def names_in(plan: Plan) -> set[str]:
    """All names that something of the machine has."""
    taken = {device.id for device in plan.all_devices()}
    taken |= {name.removesuffix("-dev").removesuffix("-usb") for name in taken}
    taken |= {chardev.id for chardev in plan.chardevs} | set(plan.serials)
    return taken | {disk.id for disk in plan.disks} | {drive.id for drive in plan.drives}


def free_name(prefix: str, taken: set[str], *, first: int = 1) -> str:
    """`prefix` with the first number that is free."""
    number = first
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"
