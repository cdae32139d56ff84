"""Long chains, many disks and huge ones, and guests that do not let go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qlaunch.errors import NotFoundError, RefusedError, TimedOutError
from qlaunch.store import paths
from qlaunch.store import timeline as store
from tests.prerequisites import both_qemus
from tests.rig import PROFILE, Rig, nothing_left, until, write_profile
from tests.timetravel import Traveller

pytestmark = pytest.mark.qemu

DEPTH = 20


def folder() -> Path:
    return Path(paths.machine_data("demo"))


def io(rig: Rig, disk: str, words: str) -> None:
    """Have a disk of the running machine read or written as its guest would."""
    device = f"{disk}-dev" if disk == "d1" else f"{disk}-dev/virtio-backend"
    answer = rig.ask("hmp", name="demo", line=f'qemu-io -d {device} "{words}"')
    assert answer["text"] == ""  # what qemu-io says is in the log


def write(rig: Rig, disk: str, pattern: int, at: str) -> None:
    io(rig, disk, f"write -P {pattern} {at} 64k")
    io(rig, disk, "flush")


def holds(rig: Rig, disk: str, pattern: int, at: str) -> bool:
    """Whether the disk's present state has that pattern there."""
    io(rig, disk, "flush")
    head = folder() / store.load("demo").heads.get(disk, f"{disk}.qcow2")
    words = ["qemu-io", "-U", "-r", "-f", "qcow2", "-c", f"read -P {pattern} {at} 64k", str(head)]
    return (
        b"verification failed" not in subprocess.run(words, check=False, capture_output=True).stdout
    )


@both_qemus
def test_a_chain_of_twenty_goes_anywhere_and_back_to_one_image(rig: Rig, qemu_binary: str) -> None:
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    rig.ready()
    here = Traveller(rig)
    for number in range(1, DEPTH + 1):
        here.say("+x\r")
        here.create(f"n{number}", disks_only=number % 2 == 0)
    assert len(here.layers()) == DEPTH + 1
    for number in (1, DEPTH // 2 + 1, DEPTH - 1):
        here.revert(f"n{number}", discard=True)
        assert here.now() == (number, "x" * number)
        here.settle()
    for number in (2, 7, 8, 13, 20):
        here.delete(f"n{number}")
    for number in (3, 11, 19):
        here.revert(f"n{number}")
        assert here.now()[0] == number
    here.check_images()
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert here.layers() == ["disk0.qcow2"]
    assert here.now()[0] == 19
    here.check_images()
    rig.kill()
    assert nothing_left() == []


def test_a_raw_base_stays_raw_and_takes_everything_back(rig: Rig) -> None:
    raw = PROFILE.replace('template = "@demo"', 'template = "@demo"\nformat = "raw"')
    write_profile("demo", text=raw)
    rig.up()
    rig.ready()
    here = Traveller(rig)
    base = folder() / "disk0.raw"
    base = base if base.exists() else next(folder().glob("disk0.*"))
    here.say("+one\r")
    for name in ("a", "b", "c"):
        here.create(name)
        here.say("+x\r")
    size = base.stat().st_size
    here.revert("a")
    assert here.now() == (1, "one")
    here.revert("c")
    assert here.now() == (3, "onexx")
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert here.now() == (3, "onexx")
    assert base.stat().st_size == size
    assert base.read_bytes()[32768:32776] == b"QLDEMO1\n"
    assert b"onexx" in base.read_bytes()[32768:33280]
    assert not list(folder().glob("*.snap*"))


def test_four_disks_are_one_moment(rig: Rig) -> None:
    more = "".join(
        f'\n[[disk]]\nid = "d{n}"\nsize = "8MiB"\nbus = "{bus}"\n'
        for n, bus in enumerate(("virtio", "scsi", "virtio"))
    )
    write_profile("demo", more)
    rig.up()
    rig.ready()
    here = Traveller(rig)

    disks = ["d0", "d1", "d2"]
    for moment in (1, 2, 3):
        here.say("+x\r")
        for disk in disks:
            write(rig, disk, moment, "0")
        here.create(f"m{moment}")
    for moment in (1, 3, 2):
        here.revert(f"m{moment}")
        assert here.now()[0] == moment
        for disk in disks:
            assert holds(rig, disk, moment, "0")
            assert not holds(rig, disk, moment + 1, "0")
    here.delete("m2")
    here.delete("m1")
    here.revert("m3")
    for disk in disks:
        assert holds(rig, disk, 3, "0")
    here.check_images()


def test_a_disk_of_a_tebibyte_costs_what_is_in_it(rig: Rig) -> None:
    write_profile("demo", '\n[[disk]]\nid = "huge"\nsize = "1TiB"\nbus = "virtio"\n')
    rig.up()
    rig.ready()
    here = Traveller(rig)
    write(rig, "huge", 7, "1023g")
    here.create("one")
    write(rig, "huge", 8, "1023g")
    here.revert("one")
    assert holds(rig, "huge", 7, "1023g")
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert sum(os.stat(path).st_blocks * 512 for path in folder().glob("huge*")) < 32 << 20
    assert len(list(folder().glob("huge*"))) == 1


def test_a_guest_that_refuses_to_let_go_keeps_its_disk(rig: Rig) -> None:
    machine = 'type = "q35"'
    text = PROFILE.replace('type = "pc"', machine).replace('"ide"', '"sata"')
    write_profile("demo", text=text)
    rig.up()
    rig.ready()
    made = rig.ask("disk-attach", name="demo", size=1 << 22, bus="virtio")
    # Its firmware never answers: it is asked once, and the disk stays for as long as it likes.
    for _ in range(2):
        with pytest.raises(TimedOutError, match="has not let go"):
            rig.ask("disk-detach", name="demo", disk=made["disk"], timeout=0.2)
    here = Traveller(rig)
    here.create("with")
    rig.ask("reset", name="demo")
    until(lambda: made["disk"] not in _devices(rig), "the disk to go")
    assert set(here.create("without")["snapshot"]["layers"]) == {"disk0"}
    with pytest.raises(NotFoundError, match="no disk 'disk1'"):
        here.revert("with")


def test_a_device_whose_state_cannot_be_saved_is_named(rig: Rig) -> None:
    write_profile("demo", '\n[[disk]]\nid = "n"\nsize = "8MiB"\nbus = "nvme"\n')
    rig.up()
    for verb in ("snapshot-create", "save"):
        with pytest.raises(RefusedError, match="nvme") as caught:
            rig.ask(verb, name="demo")
        assert "--disks-only" in str(caught.value.hint)
    assert rig.row()["state"] == "running"
    here = Traveller(rig)
    here.create("one", disks_only=True)
    assert here.revert("one")["how"] == "in place"


def _devices(rig: Rig) -> set[str]:
    arguments = {"path": "/machine/peripheral"}
    answer = rig.ask("qmp", name="demo", command="qom-list", arguments=arguments)
    return {each["name"].removesuffix("-dev") for each in answer["return"]}
