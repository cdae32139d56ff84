"""`qlaunch rm` removes what is the machine's alone, and lists the rest with its reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from qlaunch.errors import HostError
from qlaunch.host.pidfd import ProcessId
from qlaunch.machine.files import definition
from qlaunch.machine.remove import Removal, plan_removal, remove
from qlaunch.records import to_plain
from qlaunch.store import machines, paths
from tests.definitions import at_terminal, data, image, qlaunch, state, tree, write_profile

pytestmark = pytest.mark.qemu

DISK = '[[disk]]\nid = "hda"\nsize = "16MiB"\n'


def machine(name: str, text: str = DISK) -> Path:
    """A machine with a profile, a disk of its own and state; returns the disk."""
    write_profile(name, text)
    (state(name) / "leases.json").write_text("{}")
    (state(name) / "log").write_text("started\n")
    return image(data(name) / "hda.qcow2")


def planned(name: str) -> Removal:
    found = definition(name, paths.find_profile(name))
    return plan_removal(found, keep_disks=False, all_disks=False)


def kept(*words: str) -> dict[str, str]:
    """What `rm` kept, by path, and why."""
    done = qlaunch("rm", "--yes", "--json", *words)
    assert done.status == 0, done
    return {each["path"]: each["kept"] for each in done.json["kept"]}


def test_rm_removes_profile_disks_nvram_and_state(own_place: Path) -> None:
    machine("xp")
    (data("xp") / "nvram.fd").write_bytes(b"x")
    (data("xp") / "tpm").mkdir()
    (data("xp") / "tpm" / "tpm2-00.permall").write_bytes(b"x")
    done = qlaunch("rm", "xp", "--yes")
    assert done.status == 0
    assert "hda.qcow2" in done.out
    assert not [name for name in tree(own_place) if "xp" in name]
    assert not Path(machines.places("xp").data).exists()
    assert not Path(machines.places("xp").state).exists()


def test_rm_lists_every_file_with_its_size_and_touches_none_in_a_dry_run(own_place: Path) -> None:
    machine("xp")
    before = tree(own_place)
    done = qlaunch("rm", "xp", "--dry-run")
    assert set(before) <= set(tree(own_place))
    for name in ("hda.qcow2", "leases.json", "log", "xp.toml"):
        assert name in done.out
    assert "KiB" in done.out


def test_rm_without_yes_refuses_where_nobody_can_be_asked(own_place: Path) -> None:
    machine("xp")
    before = set(tree(own_place))
    done = qlaunch("rm", "xp")
    assert (done.status, "--yes" in done.err) == (6, True)
    assert before <= set(tree(own_place))


@pytest.mark.parametrize("answer, status, there", [("y\n", 0, False), ("n\n", 6, True)])
def test_rm_does_what_is_answered_at_a_terminal(answer: str, status: int, there: bool) -> None:
    disk = machine("xp")
    done = at_terminal(answer, "rm", "xp")
    assert (done.status, disk.exists()) == (status, there)
    assert "hda.qcow2" in done.out


def test_rm_keeps_a_disk_that_another_profile_names() -> None:
    disk = machine("xp")
    write_profile("other", f'[[disk]]\nid = "b"\npath = "{disk}"\n')
    assert "other.toml" in kept("xp")[str(disk)]
    assert disk.exists()


def test_rm_keeps_a_disk_that_another_profile_names_through_a_link(own_place: Path) -> None:
    disk = machine("xp")
    (own_place / "link").symlink_to(disk.parent)
    write_profile("other", f'[[disk]]\nid = "b"\npath = "{own_place}/link/hda.qcow2"\n')
    assert str(disk) in kept("xp")


def test_rm_keeps_a_disk_that_a_profile_names_relative_to_its_own_folder() -> None:
    disk = machine("xp")
    folder = write_profile("unused").parent
    write_profile("other", f'[[cdrom]]\nid = "b"\npath = "{os.path.relpath(disk, folder)}"\n')
    assert str(disk) in kept("xp")


@pytest.mark.parametrize(
    "text",
    ['[[disk]]\nid = "b"\npath = "{0}"\nbuss = 1\n', 'path = "{0}"\n= no TOML', '"{0}" at all ['],
)
def test_rm_keeps_a_disk_that_a_broken_profile_names(text: str) -> None:
    disk = machine("xp")
    write_profile("broken", text.format(disk))
    assert str(disk) in kept("xp")


def test_rm_keeps_a_disk_in_the_arguments_of_another_profile() -> None:
    disk = machine("xp")
    write_profile("other", f'[qemu]\nargs = ["-drive", "file={disk},if=ide"]\n')
    assert str(disk) in kept("xp")


def test_rm_keeps_a_disk_in_the_saved_plan_of_another_machine() -> None:
    disk = machine("xp")
    plan = {"disks": [{"layers": [{"path": str(disk)}]}]}
    (state("other") / "plan.json").write_text(json.dumps(plan))
    assert "machine other" in kept("xp")[str(disk)]


def test_rm_keeps_a_disk_in_a_damaged_plan_of_another_machine() -> None:
    disk = machine("xp")
    (state("other") / "plan.json").write_text(f'{{"path": "{disk}", ')
    assert str(disk) in kept("xp")


def test_rm_keeps_an_image_that_an_image_of_another_machine_stands_on() -> None:
    disk = machine("xp")
    overlay = image(data("other") / "hda.qcow2", backing=disk)
    assert str(overlay) in kept("xp")[str(disk)]


def test_rm_keeps_all_of_a_chain_that_something_stands_on() -> None:
    disk = machine("xp")
    middle = image(data("xp") / "middle.qcow2", backing="hda.qcow2")
    free = image(data("xp") / "free.qcow2", backing="hda.qcow2")
    image(data("other") / "hda.qcow2", backing=middle)
    assert set(kept("xp")) == {str(disk), str(middle)}
    assert not free.exists()


def test_rm_keeps_an_image_under_one_in_a_disk_folder_of_another_profile(own_place: Path) -> None:
    disk = machine("xp")
    image(own_place / "pool" / "unnamed.qcow2", backing=disk)
    write_profile("other", f'[[disk]]\nid = "b"\npath = "{own_place}/pool/b.qcow2"\nsize="1GiB"\n')
    assert str(disk) in kept("xp")


def test_rm_leaves_disks_outside_the_machines_folder_unless_told(own_place: Path) -> None:
    far = image(own_place / "pool" / "far.qcow2")
    machine("xp", f'[[disk]]\nid = "far"\npath = "{far}"\n')
    assert "--all-disks" in qlaunch("rm", "xp", "--dry-run").out
    assert str(far) in kept("xp")
    assert far.exists()


def test_rm_all_disks_removes_disks_elsewhere_but_never_an_iso(own_place: Path) -> None:
    far, iso = image(own_place / "pool" / "far.qcow2"), own_place / "pool" / "cd.iso"
    iso.write_bytes(bytes(4096))
    machine("xp", f'[[disk]]\nid = "far"\npath = "{far}"\n[[cdrom]]\nid = "cd0"\npath = "{iso}"\n')
    assert kept("xp", "--all-disks") == {}
    assert (far.exists(), iso.exists()) == (False, True)


def test_rm_keeps_what_a_disk_that_stays_stands_on(own_place: Path) -> None:
    base = image(data("xp") / "base.qcow2")
    far = image(own_place / "pool" / "far.qcow2", backing=base)
    machine("xp", f'[[disk]]\nid = "far"\npath = "{far}"\n')
    assert set(kept("xp")) == {str(base), str(far)}


def test_rm_keep_disks_leaves_the_data_folder_alone() -> None:
    disk = machine("xp")
    assert kept("xp", "--keep-disks") == {str(disk): "--keep-disks"}
    assert disk.exists()
    assert not Path(machines.places("xp").state).exists()


def test_rm_refuses_a_running_machine() -> None:
    disk = machine("xp")
    process = to_plain(ProcessId.of(os.getpid()))
    machines.save_run("xp", machines.RunRecord(process=process))
    done = qlaunch("rm", "xp", "--yes")
    assert (done.status, "running" in done.err, disk.exists()) == (5, True, True)


def test_rm_refuses_while_a_process_has_the_disk_open_whoever_started_it() -> None:
    disk = machine("xp")
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(disk)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("read 0 512\n")
        holder.stdin.flush()
        holder.stdout.readline()
        done = qlaunch("rm", "xp", "--yes")
        holder.stdin.close()
    assert (done.status, f"pid {holder.pid}" in done.err, disk.exists()) == (5, True, True)


def test_rm_believes_no_damaged_note_about_a_running_machine() -> None:
    machine("xp")
    (state("xp") / "run.json").write_text("{")
    argv = ["qemu-system-x86_64", "-name", "guest=xp", "-S", "-display", "none", "-nodefaults"]
    with (
        open(machines.log_path("xp"), "ab") as log,
        subprocess.Popen(argv, stdout=log, stderr=log) as qemu,
        subprocess.Popen(argv) as stranger,  # the same name in somebody else's folders
    ):
        try:
            for _attempt in range(2):
                done = qlaunch("rm", "xp", "--yes")
                assert (done.status, f"pid {qemu.pid}" in done.err) == (5, True)
        finally:
            qemu.kill()
            qemu.wait()
            stranger_is_none_of_ours = qlaunch("rm", "xp", "--yes").status
            stranger.kill()
    assert stranger_is_none_of_ours == 0


def test_rm_removes_a_machine_whose_qemu_died_unseen() -> None:
    disk = machine("xp")
    process = {**to_plain(ProcessId.of(os.getpid())), "start": 1}
    machines.save_run("xp", machines.RunRecord(process=process))
    assert qlaunch("rm", "xp", "--yes").status == 0
    assert not disk.exists()


def test_rm_refuses_a_machine_that_somebody_else_works_on() -> None:
    disk = machine("xp")
    lock = machines.lock("xp")
    try:
        assert qlaunch("rm", "xp", "--yes").status == 5
    finally:
        os.close(lock)
    assert disk.exists()


def test_rm_unlinks_links_and_follows_none(own_place: Path) -> None:
    machine("xp")
    treasure = own_place / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("gold")
    (data("xp") / "folder").symlink_to(treasure)
    (data("xp") / "file.qcow2").symlink_to(treasure / "gold")
    assert kept("xp") == {}
    assert (treasure / "gold").read_text() == "gold"
    assert not Path(machines.places("xp").data).exists()


def test_rm_of_a_data_folder_that_is_a_link_removes_the_link_only(own_place: Path) -> None:
    write_profile("xp", DISK)
    elsewhere = own_place / "big"
    image(elsewhere / "hda.qcow2")
    data("xp").rmdir()
    Path(machines.places("xp").data).symlink_to(elsewhere)
    assert qlaunch("rm", "xp", "--yes").status == 0
    assert (elsewhere / "hda.qcow2").exists()
    assert not os.path.lexists(machines.places("xp").data)


def test_rm_shows_a_hostile_file_name_on_one_line_and_removes_it() -> None:
    machine("xp")
    odd = data("xp") / "a\nkept: b\x1b[31m.qcow2"
    odd.write_bytes(b"x")
    done = qlaunch("rm", "xp", "--yes")
    assert done.status == 0
    assert "\x1b" not in done.out
    assert "\nkept: b" not in done.out
    assert not odd.exists()


def test_rm_that_cannot_remove_a_disk_keeps_the_profile_so_that_it_can_be_repeated() -> None:
    machine("mine")
    folder = data("mine") / "deep"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    removal = planned("mine")
    (folder / "file").unlink()
    (folder / "file").mkdir()  # what was a file when it was listed is a folder now
    with pytest.raises(HostError, match="deep/file cannot be removed"):
        remove(removal)
    assert Path(paths.find_profile("mine")).exists()
    (folder / "file").rmdir()
    assert qlaunch("rm", "mine", "--yes").status == 0
    assert not data("mine").parent.joinpath("mine", "deep").exists()


def test_rm_follows_no_link_that_took_a_folders_place_after_the_listing(own_place: Path) -> None:
    machine("mine")
    (data("mine") / "sub").mkdir()
    (data("mine") / "sub" / "gold").write_text("dross")
    (own_place / "treasure").mkdir()
    (own_place / "treasure" / "gold").write_text("gold")
    removal = planned("mine")
    shutil.rmtree(data("mine") / "sub")
    (data("mine") / "sub").symlink_to(own_place / "treasure")
    with pytest.raises(HostError):
        remove(removal)
    assert (own_place / "treasure" / "gold").read_text() == "gold"


def test_rm_goes_on_after_a_kill_that_left_the_profile() -> None:
    disk = machine("mine")
    disk.unlink()
    (state("mine") / "leases.json").unlink()
    assert qlaunch("rm", "mine", "--yes").status == 0
    assert qlaunch("rm", "mine", "--yes").status == 4


def test_rm_removes_the_files_of_a_machine_that_lost_its_profile() -> None:
    disk = machine("mine")
    write_profile("mine").unlink()
    assert qlaunch("rm", "mine", "--yes").status == 0
    assert not disk.exists()


def test_rm_of_a_shipped_profile_keeps_the_profile_and_removes_the_machine() -> None:
    disk = image(data("demo") / "disk0.qcow2")
    reasons = kept("demo")
    assert list(reasons.values()) == ["it came with qlaunch"]
    assert not disk.exists()


def test_rm_refuses_while_another_profile_builds_on_this_one() -> None:
    disk = machine("base")
    write_profile("top", 'extends = ["base.toml"]\n')
    done = qlaunch("rm", "base", "--yes")
    assert (done.status, "top.toml" in done.err, disk.exists()) == (5, True, True)


def test_rm_of_a_broken_profile_removes_its_machine() -> None:
    write_profile("xp", "memory = nonsense\n")
    disk = image(data("xp") / "hda.qcow2")
    done = qlaunch("rm", "xp", "--yes")
    assert (done.status, disk.exists()) == (0, False)
    assert "is broken" in done.err


def test_rm_never_removes_a_folder_or_device_that_a_profile_calls_a_disk(own_place: Path) -> None:
    folder = own_place / "precious"
    folder.mkdir()
    (folder / "file").write_text("x")
    machine("xp", f'[[disk]]\nid = "a"\npath = "{folder}"\n[[disk]]\nid="n"\npath="/dev/null"\n')
    assert set(kept("xp", "--all-disks")) == {str(folder), "/dev/null"}
    assert (folder / "file").exists()
