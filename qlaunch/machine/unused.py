"""What QEMU has been given for disks that stand on something else by now."""

from __future__ import annotations

import os

from qlaunch.machine import live
from qlaunch.machine.bench import Bench, path_of
from qlaunch.plan.model import Layer
from qlaunch.store import timeline as store


async def drop_unused_nodes(bench: Bench) -> None:
    """Take away the layers' nodes that no disk stands on: a verb that was cut off left them."""
    assert bench.graph is not None
    used = {
        name
        for chain in bench.graph.chains.values()
        for layer in chain
        for name in (layer.node, layer.file_node)
    }
    loose = [
        Layer(
            node=name,
            file_node=name.removesuffix("format") + "file",
            path="",
            format="qcow2",
        )
        for name in bench.graph.nodes
        if name.endswith("-format") and name not in used
        if any(name.startswith(f"{disk.id}-") for disk in bench.plan.disks)
    ]
    await bench.remove_nodes(loose)
    await _drop_spare_sets(bench)


async def _drop_spare_sets(bench: Bench) -> None:
    """Take back the descriptors of layers and memory files that no node uses. QEMU (7.2, 10.0)
    keeps those that are taken back while the guest stands still, as a revert does."""
    assert bench.graph is not None
    ours = {
        path_of(disk, name)
        for disk in bench.plan.disks
        for name in (*bench.timeline.owned.get(disk.id, ()), disk.image)
    }
    memory_files = os.path.join(store.folder(bench.name), "")
    for number, path in bench.graph.spare.items():
        if path in ours or path.startswith(memory_files):
            await live.take_back(bench.session, number)
