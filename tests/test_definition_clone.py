"""`qlaunch clone` makes an independent copy, or leaves nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from qlaunch.host.firmware import installed_firmware
from qlaunch.host.pidfd import ProcessId
from qlaunch.machine.names import UNFINISHED, profile_of
from qlaunch.plan.model import Leases
from qlaunch.profile.load import load
from qlaunch.records import to_plain
from qlaunch.store import machines, paths
from tests import prerequisites
from tests.definitions import (
    PATIENCE,
    PROGRAM,
    children,
    data,
    holds,
    image,
    info,
    qemu_io,
    qlaunch,
    start,
    state,
    tree,
    write_profile,
)

pytestmark = pytest.mark.qemu

MIB = 1 << 20
DISK = '[[disk]]\nid = "hda"   # the first\nbus = "ide"\n'


def machine(text: str = DISK) -> Path:
    """The machine `old` with something on its disk."""
    write_profile("old", f"# my machine\n{text}")
    disk = image(data("old") / "hda.qcow2")
    qemu_io(disk, "write -P 0x5a 0 64k")
    return disk


def copy(name: str = "hda.qcow2") -> Path:
    return Path(paths.machine_data("new"), name)


def nothing_of_new() -> bool:
    """Whether no trace of `new` is left."""
    folders = (paths.config_dir(), paths.data_dir(), paths.state_dir())
    return not [name for folder in folders for name in tree(Path(folder)) if "new" in name]


def test_a_clone_has_the_disks_and_the_comments_and_leaves_the_original_alone() -> None:
    disk = machine()
    before = disk.read_bytes()
    done = qlaunch("clone", "old", "new")
    assert done.status == 0, done
    assert holds(copy())
    text = Path(profile_of("new")).read_text()
    assert ("# my machine" in text, "# the first" in text) == (True, True)
    assert disk.read_bytes() == before
    assert tree(Path(paths.machine_data("new"))) == ["hda.qcow2"]
    assert copy().stat().st_mode & 0o777 == 0o600


def test_a_clone_is_sparse_and_keeps_the_format() -> None:
    write_profile("old", '[[disk]]\nid = "hda"\nformat = "raw"\nbus = "ide"\n')
    raw = image(data("old") / "hda.raw", "64M", form="raw")
    with raw.open("r+b") as file:
        file.write(b"Z" * MIB)
    assert qlaunch("clone", "old", "new").status == 0
    found = copy("hda.raw").stat()
    assert found.st_size == 64 * MIB
    assert found.st_blocks * 512 < 4 * MIB
    assert copy("hda.raw").read_bytes() == raw.read_bytes()


def test_a_clone_stands_on_nothing() -> None:
    base = machine()
    base.rename(base.with_name("base.qcow2"))
    image(data("old") / "hda.qcow2", backing="base.qcow2")
    assert qlaunch("clone", "old", "new").status == 0
    assert "backing-filename" not in info(copy())
    assert holds(copy())


def test_a_clone_has_a_uuid_and_macs_of_its_own_but_the_same_hardware() -> None:
    uuid, mac = "12345678-1234-1234-1234-123456789abc", "52:54:00:01:02:03"
    machine(f'uuid = "{uuid}"\n{DISK}[[nic]]\nid = "net0"\nmac = "{mac}"\n')
    leases = Leases(uuid=uuid, macs={"net0": mac}, machine_type="pc-i440fx-7.2", once_done="cdrom")
    machines.save_leases("old", leases)
    assert qlaunch("clone", "old", "new").status == 0
    profile, found = load(profile_of("new")), machines.load_leases("new")
    assert (profile.uuid, profile.nic[0].mac) == (None, None)
    assert (found.uuid, dict(found.macs)) == (None, {})
    assert (found.machine_type, found.once_done) == ("pc-i440fx-7.2", "cdrom")


def test_a_clone_overrides_a_mac_that_comes_from_a_file_it_builds_on() -> None:
    write_profile("base", '[[nic]]\nid = "net0"\nmac = "52:54:00:01:02:03"\n')
    machine(f'extends = ["base.toml"]\n{DISK}')
    assert qlaunch("clone", "old", "new").status == 0
    mac = load(profile_of("new")).nic[0].mac
    assert mac is not None
    assert mac != "52:54:00:01:02:03"


def test_a_clone_of_a_file_elsewhere_has_its_disks_at_home_and_its_paths_whole(
    own_place: Path,
) -> None:
    iso = own_place / "lab" / "cd.iso"
    image(own_place / "lab" / "far.qcow2")
    iso.write_bytes(bytes(4096))
    profile = own_place / "lab" / "lab.toml"
    profile.write_text(
        'schema = 1\nname = "old"\n[[disk]]\nid = "hda"\npath = "far.qcow2"\nbus = "ide"\n'
        '[[cdrom]]\nid = "cd0"\npath = "cd.iso"\n'
    )
    assert qlaunch("clone", profile, "new").status == 0
    found = load(profile_of("new"))
    assert found.name == "new"
    assert (found.disk[0].path, found.cdrom[0].path) == (str(copy()), str(iso))
    assert copy().exists()


def test_a_clone_copies_uefi_variables_and_tpm_state() -> None:
    prerequisites.require("qemu", installed_firmware(), "no UEFI firmware is installed")
    board = 'type = "q35"\naccel = "tcg"\nfirmware = "uefi"\nsecure_boot = true\ntpm = true\n'
    machine(f"[machine]\n{board}" + DISK.replace("ide", "sata"))
    made = qlaunch("argv", "old", "--json").json["options"]
    name = next(n for n in ("nvram.fd", "nvram.qcow2") if any(n in str(each) for each in made))
    if name == "nvram.fd":
        (data("old") / name).write_bytes(b"vars" * 1024)
    else:
        image(data("old") / name)
    (data("old") / "tpm").mkdir()
    (data("old") / "tpm" / "tpm2-00.permall").write_bytes(b"seed")
    done = qlaunch("clone", "old", "new")
    assert done.status == 0, done
    assert copy(name).exists()
    assert copy("tpm/tpm2-00.permall").read_bytes() == b"seed"


def test_a_clone_of_a_machine_that_never_started_is_its_profile() -> None:
    write_profile("old", '[[disk]]\nid = "hda"\nsize = "1GiB"\n')
    assert qlaunch("clone", "old", "new").status == 0
    assert tree(Path(paths.data_dir())) == []
    assert os.path.exists(profile_of("new"))


def test_clone_refuses_a_backing_file_that_the_profile_does_not_allow(own_place: Path) -> None:
    secret = image(own_place / "secret" / "diary.qcow2")
    write_profile("old", DISK)
    image(data("old") / "hda.qcow2", backing=secret)
    done = qlaunch("clone", "old", "new")
    assert (done.status, "does not allow" in done.err) == (2, True)
    assert nothing_of_new()


def test_clone_refuses_a_running_machine() -> None:
    machine()
    machines.save_run("old", machines.RunRecord(process=to_plain(ProcessId.of(os.getpid()))))
    assert qlaunch("clone", "old", "new").status == 5
    assert nothing_of_new()


def test_clone_refuses_a_disk_that_another_process_has_open() -> None:
    disk = machine()
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
        done = qlaunch("clone", "old", "new")
        holder.stdin.close()
    assert (done.status, "in use" in done.err) == (5, True)
    assert nothing_of_new()


@pytest.mark.parametrize("what", ["profile", "data", "state", "shipped"])
def test_clone_replaces_nothing(what: str) -> None:
    machine()
    new = "demo" if what == "shipped" else "new"
    if what == "profile":
        write_profile("new")
    if what == "data":
        (data("new") / "hda.qcow2").write_bytes(b"x")
    if what == "state":
        (state("new") / "leases.json").write_text("{}")
    assert qlaunch("clone", "old", new).status == 5
    if what == "data":
        assert copy().read_bytes() == b"x"


def test_two_clones_of_one_name_at_once_are_told_apart() -> None:
    machine()
    staging = Path(paths.data_dir(), "machines", ".new.cloning")
    staging.mkdir()
    handle = os.open(staging, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    done = qlaunch("clone", "old", "new")
    os.close(handle)
    assert (done.status, "just now" in done.err) == (5, True)
    assert qlaunch("clone", "old", "new").status == 0


def test_a_clone_that_was_killed_before_its_profile_was_there_is_made_again() -> None:
    machine()
    (data("new") / UNFINISHED).touch()
    (data("new") / "hda.qcow2").write_bytes(b"half")
    (state("new") / "leases.json").write_text("{}")
    assert qlaunch("clone", "old", "new").status == 0
    assert holds(copy())
    assert not copy(UNFINISHED).exists()


def _large() -> None:
    write_profile("old", '[[disk]]\nid = "hda"\nformat = "raw"\nbus = "ide"\n')
    (data("old") / "hda.raw").write_bytes(os.urandom(MIB) * 192)


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_clone_that_is_ended_half_way_is_no_machine_and_can_be_repeated(number: int) -> None:
    _large()
    process = start("clone", "old", "new")
    assert process.stderr is not None
    process.stderr.readline()  # the first progress: qemu-img is at work
    helpers = children(process.pid)
    process.send_signal(number)
    for pid in helpers if number == signal.SIGKILL else ():
        os.kill(pid, signal.SIGKILL)
    _out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if number == signal.SIGINT else -number), err
    assert not os.path.lexists(profile_of("new"))
    assert not os.path.lexists(paths.machine_data("new"))
    if number == signal.SIGINT:
        assert nothing_of_new()
    assert qlaunch("clone", "old", "new", "-q").status == 0
    assert copy("hda.raw").stat().st_size == 192 * MIB


@pytest.mark.fault
def test_a_clone_that_does_not_fit_leaves_nothing() -> None:
    _large()
    done = subprocess.run(
        ["prlimit", f"--fsize={16 * MIB}", "--", *PROGRAM, "clone", "old", "new"],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "cannot be copied" in done.stderr
    assert nothing_of_new()
