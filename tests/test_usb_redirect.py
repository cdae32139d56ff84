"""A USB device brought to a machine without SPICE: by `usbredirect`, out of another machine that
stands for a computer with a stick in it."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlaunch.control import client
from qlaunch.errors import RefusedError
from tests.definitions import PROGRAM
from tests.guest.image import extended
from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, Home, home
from tests.prerequisites import require
from tests.rig import Rig, until, write_profile
from tests.test_disk_plug import devices
from tests.test_usb import TEXT, noted
from tests.test_usb_guest import wait_for

EHCI = '[usb]\ncontroller = "ich9-ehci1"\n'


@pytest.fixture(scope="module")
def user(shared_cache: Path) -> Iterator[Home]:
    with home(shared_cache) as made:
        yield made


@contextlib.contextmanager
def desk(user: Home, initrd: Path) -> Iterator[Guest]:
    """A computer with a stick, and a network by which it reaches us."""
    stick = user.place / "stick.img"
    stick.write_bytes(b"from another desk".ljust(1 << 20, b"\0"))
    said = EHCI + (
        '[[disk]]\nid = "stick"\nbus = "usb"\nformat = "raw"\n'
        f'path = "{stick}"\n[[nic]]\nid = "net0"\n'
    )
    with extended(initrd, "usbredirect") as image:
        with Guest(user, image, said, name="desk", words="net=1") as made:
            made.boot()
            yield made


@pytest.mark.guest
@pytest.mark.spice
@pytest.mark.timeout(TEST_LIMIT)
def test_a_device_of_another_computer_is_read_and_leaves_when_it_hangs_up(
    user: Home, guest_initrd: Path
) -> None:
    with desk(user, guest_initrd) as other, Guest(user, guest_initrd, EHCI) as guest:
        guest.boot()
        wait_for(other, "test -b /dev/sda", "its stick")
        process = user.start("usb", "redirect", "guest", "--listen", "127.0.0.1:0")
        try:
            said = process.stdout.readline().decode() if process.stdout else ""
            found = re.search(r"waits at 127\.0\.0\.1:(\d+)", said)
            assert found, said
            address = f"10.0.2.2:{found[1]}"
            other.run(f"usbredirect --device 46f4:0001 --to {address} >/tmp/log 2>&1 & sleep 0")
            wait_for(guest, "test -b /dev/sda", "the stick")
            assert guest.run("head -c 17 /dev/sda") == "from another desk"
            assert other.ask("test -b /dev/sda")[0] != 0
            other.run("killall usbredirect")
            assert process.wait(LIMIT) == 0
            wait_for(guest, "test ! -b /dev/sda", "that the stick is gone")
            wait_for(other, "test -b /dev/sda", "that the stick is back")
        finally:
            process.terminate()
            process.wait(LIMIT)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@pytest.mark.qemu
def test_a_connection_takes_its_slot_away_when_it_ends(rig: Rig) -> None:
    write_profile("demo", text=TEXT)
    rig.up()
    before = devices(rig)
    held: list[client.Connection] = []
    for number in range(1, 4):  # a disk-less machine with two slots has four ports left
        connection = rig.connect("demo")
        told = connection.ask("usb-redirect", {"name": "demo"})
        assert told["id"] == f"remote{number}"
        hello = connection.rest()
        while len(hello) < 80:
            hello += connection.socket.recv(80)
        assert b"qemu usb-redir guest" in hello
        held.append(connection)
    assert devices(rig) == before | {"remote1", "remote2", "remote3"}
    held.pop(1).socket.close()
    until(lambda: devices(rig) == before | {"remote1", "remote3"}, "the slot to go")
    rig.ask("usb-attach", name="demo", device="0951:1666")
    with pytest.raises(RefusedError, match="all ports"):
        rig.ask("usb-slots", name="demo", count=6)
    for each in held:
        each.socket.close()
    until(lambda: not noted(), "the others to go")


@pytest.mark.qemu
@pytest.mark.fault
def test_a_slot_of_a_connection_does_not_outlive_its_supervisor(rig: Rig) -> None:
    write_profile("demo", text=TEXT)
    rig.up()
    before = devices(rig)
    with rig.connect("demo") as connection:
        connection.ask("usb-redirect", {"name": "demo"})
        rig.kill_supervisor()
    rig.row()
    until(lambda: devices(rig) == before, "the slot to go")
    until(lambda: not noted(), "the note to go")
    rig.ask("usb-slots", name="demo", count=1, more=True)


@pytest.mark.qemu
def test_the_command_says_what_is_missing(rig: Rig) -> None:
    require("spice", Path("/usr/bin/usbredirect").exists(), "usbredirect is not installed")
    write_profile("demo", text=TEXT)
    rig.up()

    def said(*words: str) -> str:
        done = subprocess.run(
            [*PROGRAM, "usb", "redirect", *words], check=False, capture_output=True, text=True
        )
        assert done.returncode != 0
        return done.stderr

    assert "which device?" in said("demo")
    assert "there is no USB device 0951:1666 here" in said("demo", "0951:1666")
    assert "no address and port" in said("demo", "--listen", "here")
    assert "nowhere" in said("nowhere", "--listen", "127.0.0.1:0")
