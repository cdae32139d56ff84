"""The node graph of images: throttle -> format -> file, explicit to the last file.

Nothing is probed and no backing file is followed by QEMU itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qlaunch.plan.model import Disk, Drive, Firmware, Layer

FileName = Callable[[Layer], str]


def _file(layer: Layer, name: FileName, **more: Any) -> dict[str, Any]:
    return {
        "driver": "file",
        "node-name": layer.file_node,
        "filename": name(layer),
        "read-only": layer.file_read_only,
        "auto-read-only": False,
        **more,
    }


def disk_nodes(disk: Disk, name: FileName) -> Iterator[dict[str, Any]]:
    """The nodes of a disk, lowest image first and the throttle node last. Each goes to one
    `-blockdev`, or to `blockdev-add`."""
    below: str | None = None
    for layer in reversed(disk.layers):
        yield from layer_nodes(disk, layer, name, backing=below, active=layer is disk.layers[0])
        below = layer.node
    yield throttle_node(disk, disk.layers[0])


def layer_nodes(
    disk: Disk, layer: Layer, name: FileName, *, backing: str | None, active: bool
) -> Iterator[dict[str, Any]]:
    """The file node and the format node of one layer of a disk; `backing` is the node below."""
    cache = {"direct": disk.direct, "no-flush": disk.no_flush}
    yield _file(
        layer,
        name,
        cache=cache,
        aio=disk.aio if active else "threads",
        discard=disk.discard if active else "unmap",
        locking="auto" if disk.lock else "off",
    )
    node: dict[str, Any] = {
        "driver": layer.format,
        "node-name": layer.node,
        "file": layer.file_node,
        "read-only": layer.read_only,
        "cache": cache,
    }
    if active:
        node["discard"] = disk.discard
    if layer.format == "qcow2":
        node["backing"] = backing
    yield node


def throttle_node(disk: Disk, active: Layer) -> dict[str, Any]:
    """The node on top of a disk, called after it, with `active` below it.

    A node has options of its own: QEMU 7.2 takes nothing over from the one below. Without these
    the guest's TRIM ends here, and a read-only disk is asked for the right to write.
    """
    return {
        "driver": "throttle",
        "node-name": disk.id,
        "throttle-group": f"{disk.id}-limits",
        "file": active.node,
        "read-only": active.read_only,
        "discard": disk.discard,
    }


def throttle_group(disk: Disk) -> dict[str, Any]:
    """The `-object` that holds the disk's limits; without any it lets everything pass."""
    group: dict[str, Any] = {"qom-type": "throttle-group", "id": f"{disk.id}-limits"}
    if disk.limits:
        group["limits"] = dict(disk.limits)
    return group


def medium_nodes(drive: Drive, name: FileName) -> Iterator[dict[str, Any]]:
    """The nodes of a removable medium."""
    if drive.medium is None:
        return
    layer = drive.medium
    yield _file(layer, name)
    yield {
        "driver": layer.format,
        "node-name": layer.node,
        "file": layer.file_node,
        "read-only": layer.read_only,
    }


def firmware_nodes(firmware: Firmware, name: FileName) -> Iterator[dict[str, Any]]:
    """The two flash chips of UEFI."""
    for layer in (firmware.code, firmware.vars):
        yield _file(layer, name)
        yield {
            "driver": layer.format,
            "node-name": layer.node,
            "file": layer.file_node,
            "read-only": layer.read_only,
        }
