"""What a Linux guest finds on the board that Windows XP gets: older devices throughout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.image import iso
from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

HOUR = 3600
MIB = 1 << 20
FLOPPY_SIZE = 1440 << 10
TABLES = """\
[[disk]]
id = "hda"
size = "16MiB"
serial = "WD-42"

[[disk]]
id = "hdv"
bus = "virtio"
size = "17MiB"

[[cdrom]]
id = "cd0"
path = "{place}/medium.iso"

[[floppy]]
id = "fd0"
path = "{place}/floppy.img"
read_only = false

[[nic]]
id = "net0"

[usb]
address = "09.7"
redirect_ports = [4, 5, 6, 3]
"""


@pytest.fixture(scope="module")
def guest(shared_cache: Path, guest_initrd: Path) -> Iterator[Guest]:
    """A machine as for Windows XP, in a time zone five hours ahead of UTC."""
    with home(shared_cache) as user:
        user.environment["TZ"] = "AHEAD-5"
        iso(user.place / "medium.iso", {"readme.txt": "from the medium\n"})
        floppy = user.place / "floppy.img"
        floppy.write_bytes(b"on the floppy\n".ljust(FLOPPY_SIZE, b"\0"))
        said = TABLES.format(place=user.place)
        with Guest(user, guest_initrd, said, guest="windows-xp", words="floppy=1") as machine:
            machine.boot("cpu.count=2", "cpu.sockets=2")
            yield machine


def test_the_ide_disk_is_on_the_first_channel(guest: Guest) -> None:
    assert "/ata1/" in guest.run("readlink -f /sys/block/sda")
    assert guest.run("cat /sys/block/sda/size") == str(16 * MIB // 512)
    assert "WD-42" in guest.run("tr -d '\\0' </sys/block/sda/device/vpd_pg80")


def test_the_cd_is_on_the_second_ide_channel(guest: Guest) -> None:
    assert "/ata2/" in guest.run("readlink -f /sys/block/sr0")
    guest.run("mkdir -p /mnt/cd && mount -t iso9660 -o ro /dev/sr0 /mnt/cd")
    assert guest.run("cat /mnt/cd/readme.txt") == "from the medium"


def test_virtio_devices_are_transitional_ones_that_old_drivers_know(guest: Guest) -> None:
    found = guest.pci()
    assert "1af4:1001" in found  # disk
    assert not {name for name in found if name.startswith("1af4:104")}


def test_the_cards_are_those_that_windows_xp_has_drivers_for(guest: Guest) -> None:
    found = guest.pci()
    assert "8086:2415" in found, "the AC97 sound card"
    assert "10ec:8139" in found, "the network card"


@pytest.mark.spice
def test_the_graphics_card_is_qxl(guest: Guest) -> None:
    assert "1b36:0100" in guest.pci()


def test_the_floppy_is_read_and_written(guest: Guest) -> None:
    assert guest.run("head -n1 /dev/fd0") == "on the floppy"
    guest.run("echo from the guest | dd of=/dev/fd0 bs=512 seek=1 conv=notrunc,fsync 2>/dev/null")
    image = (guest.home.place / "floppy.img").read_bytes()
    assert image[512:528] == b"from the guest\n\0"


def test_the_ehci_controller_has_its_three_companions(guest: Guest) -> None:
    bus = "/sys/bus/pci/devices/0000:00:09."
    ids = guest.run(f"cat {bus}7/device {bus}0/device {bus}1/device {bus}2/device").split()
    assert ids == ["0x293a", "0x2934", "0x2935", "0x2936"]
    ports = guest.run("cat /sys/bus/usb/devices/usb?/maxchild").split()
    assert sorted(ports) == ["2", "2", "2", "6"]


def test_the_tablet_is_found_on_usb(guest: Guest) -> None:
    until = time.monotonic() + LIMIT
    while guest.ask("grep -l 'QEMU USB Tablet' /sys/bus/usb/devices/*/product")[0]:
        assert time.monotonic() < until, "there is no tablet"


@pytest.mark.spice
def test_the_slots_for_a_clients_usb_devices_are_at_the_ports_of_the_profile(guest: Guest) -> None:
    devices = guest.status()["devices"]
    slots = [device["address"] for device in devices if device["driver"] == "usb-redir"]
    assert slots == [f"usb.0 port {port}" for port in (4, 5, 6, 3)]


def test_the_clock_shows_local_time(guest: Guest) -> None:
    ahead = int(guest.run("cat /sys/class/rtc/rtc0/since_epoch")) - time.time()
    assert abs(ahead - 5 * HOUR) < LIMIT


def test_two_sockets_are_two_packages(guest: Guest) -> None:
    packages = "/sys/devices/system/cpu/cpu*/topology/physical_package_id"
    assert guest.run(f"cat {packages}").split() == ["0", "1"]
    assert guest.run("grep -m1 'model name' /proc/cpuinfo").endswith(
        "QEMU Virtual CPU version 2.5+"
    )


def test_no_panic_notifier_or_random_numbers_puzzle_the_guest(guest: Guest) -> None:
    assert guest.ask("ls -d /sys/bus/acpi/devices/QEMU0001:*")[0] != 0
    assert "1af4:1005" not in guest.pci()
