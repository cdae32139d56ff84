"""USB as a Linux guest has it: sticks and CDs that come and go, and a kernel's own list of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlaunch.host.usb import usb_devices
from tests.guest.image import iso
from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

# The controller of Windows XP, and the one of today.
CONTROLLERS = ("ich9-ehci1", "xhci")
SYSFS = "idVendor idProduct bDeviceClass busnum devnum manufacturer product serial bInterfaceClass"


@pytest.fixture(scope="module", params=CONTROLLERS)
def guest(
    request: pytest.FixtureRequest, guest_initrd: Path, shared_cache: Path
) -> Iterator[Guest]:
    with home(shared_cache) as user:
        said = f'[usb]\ncontroller = "{request.param}"\n'
        with Guest(user, guest_initrd, said) as made:
            made.boot()
            yield made


def wait_for(guest: Guest, command: str, what: str) -> None:
    """Wait until the guest's kernel knows of what changed."""
    end = time.monotonic() + LIMIT
    while guest.ask(command)[0] != 0:
        assert time.monotonic() < end, f"the guest does not see {what}"


def test_a_file_is_a_stick_and_comes_back_written_to(guest: Guest) -> None:
    stick = guest.home.place / "stick.img"
    stick.write_bytes(b"from the host".ljust(2 << 20, b"\0"))
    guest.qlaunch("usb", "attach", stick)
    wait_for(guest, "test -b /dev/sda", "the stick")
    assert guest.run("head -c 13 /dev/sda") == "from the host"
    assert guest.run("cat /sys/block/sda/removable") == "1"
    guest.run("printf 'from the guest' | dd of=/dev/sda bs=14 count=1 conv=notrunc && sync")
    guest.qlaunch("usb", "detach", stick)
    wait_for(guest, "test ! -b /dev/sda", "that the stick is gone")
    assert stick.read_bytes().startswith(b"from the guest")
    guest.qlaunch("usb", "attach", stick, "--read-only")
    wait_for(guest, "grep -q 1 /sys/block/sd?/ro", "the stick again, read-only")
    guest.qlaunch("usb", "detach", "stick1")


def test_a_file_is_a_cd_in_a_drive_of_its_own(guest: Guest) -> None:
    disc = guest.home.place / "disc.iso"
    iso(disc, {"word.txt": "read from a CD"})
    guest.qlaunch("usb", "attach", disc)
    wait_for(guest, "mount -t iso9660 /dev/sr0 /mnt", "the CD")
    assert guest.run("cat /mnt/word.txt") == "read from a CD"
    guest.run("umount /mnt")
    other = guest.home.place / "other.iso"
    iso(other, {"word.txt": "another one"})
    guest.qlaunch("media", "cd1", other)
    wait_for(guest, "mount -t iso9660 /dev/sr0 /mnt", "the other CD")
    assert guest.run("cat /mnt/word.txt; umount /mnt") == "another one"
    guest.qlaunch("usb", "detach", "cd1")
    wait_for(guest, "test ! -b /dev/sr0", "that the drive is gone")


def test_what_a_kernel_shows_of_its_devices_is_understood(guest: Guest, own_place: Path) -> None:
    """The guest's sysfs stands for that of a computer with USB."""
    stick = guest.home.place / "seen.img"
    stick.write_bytes(bytes(1 << 20))
    guest.qlaunch("usb", "attach", stick, "--id", "seen")
    wait_for(guest, "test -b /dev/sd?", "the stick")
    said = guest.run(
        f"cd /sys/bus/usb/devices; for d in *; do for f in {SYSFS}; do"
        ' [ ! -f $d/$f ] || echo "$d/$f=$(cat $d/$f)"; done; done'
    )
    for line in said.splitlines():
        name, _, value = line.partition("=")
        path = own_place / "sysfs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="utf-8")
    found = {each.ident: each for each in usb_devices(str(own_place / "sysfs"), str(own_place))}
    there = found["46f4:0001"]
    assert (there.name, there.kinds) == ("QEMU QEMU USB HARDDRIVE", (8,))
    assert there.port.startswith(("1-", "2-"))
    assert not there.usable
    assert not [each for each in found.values() if 9 in each.kinds]
    node = Path(there.node)
    node.parent.mkdir(parents=True)
    node.touch()
    again = {each.ident: each for each in usb_devices(str(own_place / "sysfs"), str(own_place))}
    assert again["46f4:0001"].usable
    guest.qlaunch("usb", "detach", "seen")


def test_a_computer_without_usb_has_no_devices(own_place: Path) -> None:
    assert usb_devices(str(own_place / "nothing")) == ()
