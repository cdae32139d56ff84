"""No space left for a verb of disks, media or copies: it says so and everything is as it was, or it
is done; with space again the same works."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import NotFoundError, QlaunchError
from qlaunch.store import paths
from tests.rig import Rig, nothing_left, qlaunch, until, write_profile
from tests.test_disk_plug import devices, fdsets, nodes, plug_file, saved_disks
from tests.test_supervisor_full_disk import fill, small_disks
from tests.timetravel import Traveller

__all__ = ["small_disks"]
pytestmark = [pytest.mark.qemu, pytest.mark.fault, pytest.mark.usefixtures("small_disks")]

MIB = 1 << 20
DRIVE = '\n[[cdrom]]\nid = "cd0"\n'


@pytest.fixture(scope="module", autouse=True)
def _only_root_can_mount() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")


def begin(rig: Rig) -> Traveller:
    write_profile("demo", DRIVE)
    rig.up()
    rig.ready()
    here = Traveller(rig)
    here.say("+one\r")
    rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
    return here


def said(*words: str) -> tuple[int, str]:
    process = qlaunch(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = process.communicate(timeout=60)[0].decode()
    return process.returncode, text


def iso(folder: Path) -> str:
    path = folder / "one.iso"
    path.write_bytes(bytes(MIB))
    return str(path)


def attach(rig: Rig, _folder: Path) -> Any:
    return rig.ask("disk-attach", name="demo", size=MIB, bus="virtio")


def resize(rig: Rig, _folder: Path) -> Any:
    return rig.ask("disk-resize", name="demo", disk="disk0", size=2 * MIB)


def move(rig: Rig, folder: Path) -> Any:
    return rig.ask("disk-move", name="demo", disk="disk0", target=str(folder / "moved.qcow2"))


def move_here(rig: Rig, _folder: Path) -> Any:
    target = os.path.join(paths.machine_data("demo"), "moved.qcow2")
    return rig.ask("disk-move", name="demo", disk="disk0", target=target)


def medium(rig: Rig, folder: Path) -> Any:
    return rig.ask("media", name="demo", file=iso(folder))


VERBS = {each.__name__: each for each in (attach, resize, move, move_here, medium)}


def shape(rig: Rig) -> tuple[object, ...]:
    drives = rig.ask("media", name="demo")["drives"]
    return nodes(rig), devices(rig), fdsets(rig), saved_disks(), drives


@pytest.mark.parametrize("place", ["data", "state"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_a_running_machine(
    rig: Rig, own_place: Path, tmp_path: Path, verb: str, place: str
) -> None:
    here = begin(rig)
    before = shape(rig)
    filler = fill(str(own_place / place))
    told = ""
    try:
        VERBS[verb](rig, tmp_path)
    except QlaunchError as error:
        told = error.message
    assert "bug" not in told
    filler.unlink()
    if rig.row()["state"] == "io-error":
        rig.ask("resume", name="demo")
    until(lambda: rig.row()["state"] == "running", "the guest to run")
    if told:
        assert shape(rig) == before
        assert not plug_file()
        VERBS[verb](rig, tmp_path)
    assert here.now() == (1, "one")
    here.say("+two\r")
    here.check_images()
    rig.kill()
    rig.up()
    assert here.now() == (2, "onetwo")
    rig.kill()
    assert nothing_left() == []


@pytest.mark.parametrize("place", ["data", "state"])
def test_a_detach(rig: Rig, own_place: Path, place: str) -> None:
    write_profile("demo", text=usb_profile())
    rig.up()
    rig.ready()
    before = shape(rig)
    rig.ask("disk-attach", name="demo", size=MIB, bus="usb")
    filler = fill(str(own_place / place))
    told = ""
    try:
        rig.ask("disk-detach", name="demo", disk="disk1")
    except QlaunchError as error:
        told = error.message
    assert "bug" not in told
    filler.unlink()
    if told:  # it has left the machine, perhaps, and only the note of that did not fit
        with contextlib.suppress(NotFoundError):
            rig.ask("disk-detach", name="demo", disk="disk1")
    until(lambda: saved_disks() == ["disk0"] and not plug_file(), "the disk to be forgotten")
    assert shape(rig) == before
    assert not plug_file()
    rig.kill()
    assert nothing_left() == []


def usb_profile() -> str:
    from tests.rig import PROFILE

    return PROFILE.replace('controller = "none"', 'controller = "ich9-ehci1"') + DRIVE


def files_in(folder: str) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name not in ("filler", "lock")
    }


@pytest.mark.parametrize("place", ["data", "state"])
def test_a_clone(rig: Rig, own_place: Path, place: str) -> None:
    begin(rig)
    rig.kill()
    before = files_in(paths.data_dir())
    filler = fill(str(own_place / place))
    status, text = said("clone", "demo", "copy")
    filler.unlink()
    assert (status, "full" in text or "No space" in text) == (1, True), text
    assert files_in(paths.data_dir()) == before
    assert said("clone", "demo", "copy")[0] == 0
    rig.up("copy")
    assert Traveller(rig, "copy").now() == (1, "one")
    rig.kill("copy")


def test_a_compaction(rig: Rig, own_place: Path) -> None:
    begin(rig)
    rig.kill()
    before = files_in(paths.data_dir())
    filler = fill(str(own_place / "data"))
    status, text = said("disk", "compact", "demo")
    filler.unlink()
    assert (status, "full" in text or "No space" in text) == (1, True), text
    assert files_in(paths.data_dir()) == before
    assert said("disk", "compact", "demo")[0] == 0
    rig.up()
    assert Traveller(rig).now() == (1, "one")
    rig.kill()


def test_a_cd_of_files(rig: Rig, own_place: Path, tmp_path: Path) -> None:
    begin(rig)
    (tmp_path / "file").write_bytes(bytes(MIB))
    before = shape(rig)
    filler = fill(str(own_place / "data"))
    status, text = said("media", "demo", "--files", str(tmp_path))
    filler.unlink()
    assert (status, "are 0 B left" in text) == (1, True), text
    assert shape(rig) == before
    left = Path(paths.machine_data("demo"), "media")
    assert not left.exists() or list(left.iterdir()) == []
    assert said("media", "demo", "--files", str(tmp_path))[0] == 0
    rig.kill()
