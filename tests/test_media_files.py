"""CDs made of folders and files: what is on them, and what becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlaunch.errors import HostError, NotFoundError, RefusedError
from qlaunch.host import iso
from qlaunch.host.access import free_space
from qlaunch.store import paths
from tests.guest.machine import TEST_LIMIT, Guest, Home
from tests.rig import PROFILE, Rig, qlaunch, until, write_profile

CD = '\n[[cdrom]]\nid = "cd0"\nbus = "ide"\n'


def make(tmp_path: Path, *sources: Path) -> tuple[iso.Made, Path]:
    target = tmp_path / "out.iso"
    target.unlink(missing_ok=True)
    return iso.make_iso([str(each) for each in sources], str(target), lambda *_: None), target


def listing(target: Path, kind: str) -> set[str]:
    """The paths on the CD, as `kind` (rr_path, joliet_path) of guest sees them."""
    import pycdlib

    disc = pycdlib.PyCdlib()
    disc.open(str(target))
    found = set()
    for folder, folders, files in disc.walk(**{kind: "/"}):
        found |= {f"{folder.rstrip('/')}/{name}" for name in (*folders, *files)}
    disc.close()
    return found


def content(target: Path, path: str) -> bytes:
    import io

    import pycdlib

    disc = pycdlib.PyCdlib()
    disc.open(str(target))
    data = io.BytesIO()
    disc.get_file_from_iso_fp(data, joliet_path=path)
    disc.close()
    return data.getvalue()


def test_a_folder_is_on_the_cd_for_windows_and_for_linux(tmp_path: Path) -> None:
    folder = tmp_path / "drivers"
    (folder / "Sub Folder").mkdir(parents=True)
    (folder / "Übersicht der Treiber.txt").write_text("ü")
    (folder / "Sub Folder/setup.exe").write_bytes(b"x" * 5000)
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    made, target = make(tmp_path, folder)
    assert made.files == 3
    assert sorted(made.skipped) == [f"{folder}/link is a link", f"{folder}/pipe is no file"]
    expected = {"/Sub Folder", "/Sub Folder/setup.exe", "/Übersicht der Treiber.txt", "/empty"}
    assert listing(target, "joliet_path") == expected
    assert listing(target, "rr_path") == expected
    assert content(target, "/Sub Folder/setup.exe") == b"x" * 5000


def test_files_and_folders_are_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.txt").write_text("1")
    (tmp_path / "b.txt").write_text("2")
    _made, target = make(tmp_path, tmp_path / "a", tmp_path / "b.txt")
    assert listing(target, "joliet_path") == {"/a", "/a/x.txt", "/b.txt"}


def test_names_that_windows_takes_for_one_are_made_two(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("A.txt", "a.txt", "q:?.txt", "x" * 100 + ".doc", "x" * 101 + ".doc"):
        (folder / name).write_text(name)
    (folder / os.fsdecode(b"not\xffutf8")).write_text("n")
    made, target = make(tmp_path, folder)
    names = listing(target, "joliet_path")
    assert made.files == len(names) == 6
    assert {"/A.txt", "/a~2.txt", "/q__.txt", "/not_utf8"} <= names
    assert all(len(name) <= 65 for name in names)
    assert content(target, "/a~2.txt") == b"a.txt"


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    deep = folder.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    with pytest.raises(RefusedError, match="too deep"):
        make(tmp_path, folder)
    large = tmp_path / "large"
    large.mkdir()
    with (large / "big.bin").open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(RefusedError, match="4 GiB is the most"):
        make(tmp_path, large)
    with pytest.raises(NotFoundError, match="is not there"):
        make(tmp_path, tmp_path / "nothing")
    (tmp_path / "void").mkdir()
    with pytest.raises(RefusedError, match="nothing in"):
        make(tmp_path, tmp_path / "void")
    (large / "big.bin").write_bytes(b"")
    (large / "part").write_bytes(b"")
    os.truncate(large / "part", 3 << 30)
    os.truncate(large / "big.bin", 4 << 29)
    if (free_space(str(tmp_path)) or 0) < 5 << 30:
        with pytest.raises(HostError, match="left"):
            make(tmp_path, large)
    assert not (tmp_path / "out.iso").exists()


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_any_name_gets_onto_the_cd(tmp_path: Path, names: list[str]) -> None:
    folder = tmp_path / "any"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    folder.mkdir()
    for name in names:
        if name not in (".", "..") and len(os.fsencode(name)) < 250:
            (folder / name).write_text("x")
    if not os.listdir(folder):
        return
    made, target = make(tmp_path, folder)
    assert len(listing(target, "joliet_path")) == made.files == len(os.listdir(folder))


# ---- with a machine -----------------------------------------------------------------------------


def call(*words: str, status: int = 0) -> str:
    process = qlaunch(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, (words, out, err)
    return (out or err).decode()


def folder_of_cds() -> Path:
    return Path(paths.machine_data("demo")) / "media"


@pytest.fixture
def files(own_place: Path) -> Path:
    folder = own_place / "files"
    folder.mkdir()
    (folder / "read me.txt").write_text("hello\n")
    return folder


@pytest.mark.qemu
def test_a_cd_of_files_is_inserted_and_gone_when_nobody_needs_it(rig: Rig, files: Path) -> None:
    write_profile("demo", CD)
    rig.up()
    answer: Any = json.loads(call("media", "demo", "--files", str(files), "--json"))
    first = answer["changed"]["file"]
    assert first == str(folder_of_cds() / "files-1.iso")
    assert content(Path(first), "/read me.txt") == b"hello\n"
    old = os.stat(first).st_mtime - 100
    os.utime(first, (old, old))
    call("media", "demo", "cd0", "--files", str(files / "read me.txt"))
    assert os.listdir(folder_of_cds()) == ["files-2.iso"]
    call("media", "demo", "--eject")
    rig.kill()
    call("media", "demo", "--files", str(files))  # a stopped machine has it in its profile
    text = Path(paths.config_dir(), "profiles", "demo.toml").read_text()
    assert "files-1.iso" in text
    assert str(folder_of_cds()) in call("rm", "demo", "--dry-run")


@pytest.mark.qemu
def test_what_fails_leaves_the_old_medium_and_no_new_file(rig: Rig, files: Path) -> None:
    write_profile("demo", text=PROFILE)
    rig.up()
    assert "has no drive" in call("media", "demo", "--files", str(files), status=4)
    assert os.listdir(folder_of_cds()) == []
    assert "is not there" in call("media", "demo", "--files", "/no/such", status=4)
    assert "no profile or machine" in call("media", "nobody", "--files", str(files), status=4)
    assert "--files takes files" in call(
        "media", "demo", "--eject", "--files", str(files), status=2
    )


@pytest.mark.qemu
def test_an_interrupted_cd_leaves_nothing(rig: Rig, files: Path) -> None:
    write_profile("demo", CD)
    with (files / "big").open("wb") as file:
        file.truncate(3 << 30)
    process = qlaunch("media", "demo", "--files", str(files), stderr=subprocess.PIPE)
    until(lambda: folder_of_cds().is_dir() and os.listdir(folder_of_cds()), "the CD to be begun")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert os.listdir(folder_of_cds()) == []


@pytest.mark.guest
@pytest.mark.timeout(TEST_LIMIT)
def test_a_linux_guest_reads_it(guest_home: Home, guest_initrd: Path) -> None:
    folder = guest_home.place / "Meine Dateien"
    (folder / "in here").mkdir(parents=True)
    (folder / "in here/a long name with spaces.txt").write_text("found\n")
    with Guest(guest_home, guest_initrd, '[[cdrom]]\nid = "cd0"\n') as guest:
        guest.boot()
        guest.qlaunch("media", "--files", folder)
        guest.run(
            "mkdir /cd; for i in $(seq 50); do mount -r /dev/sr0 /cd && break; sleep 0.1; done"
        )
        assert guest.run("cat '/cd/in here/a long name with spaces.txt'") == "found"
