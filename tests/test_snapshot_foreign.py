"""libvirt's accident (its issue 811: deleting a snapshot destroyed a base image) is tried with
every verb that removes layers: what others have put on one reads what it read before."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qlaunch.store import paths
from tests.rig import Rig, qlaunch, write_profile
from tests.timetravel import Traveller

pytestmark = pytest.mark.qemu

LAYERS = ("disk0.qcow2", "disk0.snap1.qcow2", "disk0.snap2.qcow2")


def qemu_img(*words: str) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def overlay(path: str, below: str, *, size: str = "1M") -> str:
    """An image as anybody makes it: nobody tells us of it. `-u`: ours may be open."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, path, size)
    return path


def beside(folder: str, layer: str) -> str:
    """In the same folder, by a relative name."""
    return overlay(os.path.join(folder, f"theirs-{layer}"), layer)


def by_link(folder: str, layer: str) -> str:
    """In the same folder, by a name that leads through a link."""
    link = os.path.join(paths.data_dir(), "link")
    if not os.path.islink(link):
        os.symlink(folder, link)
    return overlay(os.path.join(folder, f"linked-{layer}"), os.path.join(link, layer))


def by_far(folder: str, layer: str) -> str:
    """In the same folder, on an image that lies where nobody looks."""
    between = overlay(os.path.join(os.environ["HOME"], f"far-{layer}"), os.path.join(folder, layer))
    return overlay(os.path.join(folder, f"near-{layer}"), between)


def by_json(folder: str, layer: str) -> str:
    """In the same folder, by a name as QEMU itself writes it after a block job."""
    return overlay(os.path.join(folder, f"json-{layer}"), in_json(folder, layer))


def in_json(folder: str, layer: str) -> str:
    file = {"driver": "file", "filename": os.path.join(folder, layer)}
    return "json:" + json.dumps({"driver": "qcow2", "file": file})


def by_machine(folder: str, layer: str) -> str:
    """The disk of another machine, which lies elsewhere."""
    image = os.path.join(os.environ["HOME"], "disks", f"other-{layer}")
    said = f'[[disk]]\nid = "own"\nbus = "ide"\npath = "{image}"\n'
    write_profile(f"other-{layer.split('.')[-2]}", text='schema = 1\nguest = "other"\n' + said)
    return overlay(image, os.path.join(folder, layer))


def by_machine_json(folder: str, layer: str) -> str:
    """In the folder of another machine, by a name as QEMU itself writes it."""
    other = os.path.join(paths.data_dir(), "machines", "third", layer)
    return overlay(other, in_json(folder, layer))


def by_plan(folder: str, layer: str) -> str:
    """In the folder of another machine, whose profile is gone."""
    other = os.path.join(paths.data_dir(), "machines", "gone", f"{layer}")
    return overlay(other, os.path.join(folder, layer))


FOREIGN: dict[str, Callable[[str, str], str]] = {
    "beside": beside, "by link": by_link, "by far": by_far, "by json": by_json,
    "by machine": by_machine, "by plan": by_plan,
}  # fmt: skip


def delete(here: Traveller) -> None:
    for name in ("two", "six", "one"):
        here.delete(name)


def delete_children(here: Traveller) -> None:
    here.delete("one", children=True)


def merge(here: Traveller) -> None:
    for name in ("one", "two", "six"):
        here.delete(name, merge=True)


def prune(here: Traveller) -> None:
    here.rig.ask("snapshot-prune", name="demo", keep=0)


VERBS = {"delete": delete, "children": delete_children, "merge": merge, "prune": prune}


# Where one looks does not depend on the verb once the machine is stopped.
CASES = [(verb, kind, True) for verb in VERBS for kind in FOREIGN]
CASES += [(verb, "beside", False) for verb in VERBS] + [("prune", kind, False) for kind in FOREIGN]


def content(path: str) -> str:
    """What a guest would read."""
    raw = f"{path}.read"
    qemu_img("convert", "-U", "-O", "raw", path, raw)
    try:
        return hashlib.sha256(Path(raw).read_bytes()).hexdigest()
    finally:
        os.unlink(raw)


def begin(rig: Rig) -> Traveller:
    """Three snapshots in a row."""
    rig.up()
    rig.ready()
    here = Traveller(rig)
    for word in ("one", "two", "six"):
        here.say(f"+{word}\r")
        rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
        here.create(word)
    here.say("+ten\r")
    rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
    return here


@pytest.mark.parametrize("verb, kind, running", CASES)
def test_what_others_have_put_on_a_layer_stays_readable(
    rig: Rig, verb: str, kind: str, running: bool
) -> None:
    here = begin(rig)
    folder = paths.machine_data("demo")
    theirs = [FOREIGN[kind](folder, layer) for layer in LAYERS]
    before = {path: content(path) for path in theirs}
    assert len(set(before.values())) == len(LAYERS)
    if not running:
        rig.kill()
    VERBS[verb](here)
    if running:
        here.settle()
    assert here.labels() == []
    assert {path: content(path) for path in theirs} == before
    if not running:
        rig.up()
    assert here.now() == (4, "onetwosixten")
    for layer in LAYERS:
        assert os.path.exists(os.path.join(folder, layer))


def test_when_they_are_gone_the_layers_go_too(rig: Rig) -> None:
    here = begin(rig)
    folder = paths.machine_data("demo")
    theirs = [beside(folder, layer) for layer in LAYERS]
    prune(here)
    for path in theirs:
        os.unlink(path)
    prune(here)
    assert here.layers() == ["disk0.qcow2"]
    assert here.now() == (4, "onetwosixten")


@pytest.mark.parametrize("foreign", [by_machine, by_machine_json, by_plan])
def test_rm_keeps_what_others_stand_on_and_says_so(
    rig: Rig, foreign: Callable[[str, str], str]
) -> None:
    begin(rig)
    folder = paths.machine_data("demo")
    theirs = foreign(folder, LAYERS[1])
    before = content(theirs)
    rig.kill()
    process = qlaunch("rm", "demo", "--yes", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0, said
    assert content(theirs) == before
    assert any(LAYERS[1] in line and "kept" in line for line in said.splitlines()), said
    assert sorted(os.listdir(folder)) == list(LAYERS[:2])
