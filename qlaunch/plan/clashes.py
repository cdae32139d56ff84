"""What excludes each other: names that QEMU would see twice, one image twice, one port twice."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qlaunch.plan.draft import Draft
from qlaunch.plan.forwards import readable
from qlaunch.plan.model import Plan

# What qlaunch names itself: devices and sockets, called like the item; block nodes; the TPM's
# device, called like one of an item `tpm0`.
_DEVICES = (
    r"qmp|monitor|spice|vnc|tpm|usb|usb-uhci[0-9]|scsi0|ahci0|fdc0|video0|sound0|sound0-codec"
    r"|vser0|rng0|balloon0|watchdog0|panic0|generation0|redir[0-9]+|rp[0-9]+"
)
_NODES = "firmware|nvram|tpm0"
_RESERVED = {
    **dict.fromkeys(("input", "channel", "serial", "hostdev"), _DEVICES),
    **dict.fromkeys(("disk", "cdrom", "floppy"), _NODES),
    **dict.fromkeys(("nic", "share"), "tpm0"),
}


def check(draft: Draft, plan: Plan) -> None:
    """Leave an error for everything that is claimed twice."""
    _names(draft)
    _images(draft, plan)
    _ports(draft)


def _names(draft: Draft) -> None:
    disks = [disk.id for disk in draft.profile.disk]
    for array, reserved in _RESERVED.items():
        for item in getattr(draft.profile, array):
            if re.fullmatch(reserved, item.id):
                draft.notes.error(
                    f"{array}.{item.id}.id",
                    f"{item.id!r} is a name that qlaunch gives to a part of its own",
                    hint=f"use another, such as my-{item.id}",
                )
            taken = next((disk for disk in disks if _is_part(item.id, disk)), None)
            if taken is not None:
                draft.notes.error(
                    f"{array}.{item.id}.id",
                    f"{item.id!r} looks like a part of the disk {taken!r}",
                    hint="use another name",
                )


def _is_part(ident: str, disk: str) -> bool:
    """Whether a node or device of the disk `disk` is called `ident`, or like one of its nodes:
    `hda-format`, `hda-1-file`, `hda-usb`."""
    rest = ident.removeprefix(f"{disk}-")
    return rest != ident and re.fullmatch(r"format|usb|[0-9]+(-format)?", rest) is not None


def _images(draft: Draft, plan: Plan) -> None:
    """An image that is written to has one user only: QEMU's locks refuse a second one."""
    users = list(_users(plan))
    for at, (key, path, writes) in enumerate(users):
        for other_key, other_path, other_writes in users[:at]:
            if key != other_key and path == other_path and (writes or other_writes):
                draft.notes.error(
                    key,
                    f"{path} is already used by {other_key.rpartition('.')[0]}",
                    hint="each needs an image of its own",
                )


def _users(plan: Plan) -> Iterator[tuple[str, str, bool]]:
    if plan.firmware:
        yield "machine.nvram", plan.firmware.vars.path, True
    for disk in plan.disks:
        for layer in disk.layers:
            yield f"disk.{disk.id}.path", layer.path, not layer.read_only
    for drive in plan.drives:
        if drive.medium:
            yield f"{drive.kind}.{drive.id}.path", drive.medium.path, not drive.medium.read_only


def _ports(draft: Draft) -> None:
    """A port of this computer has one user only."""
    seen: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for key, protocol, address, port in _listeners(draft):
        holders = seen.setdefault((protocol, port), [])
        for other_key, other in holders:
            if address == other or _covers(address, other) or _covers(other, address):
                draft.notes.error(
                    key,
                    f"port {port} is already taken by {other_key}",
                    hint="each needs a port of its own",
                )
                break
        holders.append((key, address))


def _covers(whole: str, part: str) -> bool:
    """Whether who listens on `whole` takes the port from `part`."""
    return whole == "::" or (whole == "0.0.0.0" and ":" not in part)


def _listeners(draft: Draft) -> Iterator[tuple[str, str, str, int]]:
    display = draft.profile.display
    host = display.listen or "127.0.0.1"
    for key in ("port", "tls_port", "vnc_port"):
        number = getattr(display, key)
        if number:
            yield f"display.{key}", "tcp", host, number
    for nic in draft.profile.nic:
        for each in readable(nic.forward):
            yield f"nic.{nic.id}.forward", each.proto, each.address, each.port
