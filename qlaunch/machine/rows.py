"""Devices as plain data, as `status` and lists show them."""

from __future__ import annotations

from typing import Any

from qlaunch.plan.model import Device, Nic


def nic_row(nic: Nic) -> dict[str, Any]:
    """What is to be known of a network card."""
    return {
        "id": nic.id,
        "model": nic.model,
        "mac": nic.mac,
        "address": address(nic.device),
        "backend": nic.backend,
        "network": nic.attachment.network if nic.attachment else None,
        "queues": nic.attachment.queues if nic.attachment else 1,
        "filter": nic.attachment.filter if nic.attachment else None,
        "link": nic.link,
        "forward": list(nic.forwards),
    }


def address(device: Device) -> str | None:
    """Where a device sits, as a person reads it: `pci.0 09.7`, `ide.0 unit 1`, `usb.0 port 4`."""
    props = device.props
    bus = props.get("bus")
    if "addr" in props:
        slot, _, function = str(props["addr"]).partition(".")
        return f"{bus} {int(slot, 16):02x}.{int(function or '0', 16)}"
    for key, word in (("unit", "unit"), ("scsi-id", "target"), ("port", "port"), ("nr", "nr")):
        if key in props:
            return f"{bus} {word} {props[key]}" if bus else f"{word} {props[key]}"
    return str(bus) if bus else None
