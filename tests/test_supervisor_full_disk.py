"""No space left: a start fails in words and leaves nothing, and what runs goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlaunch.errors import HostError, QlaunchError
from qlaunch.store import machines, paths
from tests.rig import Rig, nothing_left, until, write_profile

pytestmark = [pytest.mark.qemu, pytest.mark.fault, pytest.mark.usefixtures("small_disks")]

SMALL = ("state", "data", "run")


@pytest.fixture(scope="module", autouse=True)
def _only_root_can_mount() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")


@pytest.fixture
def small_disks(own_place: Path) -> Iterator[None]:
    """State, data and sockets on file systems of 8 MiB each, gone before the test's folder is."""
    mounted = []
    try:
        for name in SMALL:
            folder = str(own_place / name)
            command = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "qlaunch-test", folder]
            subprocess.run(command, check=True, capture_output=True)
            mounted.append(folder)
        yield
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: str) -> Path:
    """Leave no byte free on the file system of `folder`."""
    filler = Path(folder) / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def fill_inodes(folder: str) -> None:
    """Leave no room for another file on the file system of `folder`."""
    subprocess.run(["mount", "-o", "remount,nr_inodes=8", folder], check=True, capture_output=True)
    try:
        for number in range(100):
            (Path(folder) / f"filler{number}").touch()
    except OSError:
        pass


@pytest.mark.parametrize("place", SMALL)
def test_a_start_without_space_says_so_and_leaves_nothing(
    rig: Rig, own_place: Path, place: str
) -> None:
    rig.up()
    rig.kill()
    rig.supervisor()
    filler = fill(str(own_place / place))
    machine = "demo" if place == "state" else "other"
    if place == "run":
        # A socket needs no space; a file system that takes no new files is what hurts.
        fill_inodes(str(own_place / place))
    with pytest.raises(QlaunchError, match=r"[Nn]o space|is full") as caught:
        rig.up(machine)
    assert isinstance(caught.value, HostError)
    assert nothing_left(machine) == []
    assert rig.row(machine) == {}
    filler.unlink()
    if place != "run":
        assert rig.up(machine)["pid"]


def test_a_machine_goes_on_when_its_log_cannot(rig: Rig, own_place: Path) -> None:
    write_profile("demo")
    rig.up()
    rig.ready()
    filler = fill(str(own_place / "state"))
    with rig.console() as console:
        console.expect("READY\r\n")
        for turn in range(5):
            console.send("?" * 200 + "+")
            console.expect(rf"count={turn + 1}\r")
    assert rig.row()["state"] == "running"
    filler.unlink()
    with rig.console() as console:
        console.send("+")
        console.expect(r"count=6\r")
    log = Path(machines.console_log_path("demo", "serial0"))
    until(lambda: b"count=6" in log.read_bytes(), "the log to go on")


def test_a_machine_can_be_stopped_and_its_end_be_noticed_without_space(
    rig: Rig, own_place: Path
) -> None:
    rig.up()
    rig.ready()
    filler = fill(str(own_place / "state"))
    rig.ask("down", name="demo")
    assert nothing_left() == []
    filler.unlink()
    assert rig.up()["pid"]


def test_a_machine_is_adopted_without_space(rig: Rig, own_place: Path) -> None:
    pid = rig.up()["pid"]
    rig.ready()
    rig.kill_supervisor()
    for place in SMALL:
        fill(str(own_place / place))
    row = rig.row()
    assert (row["pid"], row["state"]) == (pid, "running")
    rig.responds()
    assert rig.ask("down", name="demo")["how"]
    assert nothing_left() == []
    assert os.path.exists(paths.state_dir())


@pytest.mark.parametrize("adopted", [False, True])
def test_a_guest_stops_for_a_full_disk_and_goes_on_by_itself_when_there_is_space(
    rig: Rig, own_place: Path, adopted: bool
) -> None:
    rig.up()
    rig.ready()
    # From now on what the guest writes needs new clusters.
    rig.ask("snapshot-create", name="demo", snapshot="one", disks_only=True)
    filler = fill(str(own_place / "data"))
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send("x\r")
        until(lambda: rig.row()["state"] == "io-error", "the guest to stop")
    if adopted:
        rig.kill_supervisor()
    told = until(lambda: rig.row()["warnings"], "the reason")[0]
    assert f"no space left on {own_place / 'data'}" in told["message"]
    assert "goes on by itself" in told["hint"]
    with rig.console() as console:
        filler.unlink()
        console.expect("saved\r\n")
        console.send("+")
        console.expect(r"count=1\r")
    until(lambda: rig.row()["state"] == "running", "the state")
    until(lambda: not rig.row()["warnings"], "an end of the trouble")
    assert "the guest goes on" in rig.machine_log()
