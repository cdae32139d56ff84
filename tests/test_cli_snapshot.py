"""The verbs of snapshots as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qlaunch.cli import pictures
from qlaunch.host.qcow2_write import create_overlay
from qlaunch.store import paths
from qlaunch.store import timeline as store
from qlaunch.tree.model import Snapshot, Timeline
from tests.conftest import Golden
from tests.rig import Rig, qlaunch, write_profile
from tests.test_cli_thin import imported_by

CHILDREN: dict[int | None, list[int]] = {
    None: [1, 9], 1: [2, 6], 2: [3, 4], 3: [5], 6: [7, 0], 9: [10], 4: [8],
}  # fmt: skip


def picture(signs: tuple[str, str, str, str]) -> str:
    return "\n".join(pictures.draw(CHILDREN, lambda n: f"snap{n}" if n else "here", 0, signs=signs))


@pytest.mark.parametrize("name", ["unicode", "ascii"])
def test_the_picture_of_a_tree(name: str, golden: Golden) -> None:
    signs = pictures.UNICODE if name == "unicode" else pictures.ASCII
    golden(f"tree/{name}.txt", picture(signs) + "\n")


def test_a_line_of_descent_does_not_wander_off_the_screen() -> None:
    children: dict[int | None, list[int]] = {None: [1], 500: [0]}
    children |= {number: [number + 1] for number in range(1, 500)}
    lines = list(pictures.draw(children, str, 0))
    assert len(lines) == 501
    assert max(map(len, lines)) <= 5


def call(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    process = qlaunch(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, (words, out, err)
    return subprocess.CompletedProcess(words, status, out.decode(), err.decode())


def say(*words: str) -> Any:
    return json.loads(call(*words, "--json").stdout)


@pytest.mark.qemu
def test_who_only_looks_waits_for_no_imports(rig: Rig) -> None:
    """Plans and what works on a running machine take longer to import than a large tree to draw."""
    rig.up()
    rig.ask("snapshot-create", name="demo")
    heavy = {"asyncio", "qlaunch.plan", "qlaunch.profile", "qlaunch.qmp", "qlaunch.facts"}
    for verb in ("tree", "list", "current"):
        assert imported_by("snapshot", verb, "demo") & heavy == set()
    rig.kill()
    assert imported_by("snapshot", "tree", "demo") & heavy == set()


@pytest.mark.qemu
def test_from_the_first_snapshot_to_the_last(rig: Rig) -> None:
    write_profile("demo")
    call("up", "demo")
    made = call("snapshot", "create", "demo", "clean", "-m", "before all").stderr
    assert "snapshot clean, disks and memory" in made
    assert "the guest stood still for" in made
    call("snapshot", "create", "demo", "--disks-only", "-q")
    listed = call("snapshot", "list", "demo").stdout
    assert "before all" in listed
    assert "* snap1" in listed
    assert call("snapshot", "current", "demo").stdout == "snap1\n"
    call("snapshot", "rename", "demo", "snap1", "later")
    call("snapshot", "edit", "demo", "later", "-m", "other words")
    assert say("snapshot", "show", "demo", "later")["text"] == "other words"
    assert "back at clean, running" in call("revert", "demo", "clean").stderr
    tree = say("snapshot", "tree", "demo")
    assert [row["parent"] for row in tree["snapshots"]] == [None, 1]
    assert tree["here"]["parent"] == 1
    assert "you are here" in call("snapshot", "tree", "demo", "--ascii").stdout
    assert "would delete clean" in call("snapshot", "prune", "demo", "--keep", "1",
                                        "--dry-run").stderr  # fmt: skip
    assert "deleted later" in call("snapshot", "delete", "demo", "later").stderr
    assert "nothing is under way" in call("jobs", "demo").stderr
    assert say("jobs", "demo")["jobs"] == []
    call("save", "demo")
    assert "saved" in call("ps", "-a").stdout
    assert say("status", "demo")["state"] == "saved"
    assert "continuing where it was saved" in call("up", "demo").stderr
    call("kill", "demo")


@pytest.mark.qemu
def test_what_is_wrong_is_told_with_what_to_do(rig: Rig) -> None:
    write_profile("demo")
    call("up", "demo")
    assert "no snapshot 'x'" in call("revert", "demo", "x", status=4).stderr
    assert "no snapshot 'x'" in call("snapshot", "show", "demo", "x", status=4).stderr
    assert "--keep 10" in call("snapshot", "prune", "demo", status=2).stderr
    assert "which snapshot?" in call("snapshot", "delete", "demo", status=2).stderr
    assert "no such job" in call("jobs", "demo", "--cancel", "x", status=4).stderr
    call("snapshot", "create", "demo", "a", "--disks-only")
    call("revert", "demo", "a", "--keep-current")
    call("pause", "demo")  # so that nothing is written that would make a branch
    call("snapshot", "create", "demo", "b", "--disks-only")
    call("revert", "demo", "a")
    merge = call("snapshot", "merge", "demo", "b", status=6).stderr
    assert "nothing was made from b" in merge
    call("kill", "demo")
    assert "there is no" in call("snapshot", "create", "nobody", status=4).stderr


def test_a_tree_that_somebody_has_damaged_is_told(tmp_path: Path) -> None:
    machine_with(3)
    os.unlink(os.path.join(paths.machine_data("demo"), "disk0.snap1.qcow2"))
    told = call("snapshot", "tree", "demo").stderr
    assert "disk0.snap1.qcow2" in told
    assert "missing" in told


def machine_with(count: int) -> None:
    """A stopped machine with `count` snapshots in a row; its images are empty."""
    write_profile("demo")
    folder = paths.machine_data("demo")
    os.makedirs(folder)
    names = ["disk0.qcow2", *(f"disk0.snap{n}.qcow2" for n in range(1, count + 1))]
    for number, name in enumerate(names):
        below = names[number - 1] if number else None
        create_overlay(
            os.path.join(folder, name), size=1 << 20, backing=below,
            backing_format="qcow2" if below else None,
        )  # fmt: skip
    timeline = Timeline(heads={"disk0": names[-1]}, owned={"disk0": tuple(names[1:])})
    for number in range(1, count + 1):
        timeline = timeline.with_snapshot(
            Snapshot(id=number, name=f"s{number}", layers={"disk0": names[number - 1]},
                     created=time.time())
        )  # fmt: skip
    store.save("demo", timeline)
    state = Path(paths.machine_state("demo"))
    state.mkdir(parents=True)
    from tests import plans

    plan = plans.plan_of(f'[[disk]]\nid = "disk0"\npath = "{folder}/disk0.qcow2"\n').plan
    from attrs import evolve

    from qlaunch.store import machines

    machines.save_plan(evolve(plan, name="demo"))


def test_two_hundred_snapshots_are_drawn(tmp_path: Path) -> None:
    machine_with(200)
    lines = call("snapshot", "tree", "demo", "--ascii").stdout.splitlines()
    assert len(lines) == 201
    assert lines[-1] == "@ you are here"
    assert say("snapshot", "tree", "demo")["here"]["parent"] == 200


def test_a_chain_is_drawn_with_who_names_it() -> None:
    machine_with(2)
    top = os.path.join(paths.machine_data("demo"), "disk0.snap2.qcow2")
    drawn = call("image", "chain", top).stdout.splitlines()
    assert drawn[0].startswith(top)
    assert "└─" in "".join(drawn)
    assert len(say("image", "chain", top)["chain"]) == 3
    assert "there is no file" in call("image", "chain", "/nowhere", status=4).stderr
