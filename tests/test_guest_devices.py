"""What a Linux guest on q35 finds: each device of the profile, as the profile says it."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.image import iso
from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, free_port, home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

MIB = 1 << 20
UUID = "5a0e5ac0-9ed5-4a0f-8f8e-3f1d0f0f7a11"
MAC = "52:54:00:aa:bb:cc"
# Each disk has a size of its own, by which the guest finds it.
SIZES = {"virtio": 16, "scsi": 17, "sata": 18, "nvme": 19, "usb": 20}
SETTINGS = (
    "cpu.model=Nehalem",  # QEMU's own AMD model shows a guest no threads
    "cpu.count=2",
    "cpu.threads=2",
    "memory.size=384MiB",
    "memory.current=256MiB",
    "sound.model=hda",
    "machine.watchdog=i6300esb",
    f"uuid={UUID}",
)
TABLES = """\
[[cdrom]]
id = "cd0"
path = "{place}/medium.iso"

[[disk]]
id = "frozen"
bus = "virtio"
size = "21MiB"
read_only = true

[[nic]]
id = "net0"
mac = "{mac}"
forward = ["{port}:80"]

[[share]]
id = "shared"
path = "{place}/shared"

[[share]]
id = "sealed"
tag = "look-only"
path = "{place}/sealed"
read_only = true
"""
DISK = """
[[disk]]
id = "{bus}-disk"
bus = "{bus}"
size = "{size}MiB"
serial = "SN-{bus}-7"
"""
# Where a disk's sysfs path leads through, and where the guest reads its serial number.
WAYS = {
    "virtio": ("/virtio", "serial"),
    "scsi": ("/virtio", "device/vpd_pg80"),
    "sata": ("/ata", "device/vpd_pg80"),
    "nvme": ("/nvme/", "device/serial"),
    "usb": ("/usb", "../../../../../../serial"),
}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def guest(shared_cache: Path, guest_initrd: Path, port: int) -> Iterator[Guest]:
    """One machine with one of everything."""
    with home(shared_cache) as user:
        iso(user.place / "medium.iso", {"readme.txt": "from the medium\n"})
        for folder in ("shared", "sealed"):
            (user.place / folder).mkdir()
            (user.place / folder / "hello").write_text(f"{folder}\n", encoding="utf-8")
        said = TABLES.format(place=user.place, mac=MAC, port=port)
        said += "".join(DISK.format(bus=bus, size=size) for bus, size in SIZES.items())
        with Guest(user, guest_initrd, said, words="net=1") as machine:
            machine.boot(*SETTINGS)
            yield machine


def block_device(guest: Guest, size: int) -> str:
    """The name of the disk of `size` MiB; one on USB takes a moment to appear."""
    command = f"grep -lx {size * MIB // 512} /sys/block/*/size"
    until = time.monotonic() + LIMIT
    while not (found := guest.ask(command)[1].strip()):
        assert time.monotonic() < until, f"there is no disk of {size} MiB"
    return found.split("/")[3]


# ---- disks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bus", SIZES)
def test_a_disk_is_on_its_bus_with_its_size_and_serial_number(bus: str, guest: Guest) -> None:
    name = block_device(guest, SIZES[bus])
    way, serial = WAYS[bus]
    assert way in guest.run(f"readlink -f /sys/block/{name}")
    assert f"SN-{bus}-7" in guest.run(f"tr -d '\\0' <$(readlink -f /sys/block/{name})/{serial}")
    assert guest.run(f"cat /sys/block/{name}/ro") == "0"
    assert guest.ask(f"echo {bus} | dd of=/dev/{name} conv=fsync 2>/dev/null")[0] == 0
    assert guest.run(f"head -n1 /dev/{name}") == bus


def test_a_read_only_disk_cannot_be_written(guest: Guest) -> None:
    name = block_device(guest, 21)
    assert guest.run(f"cat /sys/block/{name}/ro") == "1"
    assert guest.ask(f"echo no | dd of=/dev/{name} conv=fsync")[0] != 0


def test_the_guest_gives_space_back_to_the_image(guest: Guest) -> None:
    name = block_device(guest, SIZES["virtio"])
    image = Path(guest.status()["disks"][1]["path"])
    guest.run(f"dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\0' x >/dev/{name} && sync")
    full = image.stat().st_blocks * 512
    guest.run(f"blkdiscard /dev/{name}")
    assert image.stat().st_blocks * 512 < full - 6 * MIB


def test_the_files_on_a_cd_can_be_read(guest: Guest) -> None:
    guest.run("mkdir -p /mnt/cd && mount -t iso9660 -o ro /dev/sr0 /mnt/cd")
    assert guest.run("cat /mnt/cd/readme.txt") == "from the medium"
    guest.run("umount /mnt/cd")


# ---- network ------------------------------------------------------------------------------------


def test_the_network_card_has_its_mac_and_gets_an_address(guest: Guest) -> None:
    assert guest.run("cat /sys/class/net/eth0/address") == MAC
    assert "inet 10.0.2.15/24" in guest.run("ip addr show eth0")


def test_a_forward_leads_from_this_computer_into_the_guest(guest: Guest, port: int) -> None:
    guest.run("mkdir -p /tmp/www && echo in the guest >/tmp/www/hello && httpd -p 80 -h /tmp/www")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello", timeout=LIMIT) as answer:
        assert answer.read() == b"in the guest\n"


def test_a_forward_listens_on_the_loopback_only(guest: Guest, port: int) -> None:
    with socket.socket() as other:
        other.settimeout(LIMIT)
        assert other.connect_ex(("127.0.0.2", port)) != 0
    assert guest.state() == "running"


# ---- shared folders -----------------------------------------------------------------------------


def mount(guest: Guest, tag: str) -> str:
    folder = f"/mnt/{tag}"
    options = "trans=virtio,version=9p2000.L"
    guest.run(f"mkdir -p {folder} && mount -t 9p -o {options} {tag} {folder}")
    return folder


def test_a_shared_folder_is_read_and_written_from_both_sides(guest: Guest) -> None:
    folder = mount(guest, "shared")
    assert guest.run(f"cat {folder}/hello") == "shared"
    guest.run(f"echo from the guest >{folder}/answer && sync")
    answer = guest.home.place / "shared/answer"
    assert answer.read_text(encoding="utf-8") == "from the guest\n"


def test_a_read_only_share_cannot_be_written(guest: Guest) -> None:
    folder = mount(guest, "look-only")
    assert guest.run(f"cat {folder}/hello") == "sealed"
    status, said = guest.ask(f"touch {folder}/answer")
    assert (status, "Read-only file system" in said) == (1, True)
    assert [file.name for file in (guest.home.place / "sealed").iterdir()] == ["hello"]


# ---- board and small devices --------------------------------------------------------------------


def test_the_guest_sees_the_uuid_and_the_processors(guest: Guest) -> None:
    assert guest.run("cat /sys/class/dmi/id/product_uuid") == UUID
    assert guest.run("nproc") == "2"
    assert "Nehalem" in guest.run("grep -m1 'model name' /proc/cpuinfo")
    siblings = "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list"
    assert guest.run(f"cat {siblings}") == "0-1"


def test_the_balloon_takes_memory_down_to_the_current_size(guest: Guest) -> None:
    until = time.monotonic() + LIMIT
    while guest.status()["memory_size"]["current"] != "256MiB":
        assert time.monotonic() < until, "the balloon did not grow"
    kib = {
        line.split(":")[0]: int(line.split()[1])
        for line in guest.run("cat /proc/meminfo").splitlines()
    }
    assert 256 * 1024 < kib["MemTotal"] < 384 * 1024
    assert kib["MemAvailable"] < 256 * 1024


def test_the_clock_shows_utc(guest: Guest) -> None:
    assert abs(int(guest.run("cat /sys/class/rtc/rtc0/since_epoch")) - time.time()) < LIMIT


def test_random_numbers_come_from_the_host(guest: Guest) -> None:
    assert guest.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    assert guest.run("head -c 16 /dev/hwrng | wc -c") == "16"


def test_the_channels_have_their_names(guest: Guest) -> None:
    names = guest.run("cat /sys/class/virtio-ports/*/name").split()
    assert "org.qemu.guest_agent.0" in names
    if "spice" in str(guest.status()["displays"]):
        assert "com.redhat.spice.0" in names


def test_the_tablet_is_on_the_xhci_controller(guest: Guest) -> None:
    tablet = guest.run("grep -l 'QEMU USB Tablet' /sys/bus/usb/devices/*/product")
    assert tablet
    controller = guest.run("readlink -f /sys/bus/usb/devices/usb1/..")
    ids = guest.run(f"cat {controller}/vendor {controller}/device").split()
    assert ids == ["0x1b36", "0x000d"]


def test_the_pci_bus_shows_the_cards_of_the_profile(guest: Guest) -> None:
    assert guest.pci() >= {
        "1af4:1042",  # the virtio disk, a modern device
        "1af4:1041",  # the network card
        "1af4:1050",  # the graphics card
        "8086:293e",  # the HDA sound card
        "8086:25ab",  # the watchdog
    }
