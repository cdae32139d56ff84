"""The block graph of a running QEMU, read from its own answers, and what changes it.

Nothing is sent here. What is to be sent is data: a tuple of commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from attrs import evolve, field, frozen

from qlaunch.argv.blocks import layer_nodes, throttle_node
from qlaunch.plan.model import Disk, Layer

# Nodes that QEMU puts in by itself while a job runs; what counts is below them.
_FILTERS = ("copy-on-read", "commit_top", "mirror_top", "backup-top", "copy-before-write")
_FDSET = "/dev/fdset/"


@frozen
class Command:
    """One QMP command."""

    name: str
    arguments: Mapping[str, Any]


@frozen(kw_only=True)
class Graph:
    """What QEMU has: for each disk its layers, active one first, and every named node.

    `nodes` maps a node to its driver, `fdsets` a file node to its descriptor set. `spare` are the
    sets that no node names, with the path of their file.
    """

    chains: Mapping[str, tuple[Layer, ...]]
    nodes: Mapping[str, str]
    fdsets: Mapping[str, int] = field(factory=dict)
    spare: Mapping[int, str] = field(factory=dict)

    def node_of(self, disk: str, path: str) -> Layer | None:
        """The layer of `disk` that the file at `path` is."""
        return next((layer for layer in self.chains.get(disk, ()) if layer.path == path), None)

    def has_path(self, path: str) -> bool:
        """Whether any disk stands on the file at `path`."""
        return any(layer.path == path for chain in self.chains.values() for layer in chain)


def read_graph(
    disks: Iterable[str],
    stats: Sequence[Mapping[str, Any]],
    nodes: Sequence[Mapping[str, Any]],
    files: Mapping[int, str],
) -> Graph:
    """The graph out of `query-blockstats`, `query-named-block-nodes` (flat) and the paths of the
    descriptor sets.

    The names that QEMU gives to the files of nodes above a file are no help: after a reopen they
    are JSON texts. Its statistics nest node names instead.
    """
    by_name = {str(node["node-name"]): node for node in nodes}
    roots = {entry.get("node-name"): entry for entry in stats}
    chains = {
        disk: tuple(_chain(roots[disk].get("parent"), by_name, files))
        for disk in disks
        if disk in roots
    }
    fdsets = {
        name: number
        for name, node in by_name.items()
        if (number := _fdset(str(node["file"]))) is not None
    }
    return Graph(
        chains=chains,
        nodes={name: str(node["drv"]) for name, node in by_name.items()},
        fdsets=fdsets,
        spare={number: files[number] for number in files.keys() - fdsets.values()},
    )


def _chain(
    entry: Mapping[str, Any] | None,
    nodes: Mapping[str, Mapping[str, Any]],
    files: Mapping[int, str],
) -> Iterator[Layer]:
    while entry is not None:
        name = str(entry.get("node-name", ""))
        node = nodes.get(name)
        if node is None or node["drv"] in _FILTERS:
            entry = entry.get("backing") or entry.get("parent")
            continue
        file_entry = entry.get("parent") or {}
        file_node = str(file_entry.get("node-name", ""))
        number = _fdset(str(nodes.get(file_node, {}).get("file", "")))
        yield Layer(
            node=name,
            file_node=file_node,
            path=files.get(number, "") if number is not None else "",
            format=cast("Literal['qcow2', 'raw']", node["drv"]),
            read_only=bool(node["ro"]),
        )
        entry = entry.get("backing")


def _fdset(filename: str) -> int | None:
    number = filename.removeprefix(_FDSET)
    return int(number) if number != filename and number.isdigit() else None


def free_layer(disk: str, path: str, taken: Iterable[str], *, read_only: bool = False) -> Layer:
    """A qcow2 layer at `path` for `disk` under node names that are not `taken`."""
    used = set(taken)
    number = 1
    while f"{disk}-{number}-format" in used or f"{disk}-{number}-file" in used:
        number += 1
    return Layer(
        node=f"{disk}-{number}-format",
        file_node=f"{disk}-{number}-file",
        path=path,
        format="qcow2",
        read_only=read_only,
    )


def add_layer(
    disk: Disk, layer: Layer, fdset: int, *, backing: str | None, active: bool
) -> tuple[Command, ...]:
    """Make the nodes of a layer whose file is in the descriptor set `fdset`.

    What goes on top of the running layer by `overlay` has no backing node before.
    """

    def name(_layer: Layer) -> str:
        return f"{_FDSET}{fdset}"

    nodes = layer_nodes(disk, layer, name, backing=backing, active=active)
    return tuple(Command("blockdev-add", node) for node in nodes)


def overlay(pairs: Sequence[tuple[Layer, Layer]]) -> Command:
    """Put the second of each pair on top of the first, all at one moment."""
    return Command(
        "transaction",
        {
            "actions": [
                {
                    "type": "blockdev-snapshot",
                    "data": {"node": below.node, "overlay": above.node},
                }
                for below, above in pairs
            ]
        },
    )


def switch(disks: Sequence[tuple[Disk, Layer]]) -> Command:
    """Put each disk on another layer, all at one moment; the guest must be stopped."""
    return Command(
        "blockdev-reopen", {"options": [throttle_node(disk, layer) for disk, layer in disks]}
    )


def reopen(disk: Disk, layer: Layer, below: Layer | None, *, read_only: bool) -> Command:
    """Have QEMU allow writing to a layer that others stand on, or not any more. Its file must be
    open for writing."""
    *_file, node = layer_nodes(
        disk,
        evolve(layer, read_only=read_only),
        lambda _layer: "",
        backing=below.node if below is not None else None,
        active=False,
    )
    return Command("blockdev-reopen", {"options": [node]})


def remove_layer(layer: Layer) -> tuple[Command, ...]:
    """Take the nodes of a layer away that nothing stands on."""
    return (
        Command("blockdev-del", {"node-name": layer.node}),
        Command("blockdev-del", {"node-name": layer.file_node}),
    )


def stream(job: str, child: Layer, base: Layer | None, *, name: str | None) -> Command:
    """Copy into `child` what it lacks from the layers between it and `base`. `name` is how the
    child's header will call the base.

    It dismisses itself: while a stream is concluded and not dismissed, QEMU (7.2 and 10.0) crashes
    in `query-named-block-nodes`, over a filter of the job's that has lost its child.
    """
    arguments: dict[str, Any] = {
        "job-id": job, "device": child.node, "auto-dismiss": True, "auto-finalize": True,
    }  # fmt: skip
    if base is not None:
        arguments |= {"base-node": base.node, "backing-file": name}
    return Command("block-stream", arguments)


def commit(job: str, disk: str, child: Layer, ghost: Layer, *, name: str | None) -> Command:
    """Copy `child` down into `ghost`, below it. Where `child` is the active layer, the job waits to
    be completed and then to be finalized; `name`, how the layer above will call `ghost`, is None
    then."""
    arguments: dict[str, Any] = {
        "job-id": job, "device": disk, "top-node": child.node, "base-node": ghost.node,
        "auto-dismiss": name is not None, "auto-finalize": name is not None,
    }  # fmt: skip
    if name is not None:
        arguments["backing-file"] = name
    return Command("block-commit", arguments)
