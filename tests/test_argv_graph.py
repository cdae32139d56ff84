"""The block graph out of QEMU's answers, and the commands that change it, word for word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qlaunch.argv import graph
from qlaunch.argv.graph import Command, Graph, read_graph
from qlaunch.plan.model import Device, Disk, Layer
from tests.conftest import Golden
from tests.plans import commands


def layer(number: int, path: str, *, form: str = "qcow2", read_only: bool = False) -> Layer:
    name = f"hda-{number}" if number else "hda"
    return Layer(
        node=f"{name}-format", file_node=f"{name}-file", path=path,
        format=form, read_only=read_only,  # type: ignore[arg-type]
    )  # fmt: skip


BASE = layer(0, "/d/c.img", form="raw", read_only=True)
MIDDLE = layer(1, "/d/c.snap1.qcow2", read_only=True)
TOP = layer(2, "/d/c.snap2.qcow2")
DISK = Disk(
    id="hda",
    bus="virtio",
    image="/d/c.img",
    layers=(TOP, MIDDLE, BASE),
    device=Device(id="hda-dev", driver="virtio-blk-pci", props={"drive": "hda"}),
    discard="unmap",
)

# As QEMU 7.2 and 10.0 answer, cut down to what is read.
STATS: list[dict[str, Any]] = [
    {
        "node-name": "hda",
        "parent": {
            "node-name": "hda-2-format",
            "parent": {"node-name": "hda-2-file"},
            "backing": {
                "node-name": "hda-1-format",
                "parent": {"node-name": "hda-1-file"},
                "backing": {"node-name": "hda-format", "parent": {"node-name": "hda-file"}},
            },
        },
    },
    {"device": "", "qdev": "cd0-dev"},
]
NODES: list[dict[str, Any]] = [
    {"node-name": "hda", "drv": "throttle", "file": "json:{}", "ro": False},
    {"node-name": "hda-2-format", "drv": "qcow2", "file": "json:{}", "ro": False},
    {"node-name": "hda-2-file", "drv": "file", "file": "/dev/fdset/7", "ro": False},
    {"node-name": "hda-1-format", "drv": "qcow2", "file": "/dev/fdset/3", "ro": True},
    {"node-name": "hda-1-file", "drv": "file", "file": "/dev/fdset/3", "ro": False},
    {"node-name": "hda-format", "drv": "raw", "file": "/dev/fdset/0", "ro": True},
    {"node-name": "hda-file", "drv": "file", "file": "/dev/fdset/0", "ro": True},
]
FILES = {7: TOP.path, 3: MIDDLE.path, 0: BASE.path}


def test_a_chain_is_read_from_the_names_of_nodes() -> None:
    found = read_graph(["hda"], STATS, NODES, FILES)
    assert found.chains == {"hda": (TOP, MIDDLE, BASE)}
    assert found.fdsets["hda-2-file"] == 7
    assert found.node_of("hda", MIDDLE.path) == MIDDLE
    assert found.has_path(BASE.path)
    assert not found.has_path("/d/other.qcow2")


@pytest.mark.parametrize("driver", ["copy-on-read", "commit_top", "mirror_top"])
def test_a_filter_that_a_job_put_in_is_looked_through(driver: str) -> None:
    inner = STATS[0]["parent"]
    stats = [{"node-name": "hda", "parent": {"node-name": "#block9", "parent": inner}}]
    nodes = [*NODES, {"node-name": "#block9", "drv": driver, "file": "json:{}", "ro": False}]
    assert read_graph(["hda"], stats, nodes, FILES).chains == {"hda": (TOP, MIDDLE, BASE)}


def test_a_disk_that_qemu_does_not_have_has_no_chain() -> None:
    assert "hdb" not in read_graph(["hda", "hdb"], STATS, NODES, FILES).chains


def test_a_file_that_was_not_handed_over_by_us_has_no_path() -> None:
    assert read_graph(["hda"], STATS, NODES, {}).chains["hda"][0].path == ""


def test_new_nodes_get_names_that_nobody_has() -> None:
    taken = [node["node-name"] for node in NODES]
    assert graph.free_layer("hda", "/x", taken).node == "hda-3-format"
    assert graph.free_layer("hda", "/x", ["hda-1-file"]).node == "hda-2-format"
    longest = graph.free_layer("d" * 20, "/x", [f"{'d' * 20}-{n}-file" for n in range(1, 998)])
    assert len(longest.node) <= 31


def told(parts: dict[str, tuple[Command, ...]]) -> str:
    lines = []
    for title, sent in parts.items():
        lines.append(f"==== {title}")
        lines += [f"{each.name} {json.dumps(each.arguments)}" for each in sent]
    return "\n".join(lines) + "\n"


def every_command() -> dict[str, tuple[Command, ...]]:
    fresh = graph.free_layer("hda", "/d/c.snap3.qcow2", [n["node-name"] for n in NODES])
    return {
        "a new layer, not on anything yet": graph.add_layer(
            DISK, fresh, 9, backing=None, active=True
        ),
        "a lower layer": graph.add_layer(DISK, MIDDLE, 3, backing=BASE.node, active=False),
        "a snapshot of two disks": (
            graph.overlay([(TOP, fresh), (layer(0, "/d/d.img"), layer(1, "/d/d.snap3.qcow2"))]),
        ),
        "a disk on another layer": (graph.switch([(DISK, fresh)]),),
        "a layer that nothing stands on goes": graph.remove_layer(TOP),
        "pull into a layer that stands on something": (
            graph.stream("job", TOP, BASE, name="c.img"),
        ),
        "pull into a layer that then stands on nothing": (
            graph.stream("job", MIDDLE, None, name=None),
        ),
        "push of an inner layer": (graph.commit("job", "hda", MIDDLE, BASE, name="c.img"),),
        "push of the active layer": (graph.commit("job", "hda", TOP, MIDDLE, name=None),),
    }


def test_every_change_of_the_graph_word_for_word(golden: Golden) -> None:
    golden("graph/commands.txt", told(every_command()))


@pytest.mark.parametrize("version", ["7.2", "10.0"])
def test_qemu_knows_every_command_and_argument(version: str) -> None:
    known = commands(version)
    for sent in every_command().values():
        for each in sent:
            if each.name in ("blockdev-add", "blockdev-reopen"):
                continue  # their arguments hang on the driver
            allowed = {name.rstrip("?") for name in known[each.name]}
            needed = {name for name in known[each.name] if not name.endswith("?")}
            assert set(each.arguments) <= allowed
            assert needed <= set(each.arguments)


def test_the_graph_of_no_machine_is_empty() -> None:
    assert read_graph([], [], [], {}) == Graph(chains={}, nodes={})
