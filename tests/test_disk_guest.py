"""Disks that a Linux guest sees come, grow, move and go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, Home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

MIB = 1 << 20
DISKS = """\
[usb]
controller = "xhci"

[[cdrom]]
id = "cd0"
bus = "scsi"

[[disk]]
id = "disk0"
size = "16MiB"
"""
SEEN = "cat /sys/block/{}/size 2>/dev/null || true"
PLUG = "for i in $(seq 100); do [ -b /dev/{0} ] && break; sleep 0.1; done; cat /sys/block/{0}/size"
GONE = (
    "for i in $(seq 100); do [ -b /dev/{0} ] || break; sleep 0.1; done; ls /dev | grep -x {0}; true"
)


def devices(guest: Guest) -> str:
    return guest.run("ls /sys/block")


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_guest_sees_disks_come_grow_move_and_go(
    guest_home: Home, guest_initrd: Path, machine: str
) -> None:
    said = f'type = "{machine}"'
    with Guest(guest_home, guest_initrd, DISKS, machine=said) as guest:
        guest.boot()
        before = devices(guest)
        made = guest_home.qlaunch(
            "disk", "attach", "guest", "--size", "8MiB", "--bus", "virtio", "--persist", "--json"
        ).json
        assert guest.run(PLUG.format("vdb")) == str(8 * MIB // 512)
        place = guest.run("basename $(readlink -f /sys/block/vdb/device/..)")
        guest.run("echo kept | dd of=/dev/vdb bs=512 seek=9 conv=fsync 2>/dev/null")
        # It grows, and the guest hears of it without being asked.
        run(guest_home, "resize", "guest", made["disk"], "+8MiB", "--persist")
        grown = f"for i in $(seq 50); do [ $({SEEN.format('vdb')}) = {16 * MIB // 512} ] && break;"
        assert guest.run(f"{grown} sleep 0.1; done; {SEEN.format('vdb')}") == str(16 * MIB // 512)
        # It moves under the guest's feet while that writes.
        number = guest.tell("dd if=/dev/urandom of=/dev/vdb bs=64k seek=16 count=200 2>/dev/null;"
                            " sync; md5sum /dev/vdb >/root/sum; echo ok")  # fmt: skip
        run(guest_home, "move", "guest", made["disk"], f"{guest_home.place}/moved.qcow2")
        assert guest.answer(number, LIMIT * 2)[0] == 0
        guest.run("echo 3 >/proc/sys/vm/drop_caches; md5sum -c /root/sum", LIMIT * 2)
        # The others need no guest to go.
        for bus, name in (("scsi", "sda"), ("usb", "sda"), ("nvme", "nvme0n1")):
            words = ("attach", "guest", "--size", "4MiB", "--bus", bus, "--id", f"my{bus}")
            run(guest_home, *words)
            assert guest.run(PLUG.format(name)) == str(4 * MIB // 512)
            run(guest_home, "detach", "guest", f"my{bus}")
            assert guest.run(GONE.format(name)) == ""
        # Linux lets go of a disk on virtio within a second.
        run(guest_home, "detach", "guest", made["disk"])
        assert guest.run(GONE.format("vdb")) == ""
        assert devices(guest) == before
        # It was kept in the profile: the next start has it, at the same place.
        guest.hang_up()
        guest.qlaunch("kill")
        guest.boot()
        assert guest.run("basename $(readlink -f /sys/block/vdb/device/..)") == place
        said = guest.run("dd if=/dev/vdb bs=512 skip=9 count=1 2>/dev/null | head -n1")
        assert said == "kept"
        assert os.listdir(guest_home.place / "data/qlaunch/machines/guest") != []


def run(home: Home, *words: str) -> str:
    done = home.qlaunch("disk", *words)
    assert done.status == 0, done.err
    return done.err


def test_a_guest_may_let_go_of_a_disk_by_itself(guest_home: Home, guest_initrd: Path) -> None:
    with Guest(guest_home, guest_initrd, DISKS, machine='type = "pc"') as guest:
        guest.boot()
        run(guest_home, "attach", "guest", "--size", "8MiB")
        guest.run(PLUG.format("vdb"))
        slot = guest.run("basename $(readlink -f /sys/block/vdb/device/..)").split(":")[-1][:2]
        number = int(slot, 16)
        found = guest.run(f"grep -l 0000:00:{slot} /sys/bus/pci/slots/*/address || true")
        assert found or number
        guest.run(f"echo 0 >/sys/bus/pci/slots/{number}/power")
        guest.await_log("the disk disk1 is detached")
        assert "disk1" not in guest_home.qlaunch("disk", "info", "guest").out
        run(guest_home, "attach", "guest", "--id", "disk1", "--size", "4MiB", "--bus", "usb",
            f"{guest_home.place}/other.qcow2")  # fmt: skip
