"""A Linux guest as a SPICE client has it: USB devices that the client brings, sound, the size of
its window, a folder that it shares."""

from __future__ import annotations

import array
import base64
import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.definitions import PROGRAM
from tests.guest.image import extended, iso
from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, Home, home
from tests.spice.client import SpiceClient
from tests.spice.screen import screen
from tests.test_usb_guest import wait_for

pytestmark = [pytest.mark.guest, pytest.mark.spice, pytest.mark.timeout(TEST_LIMIT)]

RATE, PITCH, SECONDS = 48000, 440, 3
# Not HDA: Linux gives up on its codec when an emulated processor on a busy computer is late.
CARDS = ("ac97", "usb")
DRIVERS = "snd-intel8x0 snd-usb-audio qxl virtio-gpu"
SPICE = "[display]\nspice = true\n"
# What Windows XP has: EHCI, four slots for the client's devices, a tablet.
XP_USB = '[usb]\ncontroller = "ich9-ehci1"\nredirect = 4\n'


def tone() -> bytes:
    """A sine in 16 bits, on both channels."""
    samples = array.array("h")
    for at in range(RATE * SECONDS):
        value = int(12000 * math.sin(2 * math.pi * PITCH * at / RATE))
        samples.extend((value, value))
    return samples.tobytes()


@pytest.fixture(scope="module")
def initrd(desktop_initrd: Path) -> Iterator[Path]:
    with extended(
        desktop_initrd, trees=["/usr/share/alsa"], drivers=DRIVERS,
        files={"/tone.raw": tone()},
    ) as made:  # fmt: skip
        yield made


@pytest.fixture(scope="module")
def user(shared_cache: Path) -> Iterator[Home]:
    with home(shared_cache) as made:
        yield made


def address(guest: Guest) -> str:
    uris = (str(uri) for uri in guest.status()["display"])
    return next(uri for uri in uris if uri.startswith("spice+unix"))


# ---- USB ----------------------------------------------------------------------------------------


def bring(client: SpiceClient, path: Path) -> int:
    """Have the client's user put a CD into a drive of his; its number."""
    client.ask("share_cd", path=str(path))
    return int(client.expect(event="usb")["number"])


def slots(guest: Guest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = guest.qlaunch("usb", "slots", "--json").json["slots"]
    return found


def test_the_clients_devices_come_through_ehci_and_a_fifth_by_a_slot_more(
    user: Home, guest_initrd: Path
) -> None:
    with Guest(user, guest_initrd, SPICE + XP_USB, name="ehci") as guest:
        guest.boot()
        with SpiceClient() as client:
            client.open(address(guest), enable_usbredir=True)
            for number in range(4):
                disc = user.place / f"disc{number}.iso"
                iso(disc, {"word.txt": f"disc {number} of the client"})
                client.ask("redirect", number=bring(client, disc))
                assert client.expect(event="redirected")["error"] is None
                wait_for(guest, f"mount -t iso9660 /dev/sr{number} /mnt", f"disc {number}")
                assert guest.run("cat /mnt/word.txt; umount /mnt") == f"disc {number} of the client"
            assert [each["attached"] for each in slots(guest)][:4] == [True] * 4
            end = time.monotonic() + LIMIT
            while len(slots(guest)) < 5:  # by itself, because all are used
                assert time.monotonic() < end
            client.expect(event="channel", channel="usbredir", what="opened")
            iso(user.place / "disc4.iso", {"word.txt": "one more"})
            fifth = bring(client, user.place / "disc4.iso")
            client.ask("redirect", number=fifth)
            assert client.expect(event="redirected")["error"] is None
            wait_for(guest, "mount -t iso9660 /dev/sr4 /mnt", "the fifth disc")
            assert guest.run("cat /mnt/word.txt; umount /mnt") == "one more"
            done = user.qlaunch("usb", "slots", guest.name, "4")
            assert done.status == 5
            assert "a device of the client is in the slot redir4" in done.err
            client.ask("take_back", number=fifth)
            wait_for(guest, "test ! -b /dev/sr4", "that it is gone")
            guest.qlaunch("usb", "slots", "4")


def test_qemu_refuses_what_the_profile_denies(user: Home, guest_initrd: Path) -> None:
    said = SPICE + XP_USB + 'filter = ["deny storage", "allow all"]\n'
    with Guest(user, guest_initrd, said, name="filter") as guest:
        guest.boot()
        iso(user.place / "denied.iso", {"word.txt": "never read"})
        with SpiceClient() as client:
            client.open(address(guest), enable_usbredir=True)
            client.ask("redirect", number=bring(client, user.place / "denied.iso"))
            # The client hands it over and hears then that it is not wanted.
            assert "rejected" in client.expect(event="refused")["error"]
            assert guest.ask("test -b /dev/sr0")[0] != 0


# ---- sound --------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", CARDS)
def test_what_the_guest_plays_is_heard_at_its_pitch(user: Home, initrd: Path, card: str) -> None:
    with Guest(user, initrd, f'{SPICE}[sound]\nmodel = "{card}"\n', name=card) as guest:
        guest.boot()
        guest.run("load-more")
        wait_for(guest, "test -d /proc/asound/card0", "the sound card")
        with SpiceClient() as client:
            client.open(address(guest), enable_audio=True)
            number = guest.tell(f"aplay -q -D plughw:0 -t raw -f S16_LE -r {RATE} -c 2 /tone.raw")
            begun = client.expect(event="playback")
            assert (begun["channels"], begun["rate"]) == (2, RATE)
            heard = b""
            while len(heard) < RATE * 4 * (SECONDS - 1):
                heard += base64.b64decode(client.expect(event="samples")["data"])
            guest.answer(number)
    assert pitch(heard) == pytest.approx(PITCH, rel=0.05)


def pitch(heard: bytes) -> float:
    """How often a second the left channel crosses zero upwards, where it is not silent."""
    left = array.array("h", heard[: len(heard) // 4 * 4])[::2]
    loud = [at for at, value in enumerate(left) if abs(value) > 3000]
    part = left[loud[0] : loud[-1]]
    crossings = sum(1 for at in range(1, len(part)) if part[at - 1] < 0 <= part[at])
    return crossings * RATE / len(part)


# ---- the window ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["qxl", "virtio"])
def test_the_guests_resolution_follows_the_window(user: Home, initrd: Path, model: str) -> None:
    said = f'{SPICE}[video]\nmodel = "{model}"\n'
    with screen(1152, 864) as desk, Guest(user, initrd, said, name=model) as guest:
        guest.boot()
        guest.run("load-more")
        wait_for(guest, "ls /sys/class/drm/card0-Virtual-1/modes", "the graphics driver")
        guest.run("start-desktop")
        with SpiceClient() as client:
            client.open(address(guest))
            client.expect(event="agent", connected=True)
            for width, height in ((1280, 1024), (1024, 600)):
                client.ask("resize", width=width, height=height)
                sees(guest, width, height)
        guest.qlaunch("display", "resize", "1400x900")
        sees(guest, 1400, 900)
        # What spicec called --full-screen=auto-conf.
        viewer = subprocess.Popen(
            [*PROGRAM, "view", guest.name, "--fullscreen"],
            env={**desk.environment, **user.environment}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            sees(guest, 1152, 864)
        finally:
            viewer.terminate()
            viewer.wait(LIMIT)


def sees(guest: Guest, width: int, height: int) -> None:
    """Wait until the guest's graphics driver wants a screen of that size."""
    modes = "/sys/class/drm/card0-Virtual-1/modes"
    wait_for(guest, f"head -n1 {modes} | grep -q {width}x{height}", f"{width}x{height}")


# ---- a shared folder ----------------------------------------------------------------------------


def test_a_folder_of_the_client_is_read_by_webdav(user: Home, guest_initrd: Path) -> None:
    """The guest says with a shell what spice-webdavd says: HTTP, in frames, on a channel."""
    folder = user.place / "shared"
    folder.mkdir()
    (folder / "word.txt").write_text("from the client's desk", encoding="utf-8")
    with Guest(user, guest_initrd, SPICE + "folder_sharing = true\n", name="dav") as guest:
        guest.boot()
        with SpiceClient() as client:
            client.open(address(guest), shared_dir=str(folder))
            question = "GET /word.txt HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
            size = len(question.encode().decode("unicode_escape"))
            frame = f"\\001\\0\\0\\0\\0\\0\\0\\0\\{size:03o}\\0{question}"
            guest.run(
                "for port in /sys/class/virtio-ports/*; do"
                " ! grep -q webdav $port/name || ln -sf /dev/${port##*/} /dev/webdav; done;"
                " exec 3<>/dev/webdav; (cat <&3 >/tmp/answer &)"
            )
            end = time.monotonic() + LIMIT
            while "from the client's desk" not in guest.run("cat /tmp/answer"):
                guest.run(f"printf '{frame}' >&3")
                assert time.monotonic() < end
