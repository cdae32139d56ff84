"""CDs and floppies of running and stopped machines."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import NotFoundError, RefusedError
from qlaunch.store import machines, paths
from tests.guest.machine import TEST_LIMIT, Guest, Home
from tests.prerequisites import both_qemus
from tests.rig import Rig, write_profile

pytestmark = pytest.mark.qemu

DRIVES = """
[[cdrom]]
id = "cd0"  # the first one
[[floppy]]
id = "fd0"
read_only = true
"""


def iso(folder: Path, name: str, size: int = 1 << 20) -> str:
    path = folder / name
    path.write_bytes(name.encode().ljust(size, b"\0"))
    return str(path)


def media(rig: Rig, **args: Any) -> Any:
    return rig.ask("media", name="demo", **args)


def inside(rig: Rig) -> dict[str, str | None]:
    return {each["drive"]: each["file"] for each in media(rig)["drives"]}


@both_qemus
def test_a_medium_goes_in_and_out(rig: Rig, tmp_path: Path, qemu_binary: str) -> None:
    write_profile("demo", DRIVES)
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    rig.ready()  # the firmware looks into drives
    assert inside(rig) == {"cd0": None, "fd0": None}
    one, two = iso(tmp_path, "one.iso"), iso(tmp_path, "two, 2.iso")
    floppy = iso(tmp_path, "floppy.img", 1474560)
    assert media(rig, file=one)["changed"]["file"] == one
    assert media(rig, drive="cd0", file=two)["changed"]["file"] == two
    media(rig, drive="fd0", file=floppy)
    assert inside(rig) == {"cd0": two, "fd0": floppy}
    plan = machines.load_plan("demo")
    assert plan is not None
    assert [drive.medium.path for drive in plan.drives if drive.medium] == [two, floppy]
    media(rig, eject=True)
    media(rig, eject=True)  # once more is no mistake
    media(rig, eject=True, drive="fd0")
    assert inside(rig) == {"cd0": None, "fd0": None}


@pytest.mark.fault
def test_many_changes_leave_no_descriptors_behind(rig: Rig, tmp_path: Path) -> None:
    write_profile("demo", DRIVES)
    pid = rig.up()["pid"]
    one, two = iso(tmp_path, "one.iso"), iso(tmp_path, "two.iso")
    media(rig, file=one)
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for number in range(200):
        media(rig, file=(one, two)[number % 2])
    assert len(os.listdir(f"/proc/{pid}/fd")) <= before + 2


def test_a_wrong_file_leaves_the_old_one_in(rig: Rig, tmp_path: Path) -> None:
    write_profile("demo", DRIVES)
    rig.up()
    good = iso(tmp_path, "good.iso")
    media(rig, file=good)
    qcow2 = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", qcow2, "1M"], check=True)
    for path, kind in (
        (tmp_path / "missing.iso", NotFoundError),
        (tmp_path, RefusedError),
        (qcow2, RefusedError),
        (Path(iso(tmp_path, "empty.iso", 0)).write_bytes(b"") or tmp_path / "empty.iso",
         RefusedError),
    ):  # fmt: skip
        with pytest.raises(kind):
            media(rig, file=str(path))
    with pytest.raises(RefusedError, match="larger than a floppy"):
        media(rig, drive="fd0", file=iso(tmp_path, "large.img", 4 << 20))
    assert inside(rig)["cd0"] == good
    with pytest.raises(NotFoundError) as caught:
        media(rig, drive="cd7", file=good)
    assert caught.value.hint is not None
    assert '[[cdrom]] id = "cd7"' in caught.value.hint


def test_an_iso_that_was_replaced_is_told_and_can_be_read_anew(rig: Rig, tmp_path: Path) -> None:
    write_profile("demo", DRIVES)
    rig.up()
    path = iso(tmp_path, "a.iso")
    media(rig, file=path)
    assert not media(rig)["drives"][0]["replaced"]
    os.replace(iso(tmp_path, "b.iso"), path)
    assert media(rig)["drives"][0]["replaced"]
    media(rig, file=path)
    assert not media(rig)["drives"][0]["replaced"]


def test_what_is_persisted_is_there_at_the_next_start(rig: Rig, tmp_path: Path) -> None:
    profile = write_profile("demo", DRIVES)
    rig.up()
    one, two = iso(tmp_path, "one.iso"), iso(tmp_path, "two.iso")
    media(rig, file=one)
    media(rig, file=two, persist=True)
    rig.kill()
    assert "# the first one" in Path(profile).read_text(encoding="utf-8")
    assert inside(rig)["cd0"] == two
    media(rig, file=one)  # of a stopped machine: into the profile
    rig.up()
    assert inside(rig)["cd0"] == one
    rig.kill()
    media(rig, eject=True)
    assert inside(rig)["cd0"] is None


def test_the_next_supervisor_knows_what_is_inserted(rig: Rig, tmp_path: Path) -> None:
    write_profile("demo", DRIVES)
    rig.up()
    media(rig, file=iso(tmp_path, "one.iso"))
    rig.kill_supervisor()
    rig.ask("qmp", name="demo", command="blockdev-open-tray", arguments={"id": "cd0-dev"})
    rig.ask("qmp", name="demo", command="blockdev-remove-medium", arguments={"id": "cd0-dev"})
    assert inside(rig)["cd0"] is None  # somebody took it out by hand
    nodes = rig.ask("qmp", name="demo", command="query-named-block-nodes")["return"]
    assert not [node for node in nodes if node["node-name"].startswith("cd0")]


GUEST_DRIVE = """
[[cdrom]]
id = "cd0"
bus = "scsi"
"""


@pytest.mark.guest
@pytest.mark.timeout(TEST_LIMIT)
def test_a_guest_that_uses_the_cd_is_asked_first(
    guest_home: Home, guest_initrd: Path, tmp_path: Path
) -> None:
    one, two = iso(tmp_path, "one.iso"), iso(tmp_path, "two.iso")
    word = "s=$(dd if=/dev/sr0 bs=2k count=1 2>/dev/null | head -c 7)"
    read = f'for i in 1 2 3 4 5 6; do {word}; [ -n "$s" ] && echo $s && break; sleep 1; done'
    with Guest(guest_home, guest_initrd, GUEST_DRIVE) as guest:
        guest.boot()
        guest.qlaunch("media", one)
        assert "one.iso" in guest.run(read)
        guest.run("sleep 1000 </dev/sr0 & echo $! >/holder")  # who has it open holds it shut
        refused = guest.home.qlaunch("media", guest.name, two)
        assert refused.status == 5
        assert "holds cd0 shut" in refused.err
        guest.qlaunch("media", two, "--force")
        # Reaped here: a SIGCHLD makes the shell forget what it has read of its next line.
        guest.run("kill $(cat /holder); wait $(cat /holder) || true")
        assert "two.iso" in guest.run(read)


def test_a_machine_that_there_is_not(rig: Rig) -> None:
    with pytest.raises(NotFoundError):
        rig.ask("media", name="nobody", file="/x.iso")
    assert not os.path.exists(paths.machine_data("nobody"))
