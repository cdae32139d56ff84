"""Internal snapshots: inside the images, made and gone back to while the guest runs or not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from qlaunch.errors import ConflictError, RefusedError
from qlaunch.host.qcow2 import ImageError
from qlaunch.host.qcow2_snapshots import copy_vm_state, list_internal
from qlaunch.store import paths
from qlaunch.store import timeline as store
from tests.prerequisites import both_qemus
from tests.rig import PROFILE, Rig, nothing_left, qlaunch, write_profile
from tests.test_snapshot_faults import Cut, cut
from tests.timetravel import SECOND_DISK, Traveller

__all__ = ["cut"]
pytestmark = pytest.mark.qemu


def tags(image: str = "disk0.qcow2") -> list[str]:
    path = os.path.join(paths.machine_data("demo"), image)
    words = ["qemu-img", "info", "-U", "--output=json", path]
    found = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return [each["name"] for each in found.get("snapshots", ())]


def begin(rig: Rig, *settings: str) -> Traveller:
    write_profile("demo", SECOND_DISK)
    rig.up("demo", *settings)
    rig.ready()
    return Traveller(rig)


@both_qemus
def test_memory_and_disks_come_back_out_of_the_images(rig: Rig, qemu_binary: str) -> None:
    here = begin(rig, f'machine.emulator="{qemu_binary}"')
    here.say("++one\r")
    made = here.create("first", internal=True)
    assert made["snapshot"]["kind"] == "internal"
    assert made["snapshot"]["memory"]
    assert made["stopped"] is not None
    assert here.layers() == ["disk0.qcow2", "extra.qcow2"]
    assert tags() == tags("extra.qcow2") == ["first"]
    here.say("+++two\r")
    here.create("second", internal=True)
    here.say("+six\r")
    assert here.revert("first")["how"] == "in place"
    assert here.now() == (2, "one")
    here.say("x\r")
    here.revert("second")
    assert here.now() == (5, "onetwo")
    here.check_images()
    rig.kill()
    assert nothing_left() == []


def test_what_was_left_behind_is_a_branch(rig: Rig) -> None:
    here = begin(rig)
    here.say("+one\r")
    here.create("first", internal=True)
    here.say("+two\r")
    rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
    branch = here.revert("first")["branch"]
    assert here.now() == (1, "one")
    here.revert(branch["label"])
    assert here.now() == (2, "onetwo")


def test_disks_alone_running_and_stopped(rig: Rig) -> None:
    here = begin(rig)
    here.say("+one\r")
    assert not here.create("live", internal=True, disks_only=True)["snapshot"]["memory"]
    here.say("+two\r")
    rig.kill()
    here.create("stopped", internal=True)
    assert tags() == ["live", "stopped"]
    rig.up()
    assert here.now() == (2, "onetwo")
    here.say("+six\r")
    here.revert("live")
    assert here.now() == (1, "one")
    rig.kill()
    here.revert("stopped")
    rig.up()
    assert here.now() == (2, "onetwo")


def test_internal_and_external_snapshots_stand_beside_each_other(rig: Rig) -> None:
    here = begin(rig)
    here.say("+one\r")
    here.create("inside", internal=True)
    here.say("+two\r")
    here.create("outside")
    here.say("+six\r")
    here.create("above", internal=True)
    here.say("+ten\r")
    for name, wanted in (("inside", (1, "one")), ("outside", (2, "onetwo")),
                         ("above", (3, "onetwosix")), ("inside", (1, "one"))):  # fmt: skip
        here.revert(name)
        assert here.now() == wanted
    here.revert("above")
    here.create("flat", internal=True, disks_only=True)
    here.say("+x\r")
    here.revert("flat")  # what it does not hold itself comes from below
    assert here.now() == (3, "onetwosix")
    # A layer that holds one is not merged away.
    here.delete("outside")
    for name, wanted in (("above", (3, "onetwosix")), ("inside", (1, "one"))):
        here.revert(name)
        assert here.now() == wanted
    here.check_images()


def test_deleting_takes_it_out_of_the_image(rig: Rig) -> None:
    here = begin(rig)
    here.say("+one\r")
    here.create("first", internal=True)
    here.create("second", internal=True)
    here.delete("first")
    assert tags() == tags("extra.qcow2") == ["second"]
    # QEMU has the image open for reading only now.
    here.create("over")
    assert here.delete("second")["kept"] == []
    assert here.labels() == ["over"]
    assert tags() == tags("extra.qcow2") == []
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert here.layers() == ["disk0.qcow2", "extra.qcow2"]
    assert here.now() == (1, "one")
    here.check_images()


def test_one_is_cloned_while_the_machine_runs(rig: Rig) -> None:
    here = begin(rig)
    here.say("+one\r")
    here.create("inside", internal=True)
    here.say("+two\r")
    process = qlaunch("clone", "demo", "copy", "--snapshot", "inside", "-q")
    assert process.wait(60) == 0
    process = qlaunch("clone", "demo", "other", "--snapshot", "inside", "--linked", "-q")
    assert process.wait(60) == 6
    rig.up("copy")
    assert Traveller(rig, "copy").now() == (1, "one")


def test_what_cannot_be_is_refused_and_leaves_nothing(rig: Rig) -> None:
    write_profile(
        "demo", '\n[[disk]]\nid = "flat"\nformat = "raw"\nsize = "1MiB"\nbus = "virtio"\n'
    )
    rig.up()
    here = Traveller(rig)
    with pytest.raises(RefusedError, match="raw image and holds no snapshots"):
        here.create("one", internal=True)
    assert tags() == []
    assert store.load("demo").loose == ()
    here.create("one", internal=True, disks=["disk0"])
    rig.kill()
    path = os.path.join(paths.machine_data("demo"), "disk0.qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "foreign", path], check=True)
    with pytest.raises(ConflictError, match="that qlaunch does not know"):
        here.create("foreign", internal=True, disks=["disk0"])
    subprocess.run(["qemu-img", "snapshot", "-d", "one", path], check=True)
    with pytest.raises(RefusedError, match=r"is not in .* any more"):
        here.revert("one")
    here.delete("one")
    assert tags() == ["foreign"]


STEPS = ("internal: noted", "internal: made", "create: committed")


@pytest.mark.fault
@pytest.mark.parametrize("whom", ["", "@qemu"])
@pytest.mark.parametrize("step", STEPS)
def test_a_create_that_is_cut_off(cut: Cut, step: str, whom: str) -> None:
    cut.begin()
    cut.off(step + whom, "snapshot-create", snapshot="two", internal=True)
    cut.go_on()
    cut.rig.ask("snapshot-prune", name="demo", keep=9)
    assert store.load("demo").loose == ()
    assert tags("disk0.snap1.qcow2") == [name for name in cut.here.labels() if name == "two"]
    assert cut.here.now() == (2, "onetwo")
    if "two" in cut.here.labels():
        cut.here.say("x\r")
        cut.here.revert("two")
        assert cut.here.now() == (2, "onetwo")
    cut.check()


@pytest.mark.fault
@pytest.mark.parametrize("whom", ["", "@qemu"])
@pytest.mark.parametrize("step", ["overlays: noted", "internal: extracted", "revert: switched"])
def test_a_revert_that_is_cut_off(cut: Cut, step: str, whom: str) -> None:
    cut.begin()
    cut.here.create("inside", internal=True)
    cut.here.say("+ten\r")
    cut.rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
    cut.off(step + whom, "revert", snapshot="inside")
    cut.go_on()
    assert cut.here.now() in {(2, "onetwo"), (3, "onetwoten")}
    cut.here.revert("inside")
    assert cut.here.now() == (2, "onetwo")
    cut.here.delete("inside")
    cut.check()


# ---- reading them -------------------------------------------------------------------------------


def test_a_damaged_table_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M"], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "one, and a comma", str(path)], check=True)
    found = list_internal(str(path))
    assert [(each.id, each.name, each.vm_state) for each in found] == [("1", "one, and a comma", 0)]
    good = path.read_bytes()
    table = int.from_bytes(good[64:72], "big")
    most = b"\xff\xff\xff\xff"
    for at, value in (
        *((table + 12, most[:2]), (table + 36, most), (table + 8, most)),
        *((64, b"\x7f" * 8), (60, b"\0\0\1\0")),
    ):
        bad = bytearray(good)
        bad[at : at + len(value)] = value
        path.write_bytes(bad)
        with pytest.raises(ImageError):
            list_internal(str(path))


def test_memory_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M"], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(path)], check=True)
    from attrs import evolve

    lying = evolve(list_internal(str(path))[0], vm_state=1 << 20)
    with path.open("rb") as file, (tmp_path / "out").open("wb") as out:
        with pytest.raises(ImageError, match="missing"):
            copy_vm_state(file.fileno(), lying, out.fileno(), 0)


def test_profile_without_disks_that_change(rig: Rig) -> None:
    write_profile("demo", text=PROFILE)
    rig.up()
    here = Traveller(rig)
    here.create("one", internal=True)
    assert rig.ask("snapshot-delete", name="demo", snapshot="one")["kept"] == []
