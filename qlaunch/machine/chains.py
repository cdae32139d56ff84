"""The layers under a disk's head, read from the images: for a plan made at another time."""

from __future__ import annotations

import os
import stat
from typing import Any

from attrs import evolve

from qlaunch import records
from qlaunch.errors import RefusedError
from qlaunch.host.image_facts import image_facts
from qlaunch.machine.bench import path_of
from qlaunch.plan.model import Disk, Layer, Plan
from qlaunch.store import machines
from qlaunch.tree.model import Timeline

_MAX_CHAIN = 200


def with_heads(plan: Plan, timeline: Timeline) -> Plan:
    """`plan` with each disk on its head of now.

    Raises: RefusedError when a layer is missing or of no use.
    """
    disks = tuple(
        evolve(disk, layers=_layers(disk, timeline), create=None)
        if disk.id in timeline.heads
        else evolve(disk, create=None)
        for disk in plan.disks
    )
    firmware = evolve(plan.firmware, create=None) if plan.firmware else None
    return evolve(plan, disks=disks, firmware=firmware)


def relocated(plan: Plan, name: str) -> Plan:
    """`plan` in today's folders, and for a machine that is called `name` now: it may have been
    renamed since, and sockets lie elsewhere for another session of the user."""
    then, now = records.to_plain(plan.places), records.to_plain(machines.places(name))
    prefixes = [(then[key], now[key]) for key in now if then[key] != now[key]]
    if not prefixes and plan.name == name:
        return plan
    plain = _moved(records.to_plain(plan), prefixes)
    return evolve(records.from_plain(Plan, plain), name=name)


def _moved(value: Any, prefixes: list[tuple[str, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, prefixes) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, prefixes) for item in value]
    if isinstance(value, str):
        for old, new in prefixes:
            if value == old or value.startswith(f"{old}/"):
                return new + value[len(old) :]
    return value


def layers_at(disk: Disk, name: str, timeline: Timeline) -> tuple[Layer, ...]:
    """The layer that the timeline calls `name`, and all below it. Raises: RefusedError."""
    return _layers(disk, evolve(timeline, heads={disk.id: name}))


def _layers(disk: Disk, timeline: Timeline) -> tuple[Layer, ...]:
    raws = {layer.path for layer in disk.layers if layer.format == "raw"}
    path: str | None = path_of(disk, timeline.heads[disk.id])
    ours = {disk.image, *(path_of(disk, name) for name in timeline.owned.get(disk.id, ()))}
    found: list[Layer] = []
    while path is not None:
        depth = len(found)
        raw = path in raws
        facts = image_facts(path, want_write=depth == 0)
        if facts.problem or not facts.exists or depth > _MAX_CHAIN:
            raise RefusedError(f"disk {disk.id}: {path}: {facts.problem or 'it is missing'}")
        name = f"{disk.id}-{depth}" if depth else disk.id
        form = "raw" if raw or facts.format != "qcow2" else "qcow2"
        found.append(
            Layer(
                node=f"{name}-format",
                file_node=f"{name}-file",
                path=path,
                format="raw" if form == "raw" else "qcow2",
                read_only=depth > 0 or disk.layers[0].read_only,
                mergeable=depth > 0 and facts.writable and path in ours,
            )
        )
        path = facts.backing_path if form == "qcow2" else None
    return tuple(found)


def node_of(layers: tuple[Layer, ...]) -> dict[str, object]:
    """The whole chain as a node for qemu-img: no name in a header is followed."""
    top, *below = layers
    block = stat.S_ISBLK(os.stat(top.path).st_mode)
    file = {"driver": "host_device" if block else "file", "filename": top.path}
    if top.format == "raw":
        return {"driver": "raw", "file": file}
    backing = node_of(tuple(below)) if below else None
    return {"driver": top.format, "file": file, "backing": backing}
