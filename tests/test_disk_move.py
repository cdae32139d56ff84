"""Disks moved to another place, while their machine runs and while it does not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlaunch.errors import (
    BusyError,
    ConflictError,
    HostError,
    NotFoundError,
    QlaunchError,
    RefusedError,
    UsageError,
)
from qlaunch.store import machines, paths
from tests.prerequisites import both_qemus
from tests.rig import PROFILE, Rig, nothing_left, request, until, write_profile
from tests.test_disk_plug import fdsets, nodes, plug_file
from tests.timetravel import Traveller

pytestmark = pytest.mark.qemu

MIB = 1 << 20


@pytest.fixture
def small(own_place: Path) -> Iterator[Path]:
    """A folder on a file system of its own, of 2 MiB."""
    if os.getuid():
        pytest.skip("only root can mount a small file system")
    folder = own_place / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "qlaunch-test", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def up_with(rig: Rig, size: int) -> None:
    """The demo guest, running, with so many MiB on its disk."""
    write_profile("demo", text=PROFILE.replace('size = "1MiB"', f'size = "{size + 2}MiB"'))
    rig.up()
    rig.kill()
    write = ["qemu-io", "-f", "qcow2", "-c", f"write -P 7 1M {size}M", own_image()]
    subprocess.run(write, check=True, capture_output=True)
    rig.up()
    rig.responds()


def own_image() -> str:
    plan = machines.load_plan("demo")
    assert plan is not None
    return plan.disks[0].image


def profile_text() -> str:
    return Path(paths.config_dir(), "profiles", "demo.toml").read_text(encoding="utf-8")


@both_qemus
@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_disk_moves_while_the_guest_works(
    rig: Rig, qemu_binary: str, form: str, own_place: Path
) -> None:
    said = f'size = "1MiB"\nformat = "{form}"'
    write_profile("demo", text=PROFILE.replace('size = "1MiB"', said))
    emulator = f'machine.emulator="{qemu_binary}"'
    pid = rig.up("demo", emulator)["pid"]
    rig.ready()
    here, old = Traveller(rig), own_image()
    here.say("+one\r")
    answer = rig.ask("disk-move", name="demo", disk="disk0", target=f"{own_place}/")
    new = str(own_place / f"disk0.{form}")
    assert (answer["old"], answer["new"], answer["live"]) == (old, new, True)
    assert answer["stopped"] < 5
    assert not os.path.exists(old)
    assert f'path = "{new}"' in profile_text()
    assert own_image() == new
    assert {name for name in nodes(rig) if name.startswith("disk0")} == {
        "disk0", "disk0-1-format", "disk0-1-file",
    }  # fmt: skip
    assert fdsets(rig) == 1
    assert not plug_file()
    assert here.now() == (1, "one")
    here.say("+two\r")
    back = rig.ask("disk-move", name="demo", disk="disk0", target=old)
    assert back["new"] == old
    assert rig.row()["pid"] == pid
    assert rig.row()["state"] == "running"
    rig.kill()
    rig.up("demo", emulator)
    assert here.now() == (2, "onetwo")
    # Snapshots know the new place.
    rig.ask("snapshot-create", name="demo", snapshot="one")
    with pytest.raises(RefusedError, match="has snapshots"):
        rig.ask("disk-move", name="demo", disk="disk0", target=str(own_place / "again"))
    rig.kill()
    assert nothing_left() == []


def test_a_paused_machine_stays_paused(rig: Rig, own_place: Path) -> None:
    rig.up()
    rig.ready()
    rig.ask("pause", name="demo")
    rig.ask("disk-move", name="demo", disk="disk0", target=str(own_place / "new.qcow2"))
    assert rig.row()["state"] == "paused"


def test_a_disk_on_a_base_moves_alone(rig: Rig, own_place: Path) -> None:
    base, top = own_place / "base.qcow2", own_place / "top.qcow2"
    rig.up("first", profile=write_profile("first"))
    rig.ready("first")
    Traveller(rig, "first").say("+base\r")
    rig.kill("first")
    os.rename(os.path.join(paths.machine_data("first"), "disk0.qcow2"), base)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2"]
    subprocess.run([*command, str(top)], check=True, cwd=own_place)
    said = f'path = "{top}"\nbacking = "{base}"'
    write_profile("demo", text=PROFILE.replace('template = "@demo"\nsize = "1MiB"', said))
    before = base.read_bytes()
    rig.up()
    here = Traveller(rig)
    assert here.now() == (1, "base")
    here.say("+top\r")
    folder = own_place / "elsewhere"
    folder.mkdir()
    rig.ask("disk-move", name="demo", disk="disk0", target=str(folder / "live.qcow2"))
    here.say("+ten\r")
    rig.kill()
    rig.ask("disk-move", name="demo", disk="disk0", target=str(own_place / "cold.qcow2"))
    rig.ask("disk-move", name="demo", disk="disk0", target=str(folder))
    rig.up()
    assert here.now() == (3, "basetopten")
    assert base.read_bytes() == before
    assert os.listdir(folder) == ["cold.qcow2"]


@pytest.mark.parametrize("live", [True, False])
def test_a_full_disk_leaves_it_where_it_was(rig: Rig, small: Path, live: bool) -> None:
    up_with(rig, 6)
    here, old = Traveller(rig), own_image()
    here.say("+one\r")
    if not live:
        rig.kill()
    words = "No space left|is full"
    with pytest.raises(QlaunchError, match=words):
        rig.ask("disk-move", name="demo", disk="disk0", target=str(small / "d.qcow2"))
    assert list(small.iterdir()) == []
    assert own_image() == old
    assert "path" not in profile_text()
    if live:
        assert fdsets(rig) == 1
        assert not plug_file()
        assert here.now() == (1, "one")
        here.say("+two\r")
        rig.kill()
    rig.up()
    assert here.now() == ((2, "onetwo") if live else (1, "one"))


def test_a_stopped_disk_moves_to_another_file_system(rig: Rig, small: Path) -> None:
    rig.up()
    rig.ready()
    here, old = Traveller(rig), own_image()
    here.say("+one\r")
    rig.kill()
    answer = rig.ask("disk-move", name="demo", disk="disk0", target=f"{small}/")
    assert not answer["live"]
    assert not os.path.exists(old)
    assert os.listdir(small) == ["disk0.qcow2"]
    rig.up()
    assert here.now() == (1, "one")
    rig.kill()


def test_a_move_is_cancelled_by_its_client_and_by_jobs(rig: Rig, own_place: Path) -> None:
    up_with(rig, 60)
    here, old = Traveller(rig), own_image()
    args = {"name": "demo", "disk": "disk0", "target": str(own_place / "x.qcow2"), "speed": MIB}
    moving = rig.later("disk-move", **args)
    until(lambda: rig.ask("jobs", name="demo")["jobs"], "the job")
    with pytest.raises(BusyError, match="is changing"):
        rig.ask("snapshot-create", name="demo", snapshot="no")
    rig.ask("jobs", name="demo", cancel="all")
    with pytest.raises(BusyError, match="was cancelled"):
        moving.result()
    with rig.connect() as connection:
        connection.socket.sendall(request("disk-move", **args))
        until(lambda: rig.ask("jobs", name="demo")["jobs"], "the job")
    until(lambda: not rig.ask("jobs", name="demo")["jobs"], "its end")
    until(lambda: not plug_file(), "the undoing")
    assert not os.path.exists(args["target"])  # type: ignore[arg-type]
    assert own_image() == old
    assert here.now() == (0, "")
    assert fdsets(rig) == 1
    rig.kill()
    assert nothing_left() == []


def test_what_keeps_a_disk_where_it_is(rig: Rig, own_place: Path) -> None:
    rig.up()
    rig.ready()
    old = own_image()
    taken = own_place / "taken.qcow2"
    taken.write_bytes(b"mine")
    for kind, words, args in (
        (ConflictError, "exists already", {"target": str(taken)}),
        (ConflictError, "is there already", {"target": old}),
        (HostError, "does not exist", {"target": "/no/such/place.qcow2"}),
        (NotFoundError, "no disk 'hdx'", {"target": str(own_place / "n"), "disk": "hdx"}),
        (UsageError, "not absolute", {"target": "n.qcow2"}),
    ):
        with pytest.raises(kind, match=words):
            rig.ask("disk-move", **{"name": "demo", "disk": "disk0", **args})
    assert taken.read_bytes() == b"mine"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", old, "-F", "qcow2"]
    above = os.path.join(os.path.dirname(old), "above.qcow2")
    subprocess.run([*command, above, "1M"], check=True)
    with pytest.raises(RefusedError, match=r"above\.qcow2 stands on it"):
        rig.ask("disk-move", name="demo", disk="disk0", target=str(own_place / "n"))
    os.unlink(above)
    write_profile("other", text=PROFILE.replace('template = "@demo"', f'path = "{old}"'))
    with pytest.raises(RefusedError, match=r"other.toml names it"):
        rig.ask("disk-move", name="demo", disk="disk0", target=str(own_place / "n"))


def test_a_profile_that_cannot_be_written_keeps_the_disk(rig: Rig, own_place: Path) -> None:
    rig.up()
    rig.ready()
    here, old = Traveller(rig), own_image()
    here.say("+one\r")
    profile = Path(paths.config_dir(), "profiles", "demo.toml")
    profile.write_text("schema = 1\nthis is no TOML", encoding="utf-8")
    with pytest.raises(QlaunchError, match="not TOML"):
        rig.ask("disk-move", name="demo", disk="disk0", target=str(own_place / "n.qcow2"))
    assert own_image() == old
    assert not (own_place / "n.qcow2").exists()
    assert here.now() == (1, "one")
