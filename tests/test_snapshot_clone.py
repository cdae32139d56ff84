"""Copies of a moment, whole or linked; machines with snapshots that are renamed and removed."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from qlaunch.store import paths
from tests.rig import Rig, qlaunch, write_profile
from tests.timetravel import Traveller

pytestmark = pytest.mark.qemu


def call(*words: str, status: int = 0) -> str:
    process = qlaunch(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, (words, out, err)
    return (out + err).decode()


@pytest.fixture
def here(rig: Rig) -> Traveller:
    """The demo guest with the snapshot `one`, and `two` since."""
    write_profile("demo")
    rig.up()
    rig.ready()
    here = Traveller(rig)
    here.say("+one\r")
    here.create("one", disks_only=True)
    here.say("+two\r")
    return here


def state(rig: Rig, name: str) -> tuple[int, str]:
    rig.ask("up", profile=paths.find_profile(name))
    rig.responds(name)
    found = Traveller(rig, name).now()
    rig.kill(name)
    return found


def test_a_moment_is_copied_while_the_machine_runs(here: Traveller) -> None:
    call("clone", "demo", "copy", "--snapshot", "one")
    assert state(here.rig, "copy") == (1, "one")
    assert here.now() == (2, "onetwo")
    here.rig.kill()
    call("clone", "demo", "second")
    assert state(here.rig, "second") == (2, "onetwo")


def test_a_linked_copy_keeps_what_it_stands_on(here: Traveller) -> None:
    call("clone", "demo", "copy", "--snapshot", "one", "--linked")
    assert state(here.rig, "copy") == (1, "one")
    before = here.layers()
    assert "stays" in call("snapshot", "delete", "demo", "one")
    assert here.layers() == before
    assert state(here.rig, "copy") == (1, "one")
    assert here.now() == (2, "onetwo")
    assert "--snapshot NAME" in call("clone", "demo", "x", "--linked", status=2)
    assert "no snapshot 'y'" in call("clone", "demo", "x", "--snapshot", "y", status=4)
    here.rig.kill()
    kept = call("rm", "demo", "--yes")
    assert "copy.toml names it" in kept
    assert state(here.rig, "copy") == (1, "one")


def test_a_raw_disk_with_snapshots_is_copied_as_raw(rig: Rig) -> None:
    text = '\n[[disk]]\nid = "raw"\nformat = "raw"\nsize = "1MiB"\n'
    write_profile("demo", text)
    rig.up()
    rig.ready()
    here = Traveller(rig)
    here.create("one", disks_only=True)
    assert os.path.exists(os.path.join(paths.machine_data("demo"), "raw.snap1.qcow2"))
    rig.kill()
    call("clone", "demo", "copy")
    info = subprocess.run(
        ["qemu-img", "info", "--output=json", f"{paths.machine_data('copy')}/raw.raw"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(info.stdout)["format"] == "raw"
    rig.up()
    here.revert("one")
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert "raw.raw" in os.listdir(paths.machine_data("demo"))
    assert "raw.snap1.qcow2" not in os.listdir(paths.machine_data("demo"))


def test_a_renamed_machine_goes_on_from_what_was_saved(here: Traveller) -> None:
    here.create("warm")
    here.rig.ask("save", name="demo")
    call("rename", "demo", "other")
    assert state(here.rig, "other") == (2, "onetwo")
    other = Traveller(here.rig, "other")
    assert other.revert("warm")["state"] == "running"
    assert other.now() == (2, "onetwo")
    other.revert("one")
    assert other.now() == (1, "one")
    here.rig.kill("other")
    call("rm", "other", "--yes")
    assert not os.path.exists(paths.machine_data("other"))
