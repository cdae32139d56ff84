"""`qlaunch rename` takes everything along, and a kill at any step loses nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qlaunch.host.pidfd import ProcessId
from qlaunch.machine.names import profile_of, rename_note
from qlaunch.plan.model import Leases
from qlaunch.profile.load import load
from qlaunch.records import to_plain
from qlaunch.store import machines, paths
from tests.definitions import data, holds, image, info, qemu_io, qlaunch, state, tree, write_profile

pytestmark = pytest.mark.qemu

TEXT = """\
# my machine
name = "old"   # its name
[[disk]]
id = "hda"   # the first
path = "{data}/hda.qcow2"
"""
LEASES = Leases(uuid="12345678-1234-1234-1234-123456789abc", macs={"net0": "52:54:00:01:02:03"})


def machine() -> Path:
    """The machine `old` with a disk, leases and a log; returns the disk's new place."""
    write_profile("old", TEXT.format(data=data("old")))
    qemu_io(image(data("old") / "hda.qcow2"), "write -P 0x5a 0 64k")
    machines.save_leases("old", LEASES)
    (state("old") / "log").write_text("started\n")
    return Path(paths.machine_data("new"), "hda.qcow2")


def assert_renamed(disk: Path) -> None:
    """`new` is whole and of `old` nothing is left."""
    assert holds(disk)
    profile = load(profile_of("new"))
    assert (profile.name, profile.disk[0].path) == ("new", str(disk))
    text = Path(profile_of("new")).read_text()
    assert ("# my machine" in text, "# its name" in text, "# the first" in text) == (True,) * 3
    assert machines.load_leases("new") == LEASES
    assert (Path(paths.machine_state("new")) / "log").read_text() == "started\n"
    for path in (paths.machine_data("old"), paths.machine_state("old"), profile_of("old")):
        assert not os.path.lexists(path)
    assert tree(Path(paths.config_dir())) == ["profiles/new.toml"]


def test_rename_takes_profile_disks_leases_and_logs_along() -> None:
    disk = machine()
    assert qlaunch("rename", "old", "new").status == 0
    assert_renamed(disk)


def _hide() -> None:
    os.rename(profile_of("old"), rename_note("old", "new"))


def _move_data() -> None:
    os.rename(paths.machine_data("old"), paths.machine_data("new"))


def _move_state() -> None:
    os.rename(paths.machine_state("old"), paths.machine_state("new"))


def _write() -> None:
    text = TEXT.format(data=data("new")).replace('"old"', '"new"')
    write_profile("new", text)


STEPS = (_hide, _move_data, _move_state, _write)


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_rename_that_was_killed_is_finished_by_the_same_command(done: int) -> None:
    disk = machine()
    for step in STEPS[:done]:
        step()
    assert qlaunch("rename", "old", "new").status == 0
    assert_renamed(disk)


def test_rename_that_was_killed_shows_in_the_list_and_blocks_both_names() -> None:
    machine()
    _hide()
    _move_data()
    assert "qlaunch rename old new" in qlaunch("list").err
    assert qlaunch("list", "--json").json["interrupted_renames"] == {"old": "new"}
    for words in (("new", "old"), ("new", "new"), ("rename", "old", "third")):
        done = qlaunch(*words)
        assert done.status == 5
        assert "qlaunch rename old new" in done.err


def test_rename_corrects_backing_names_that_are_whole_paths() -> None:
    disk = machine()
    image(data("old") / "top.qcow2", backing=data("old") / "hda.qcow2")
    image(data("old") / "beside.qcow2", backing="hda.qcow2")
    assert qlaunch("rename", "old", "new").status == 0
    assert info(data("new") / "top.qcow2")["backing-filename"] == str(disk)
    assert info(data("new") / "beside.qcow2")["backing-filename"] == "hda.qcow2"
    assert holds(data("new") / "top.qcow2")


def test_rename_refuses_while_another_machine_stands_on_its_disk() -> None:
    machine()
    image(data("other") / "hda.qcow2", backing=data("old") / "hda.qcow2")
    done = qlaunch("rename", "old", "new")
    assert (done.status, "stands on it" in done.err) == (5, True)
    assert (data("old") / "hda.qcow2").exists()
    assert os.path.exists(profile_of("old"))


def test_rename_refuses_while_another_profile_names_its_disk() -> None:
    machine()
    write_profile("other", f'[[disk]]\nid = "b"\nbacking = "{data("old")}/hda.qcow2"\n')
    assert qlaunch("rename", "old", "new").status == 5


@pytest.mark.parametrize("what", ["profile", "shipped", "said", "data", "state"])
def test_rename_to_a_name_that_is_taken_changes_nothing(what: str, own_place: Path) -> None:
    machine()
    new = "demo" if what == "shipped" else "new"
    match what:
        case "profile":
            write_profile("new")
        case "said":
            write_profile("third", 'name = "new"\n')
        case "data":
            (data("new") / "hda.qcow2").write_bytes(b"x")
        case "state":
            (state("new") / "leases.json").write_text("{}")
    before = {name for name in tree(own_place) if not name.endswith("lock")}
    assert qlaunch("rename", "old", new).status == 5
    assert {name for name in tree(own_place) if not name.endswith("lock")} == before


def test_rename_refuses_a_running_machine() -> None:
    machine()
    machines.save_run("old", machines.RunRecord(process=to_plain(ProcessId.of(os.getpid()))))
    done = qlaunch("rename", "old", "new")
    assert (done.status, "running" in done.err) == (5, True)
    assert os.path.exists(profile_of("old"))


def test_rename_of_a_shipped_profile_is_refused_with_the_way_out() -> None:
    done = qlaunch("rename", "demo", "mine")
    assert (done.status, "qlaunch clone demo" in done.err) == (6, True)


def test_rename_of_what_is_not_there_says_so() -> None:
    assert qlaunch("rename", "nothing", "new").status == 4


@pytest.mark.parametrize("new", ["../new", "new~er", "", ".new", "n" * 60])
def test_rename_to_what_cannot_be_a_name_is_refused(new: str) -> None:
    machine()
    assert qlaunch("rename", "old", new).status == 2
    assert os.path.exists(profile_of("old"))


def test_rename_of_a_machine_that_never_started_leaves_no_state_behind() -> None:
    write_profile("old", '[[disk]]\nid = "hda"\nsize = "1GiB"\n')
    assert qlaunch("rename", "old", "new").status == 0
    assert qlaunch("rename", "new", "old").status == 0
    assert tree(Path(paths.config_dir())) == ["profiles/old.toml"]


def test_rename_keeps_the_rights_of_the_profile() -> None:
    path = write_profile("old")
    path.chmod(0o600)
    assert qlaunch("rename", "old", "new").status == 0
    assert os.stat(profile_of("new")).st_mode & 0o777 == 0o600


def test_rename_of_a_broken_profile_says_what_is_wrong() -> None:
    write_profile("old", "memory = 1\n")
    assert qlaunch("rename", "old", "new").status == 2
    assert os.path.exists(profile_of("old"))
