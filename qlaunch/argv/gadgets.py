"""USB devices of a running machine plugged in and taken out: the commands, as data."""

from __future__ import annotations

from typing import Any

from qlaunch.argv import blocks
from qlaunch.argv.graph import Command
from qlaunch.plan.gadgets import Gadget
from qlaunch.plan.model import Device


def plug_in(gadget: Gadget, opened: str | int | None = None) -> tuple[Command, ...]:
    """Give QEMU the device. `opened` is what was handed over for it: of a passing slot the name of
    the descriptor that leads to whoever is connected, of a CD the number of its medium's set."""
    if gadget.drive is not None:
        return (*_medium(gadget, opened), *_cd(gadget))
    back = () if gadget.chardev is None else (_chardev(gadget, opened),)
    return (*back, _device_add(gadget.device))


def _chardev(gadget: Gadget, opened: str | int | None) -> Command:
    assert gadget.chardev is not None
    backend: dict[str, Any] = {"type": "spicevmc", "data": {"type": "usbredir"}}
    if gadget.passing:
        address = {"type": "fd", "data": {"str": str(opened)}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
    return Command("chardev-add", {"id": gadget.chardev.id, "backend": backend})


def _medium(gadget: Gadget, opened: str | int | None) -> tuple[Command, ...]:
    assert gadget.drive is not None
    nodes = blocks.medium_nodes(gadget.drive, lambda layer: f"/dev/fdset/{opened}")
    return tuple(Command("blockdev-add", node) for node in nodes)


def _cd(gadget: Gadget) -> tuple[Command, ...]:
    """The drive sits in an adapter, which the guest sees when all is in it."""
    assert gadget.drive is not None
    path = f"/machine/peripheral/{gadget.device.id}"
    attached = {"path": path, "property": "attached", "value": True}
    drive = gadget.drive.device
    return (_device_add(gadget.device), _device_add(drive), Command("qom-set", attached))


def _device_add(device: Device) -> Command:
    props = {name: value for name, value in device.props.items() if name != "bootindex"}
    return Command("device_add", {"driver": device.driver, "id": device.id, **props})


def take_out(gadget: Gadget) -> Command:
    """Take the device out: on USB QEMU does so at once. A slot's chardev goes with it."""
    return Command("device_del", {"id": gadget.device.id})


def attached(ident: str) -> Command:
    """Ask whether the guest has something there: a device that waits for one of this computer, or
    a slot for a client's, is there without anything in it."""
    return Command("qom-get", {"path": f"/machine/peripheral/{ident}", "property": "attached"})
