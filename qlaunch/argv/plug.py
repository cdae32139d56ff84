"""Disks of a running machine plugged in, taken out, resized and copied: the commands, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qlaunch.argv import blocks
from qlaunch.argv.graph import Command
from qlaunch.plan.model import Device, Disk, Layer

# Where a disk can come and go while the machine runs. On PCI the guest must let go of it; QEMU
# takes it out of the others at once.
HOT = ("virtio", "scsi", "nvme", "usb")
PATIENT = ("virtio", "nvme")
_FDSET = "/dev/fdset/"


def back_end(disk: Disk, fdsets: Mapping[str, int]) -> tuple[Command, ...]:
    """Make the limits and the nodes of a disk; `fdsets` says in which set each file node is."""

    def name(layer: Layer) -> str:
        return f"{_FDSET}{fdsets[layer.file_node]}"

    nodes = (Command("blockdev-add", node) for node in blocks.disk_nodes(disk, name))
    return (Command("object-add", blocks.throttle_group(disk)), *nodes)


def front_end(disk: Disk, adapter: Device | None) -> tuple[Command, ...]:
    """Plug the device in. On USB it sits in an adapter, which the guest sees when all is in it."""
    if adapter is None:
        return (_device_add(disk.device),)
    path = f"/machine/peripheral/{adapter.id}"
    attached = {"path": path, "property": "attached", "value": True}
    return (_device_add(adapter), _device_add(disk.device), Command("qom-set", attached))


def _device_add(device: Device) -> Command:
    # Boot indexes are the firmware's: what comes later has none, and may not claim another's.
    props = {name: value for name, value in device.props.items() if name != "bootindex"}
    return Command("device_add", {"driver": device.driver, "id": device.id, **props})


def outermost(disk: Disk) -> str:
    """The id of the device that is taken out: on USB the adapter, and the disk with it."""
    return f"{disk.id}-usb" if disk.bus == "usb" else disk.device.id


def take_out(disk: Disk) -> Command:
    """Ask for the device to be taken out."""
    return Command("device_del", {"id": outermost(disk)})


def is_node_of(ident: str, node: str) -> bool:
    """Whether `node` is one of the disk `ident`: its throttle, `hda-format`, `hda-3-file`."""
    rest = node.removeprefix(ident)
    return rest != node and re.fullmatch(r"|(-[0-9]+)?-(format|file)", rest) is not None


def fdset_of(filename: str) -> int | None:
    """The number of the descriptor set that a file node has open."""
    number = filename.removeprefix(_FDSET)
    return int(number) if number != filename and number.isdigit() else None


def limits_of(ident: str) -> Command:
    """Take the limits of the disk `ident` away."""
    return Command("object-del", {"id": f"{ident}-limits"})


def resize(ident: str, size: int) -> Command:
    """Make the disk `size` bytes large. By way of its throttle node, so that the guest is told: of
    a resize of the format node it never hears (QEMU 7.2 and 10.0)."""
    return Command("block_resize", {"node-name": ident, "size": size})


def mirror(job: str, disk: Disk, old: Layer, new: Layer, *, speed: int = 0) -> Command:
    """Copy the layer `old` of a disk into `new`, which takes its place when the job is completed.

    What is below `old` is not copied. A node below a filter cannot be mirrored, so the filter is,
    and what is replaced is said.
    """
    return Command(
        "blockdev-mirror",
        {
            "job-id": job, "device": disk.id, "target": new.node, "replaces": old.node,
            "sync": "top", "speed": speed, "auto-finalize": True, "auto-dismiss": False,
        },
    )  # fmt: skip
