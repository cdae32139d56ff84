"""`qlaunch new` writes a profile that loads and teaches, and never overwrites one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qlaunch.machine.names import profile_of
from qlaunch.profile.load import load
from qlaunch.profile.model import GUESTS
from qlaunch.store import paths
from tests.definitions import PATIENCE, PROGRAM, data, qlaunch, tree, write_profile

GIB = 1 << 30


def iso(folder: Path, name: str = "winxp.iso") -> Path:
    path = folder / name
    path.write_bytes(bytes(4096))
    return path


def profiles() -> list[str]:
    return tree(Path(paths.config_dir()))


@pytest.mark.qemu
def test_new_writes_windows_xp_with_what_it_has_drivers_for(own_place: Path) -> None:
    cd = iso(own_place)
    words = ("--guest", "windows-xp", "--iso", cd, "--disk", "20GiB", "--data-disk", "50GiB")
    done = qlaunch("new", "xp", *words)
    assert done.status == 0
    assert "qlaunch up xp" in done.err
    profile = load(profile_of("xp"))
    assert [(disk.id, disk.bus, disk.size) for disk in profile.disk] == [
        ("hda", "ide", 20 * GIB),
        ("hdb", "ide", 50 * GIB),
    ]
    assert (profile.boot.once, profile.cdrom[0].path) == ("cdrom", str(cd))
    assert (profile.nic[0].model, profile.clock.base) == ("rtl8139", "localtime")
    checked = qlaunch("check", "xp", "--strict", "--json").json["profiles"][0]
    assert [each for each in checked["findings"] if each["cause"] == "profile"] == []


@pytest.mark.qemu
@pytest.mark.parametrize("guest", GUESTS)
def test_new_writes_a_profile_without_mistakes_for_every_guest(guest: str, own_place: Path) -> None:
    words = ("--iso", iso(own_place), "--disk", "20GiB", "--data-disk", "1GiB", "--cpus", "2")
    assert qlaunch("new", "m", "--guest", guest, *words).status == 0
    checked = qlaunch("check", "m", "--json").json["profiles"][0]
    assert [each for each in checked["findings"] if each["cause"] == "profile"] == []


def test_new_with_nothing_said_is_a_plain_machine() -> None:
    assert qlaunch("new", "plain").status == 0
    profile = load(profile_of("plain"))
    assert (profile.guest, profile.disk, profile.boot.once) == ("other", (), None)


def test_new_takes_memory_and_processors() -> None:
    assert qlaunch("new", "m", "--memory", "1536MiB", "--cpus", "3").status == 0
    profile = load(profile_of("m"))
    assert (profile.memory.size, profile.cpu.count) == (1536 << 20, 3)


def test_new_overwrites_nothing() -> None:
    path = write_profile("xp", "# mine\n")
    before = path.read_bytes()
    done = qlaunch("new", "xp", "--disk", "1GiB")
    assert (done.status, "--force" in done.err) == (5, True)
    assert path.read_bytes() == before
    assert profiles() == ["profiles/xp.toml"]


def test_new_force_keeps_the_old_profile_beside_the_new_one() -> None:
    path = write_profile("xp", "# mine\n")
    assert qlaunch("new", "xp", "--force").status == 0
    assert "# mine" in path.with_name("xp.toml.old").read_text()
    assert "# mine" not in path.read_text()
    assert "xp.toml" not in paths.profile_names()


def test_new_does_not_write_through_a_link_that_leads_nowhere(own_place: Path) -> None:
    path = Path(profile_of("xp"))
    path.parent.mkdir(parents=True)
    path.symlink_to(own_place / "elsewhere")
    assert qlaunch("new", "xp").status == 5
    assert not (own_place / "elsewhere").exists()


def test_new_finds_a_missing_iso_before_anything_is_written(own_place: Path) -> None:
    iso(own_place)
    done = qlaunch("new", "xp", "--iso", own_place / "winpx.iso")
    assert (done.status, "did you mean 'winxp.iso'" in done.err) == (4, True)
    assert profiles() == []


def test_new_refuses_a_folder_as_a_cd(own_place: Path) -> None:
    done = qlaunch("new", "xp", "--iso", own_place)
    assert (done.status, "directory" in done.err) == (1, True)
    assert profiles() == []


def test_new_writes_the_whole_path_of_a_relative_iso(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cd = iso(own_place, 'my "xp", = [1].iso')
    monkeypatch.chdir(own_place)
    assert qlaunch("new", "xp", "--iso", cd.name).status == 0
    assert load(profile_of("xp")).cdrom[0].path == str(cd)


def test_new_refuses_a_cd_whose_name_no_profile_can_say(own_place: Path) -> None:
    assert qlaunch("new", "xp", "--iso", iso(own_place, "a\nb.iso")).status == 2
    assert profiles() == []


@pytest.mark.parametrize(
    "words",
    [
        ("--disk", "20"),
        ("--disk", "20 parsecs"),
        ("--disk", "0GiB"),
        ("--data-disk", "1GiB"),
        ("--memory", "much"),
        ("--cpus", "0"),
        ("--guest", "windows-95"),
    ],
)
def test_new_refuses_what_makes_no_sense(words: tuple[str, ...]) -> None:
    assert qlaunch("new", "xp", *words).status == 2
    assert profiles() == []


@pytest.mark.parametrize("name", ["", "../xp", "a/b", "-x", "x y", "é", "x" * 60])
def test_new_refuses_what_cannot_be_a_name(name: str) -> None:
    assert qlaunch("new", "--", name).status == 2
    assert profiles() == []


def test_new_writes_to_a_path_and_calls_the_machine_as_told(own_place: Path) -> None:
    path = own_place / "lab" / "first.toml"
    assert qlaunch("new", "lab", "--path", path).status == 0
    assert load(str(path)).name == "lab"
    assert profiles() == []


def test_new_says_what_it_hides_and_which_disks_it_finds() -> None:
    (data("demo") / "hda.qcow2").write_bytes(b"x")
    done = qlaunch("new", "demo", "--disk", "1GiB")
    assert done.status == 0
    assert "it hides" in done.err
    assert "hda.qcow2" in done.err


def test_new_answers_a_program_with_the_file() -> None:
    assert qlaunch("new", "xp", "--json").json["file"] == profile_of("xp")


def test_new_writes_for_others_to_read_within_the_umask() -> None:
    former = os.umask(0o077)
    try:
        assert qlaunch("new", "xp").status == 0
    finally:
        os.umask(former)
    assert os.stat(profile_of("xp")).st_mode & 0o777 == 0o600


@pytest.mark.fault
def test_new_leaves_nothing_when_the_disk_is_full() -> None:
    done = subprocess.run(
        ["prlimit", "--fsize=100", "--", *PROGRAM, "new", "xp"],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, "cannot write" in done.stderr) == (1, True)
    assert profiles() == []


def test_of_many_new_at_once_exactly_one_wins() -> None:
    started = [
        subprocess.Popen(
            [*PROGRAM, "new", "xp", "--disk", f"{at}GiB"],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for at in range(1, 7)
    ]
    statuses = sorted(process.wait(PATIENCE) for process in started)
    assert statuses == [0, 5, 5, 5, 5, 5]
    assert profiles() == ["profiles/xp.toml"]
    assert load(profile_of("xp")).disk[0].size in {at * GIB for at in range(1, 7)}
