"""Snapshots of running and stopped machines: memory and disk agree, whatever is done."""

from __future__ import annotations

import os

import pytest

from qlaunch.errors import ConflictError, NotFoundError, PhaseError, RefusedError, UsageError
from qlaunch.host.qcow2_write import create_overlay
from qlaunch.store import paths
from qlaunch.store import timeline as store
from tests.prerequisites import both_qemus
from tests.rig import Rig, nothing_left, write_profile
from tests.timetravel import SECOND_DISK, Traveller

pytestmark = pytest.mark.qemu


@pytest.fixture
def here(rig: Rig) -> Traveller:
    """The demo guest, running, with two disks."""
    write_profile("demo", SECOND_DISK)
    rig.up()
    rig.ready()
    return Traveller(rig)


@both_qemus
def test_memory_and_disk_go_back_together_in_the_same_process(rig: Rig, qemu_binary: str) -> None:
    write_profile("demo", SECOND_DISK)
    pid = rig.up("demo", f'machine.emulator="{qemu_binary}"')["pid"]
    rig.ready()
    here = Traveller(rig)
    here.say("++one\r")
    made = here.create("first")
    assert made["snapshot"]["kind"] == "memory"
    here.say("+++two\r")
    assert here.now() == (5, "onetwo")
    answer = here.revert("first")
    assert answer["how"] == "in place"
    assert here.now() == (2, "one")
    assert rig.row()["pid"] == pid
    here.say("x\r")  # the disk takes writes
    assert here.revert("first")["branch"]["name"] is None
    assert here.now() == (2, "one")
    here.check_images()
    rig.kill()
    assert nothing_left() == []


@both_qemus
def test_disks_alone_go_back_with_a_reset(rig: Rig, qemu_binary: str) -> None:
    pid = rig.up("demo", f'machine.emulator="{qemu_binary}"')["pid"]
    rig.ready()
    here = Traveller(rig)
    here.say("+one\r")
    assert here.create("first", disks_only=True)["snapshot"]["kind"] == "disks"
    here.say("+two\r")
    here.revert("first")
    assert here.now() == (1, "one")  # read from the disk at the new boot
    assert rig.row()["pid"] == pid
    rig.kill()


def test_what_was_left_behind_is_a_branch_that_can_be_reverted_to(here: Traveller) -> None:
    here.say("+one\r")
    here.create("first")
    here.say("+two\r")
    branch = here.revert("first")["branch"]
    assert here.now() == (1, "one")
    here.revert(branch["label"])
    assert here.now() == (2, "onetwo")


def test_a_revert_that_discards_says_how_much_and_removes_it(here: Traveller) -> None:
    here.create("first")
    here.say("+two\r")
    answer = here.revert("first", discard=True)
    assert answer["discarded"] > 0
    assert answer["branch"] is None
    here.settle()
    assert here.labels() == ["first"]
    assert len([name for name in here.layers() if name.startswith("disk0")]) == 2


def test_a_verb_waits_for_the_layers_that_the_one_before_removes(here: Traveller) -> None:
    here.create("one")
    for _ in range(5):
        here.say("+again\r")
        here.revert("one", discard=True)
        here.create(disks_only=True)
        here.delete(here.labels()[-1])
    here.settle()
    assert here.labels() == ["one"]


def test_an_untouched_present_makes_no_branch(here: Traveller) -> None:
    here.create("first")
    here.rig.ask("pause", name="demo")
    assert here.revert("first")["branch"] is None


def test_snapshots_of_a_stopped_machine(here: Traveller) -> None:
    here.say("+one\r")
    here.rig.kill()
    assert here.create("cold")["snapshot"]["kind"] == "disks"
    here.rig.up()
    here.rig.responds()
    here.say("+two\r")
    here.rig.kill()
    assert here.revert("cold")["how"] == "stopped"
    here.rig.up()
    assert here.now() == (1, "one")
    here.check_images()


def test_a_stopped_machine_goes_back_to_a_moment_with_memory(here: Traveller) -> None:
    here.say("++one\r")
    here.create("warm")
    here.say("+two\r")
    here.rig.kill()
    answer = here.revert("warm")
    assert answer["state"] == "running"
    assert here.now() == (2, "one")


def test_other_devices_take_a_new_process_and_the_same_moment(here: Traveller) -> None:
    here.say("++one\r")
    here.create("warm")
    here.rig.kill()
    here.rig.up("demo", 'memory.size="48MiB"')
    here.rig.responds()
    answer = here.revert("warm")
    assert answer["how"] == "restarted"
    assert "memory" in answer["why_restarted"]
    assert here.now() == (2, "one")


def test_a_deleted_snapshot_leaves_the_present_and_the_others(here: Traveller) -> None:
    for word in ("one", "two", "six"):
        here.say(f"+{word}\r")
        here.create(word)
    here.say("+ten\r")
    answer = here.delete("two")
    assert answer["merged"] == 2  # a layer on each disk
    assert here.now() == (4, "onetwosixten")
    assert here.labels() == ["one", "six"]
    here.check_images()
    here.revert("six")
    assert here.now() == (3, "onetwosix")
    here.revert("one")
    assert here.now() == (1, "one")


def test_all_snapshots_deleted_leave_the_own_image_alone(here: Traveller) -> None:
    for word in ("one", "two", "six"):
        here.say(f"+{word}\r")
        here.create(word)
    here.say("+ten\r")
    here.rig.ask("snapshot-prune", name="demo", keep=0)
    assert here.layers() == ["disk0.qcow2", "extra.qcow2"]
    assert here.now() == (4, "onetwosixten")
    here.rig.kill()
    here.rig.up()
    assert here.now() == (4, "onetwosixten")
    here.check_images()


def test_a_branch_point_stays_hidden_until_one_child_is_left(here: Traveller) -> None:
    here.say("+one\r")
    here.create("root")
    here.say("+west\r")
    here.create("west")
    here.revert("root")
    here.say("+east\r")
    here.create("east")
    kept = here.delete("root")["kept"]
    assert any("layers stand on it" in each["reason"] for each in kept)
    here.revert("west")
    assert here.now() == (2, "onewest")
    here.delete("east")
    here.check_images()
    assert here.now() == (2, "onewest")
    here.rig.kill()
    here.rig.up()
    assert here.now() == (2, "onewest")


def test_deleting_on_a_stopped_machine(here: Traveller) -> None:
    for word in ("one", "two"):
        here.say(f"+{word}\r")
        here.create(word)
    here.say("+six\r")
    here.rig.kill()
    here.rig.ask("snapshot-prune", name="demo", keep=0)
    assert here.layers() == ["disk0.qcow2", "extra.qcow2"]
    here.rig.up()
    assert here.now() == (3, "onetwosix")


def test_a_saved_machine_goes_on_where_it_was(here: Traveller) -> None:
    here.say("+++one\r")
    answer = here.rig.ask("save", name="demo")
    assert answer["state"] == "saved"
    assert here.rig.row() == {}
    assert "continuing" in here.rig.up()["continued"]
    assert here.now() == (3, "one")
    assert store.load("demo").saved is None
    assert not os.path.exists(store.file_of("demo", "saved", "memory"))
    here.rig.kill()


def test_fresh_forgets_what_was_saved(here: Traveller) -> None:
    here.say("+++")
    here.rig.ask("save", name="demo")
    assert "continued" not in here.rig.up(fresh=True)
    assert here.now() == (0, "")


def test_a_saved_machine_takes_no_snapshot(here: Traveller) -> None:
    here.rig.ask("save", name="demo")
    with pytest.raises(PhaseError, match="suspended to disk"):
        here.create("x")


@pytest.mark.parametrize(
    "args, kind",
    [
        ({"snapshot": "7"}, UsageError),
        ({"snapshot": "-x"}, UsageError),
        ({"snapshot": "a\nb"}, UsageError),
        ({"snapshot": "x" * 81}, UsageError),
        ({"disks": ["nodisk"]}, NotFoundError),
        ({"quiesce": True}, UsageError),
        ({"quiesce": True, "disks_only": True}, RefusedError),
    ],
)
def test_bad_wishes_change_nothing(
    here: Traveller, args: dict[str, object], kind: type[Exception]
) -> None:
    before = here.layers()
    with pytest.raises(kind):
        here.rig.ask("snapshot-create", name="demo", **args)
    assert here.layers() == before
    assert here.labels() == []
    assert here.rig.row()["state"] == "running"


def test_names_are_unique_and_can_be_changed(here: Traveller) -> None:
    here.create("a", disks_only=True, text="before the update")
    with pytest.raises(ConflictError, match="already"):
        here.create("a", disks_only=True)
    here.rig.ask("snapshot-rename", name="demo", snapshot="a", new_name="b")
    here.rig.ask("snapshot-edit", name="demo", snapshot="b", text="new words")
    assert here.labels() == ["b"]
    assert store.load("demo").snapshots[0].text == "new words"
    with pytest.raises(NotFoundError, match="no snapshot 'a'"):
        here.revert("a")


def test_a_disk_that_is_left_out_keeps_its_content(here: Traveller) -> None:
    answer = here.create("one", disks=["disk0"], disks_only=True)
    assert answer["snapshot"]["left_out"] == ["extra"]
    assert "extra.snap1.qcow2" not in here.layers()
    assert here.revert("one")["left_out"] == ["extra"]


def test_a_missing_layer_is_told_and_nothing_is_touched(here: Traveller) -> None:
    here.create("one", disks_only=True)
    here.create("two", disks_only=True)
    here.create("six", disks_only=True)
    here.revert("one")
    lost = os.path.join(paths.machine_data("demo"), "disk0.snap2.qcow2")
    os.unlink(lost)
    with pytest.raises(RefusedError, match=r"disk0\.snap2\.qcow2: it is missing"):
        here.revert("six")
    assert here.rig.row()["state"] == "running"


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_what_stands_on_a_layer_outlives_every_delete(here: Traveller, *, running: bool) -> None:
    """libvirt lost base images this way: somebody else's image stood on what a delete removed."""
    for word in ("one", "two", "six"):
        here.say(f"+{word}\r")
        here.create(word)
    folder = paths.machine_data("demo")
    elsewhere = os.path.join(paths.data_dir(), "machines", "other")
    os.makedirs(elsewhere)
    theirs = {
        "disk0.qcow2": os.path.join(folder, "theirs.qcow2"),
        "disk0.snap1.qcow2": os.path.join(elsewhere, "theirs.qcow2"),
    }
    for below, path in theirs.items():
        name = os.path.relpath(os.path.join(folder, below), os.path.dirname(path))
        create_overlay(path, size=64 << 20, backing=name, backing_format="qcow2")
    before = {path: here.state_of_disk(path) for path in theirs.values()}
    assert b"one" in before[theirs["disk0.qcow2"]]
    assert b"two" in before[theirs["disk0.snap1.qcow2"]]
    if not running:
        here.rig.kill()
    here.rig.ask("snapshot-prune", name="demo", keep=0)
    if running:
        here.settle()
    assert {path: here.state_of_disk(path) for path in theirs.values()} == before
    if not running:
        here.rig.up()
    assert here.now() == (3, "onetwosix")
