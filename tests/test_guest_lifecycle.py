"""What becomes of a machine whose guest restarts, panics or hangs: the profile's policies."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.guest.machine import TEST_LIMIT, Guest, Home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

PANIC = "echo c >/proc/sysrq-trigger"
BOARD = 'watchdog = "i6300esb"\nwatchdog_action = "reset"\n'
POLICIES = """\
[lifecycle]
on_reboot = "{0}"
on_crash = "{0}"
"""


def how_it_ended(guest: Guest) -> str:
    """What `ps -a` says of a machine's last end."""
    guest.home.qlaunch("wait", guest.name, "--timeout", "60s")
    listed = json.loads(guest.home.qlaunch("ps", "--all", "--json").out)["machines"]
    (row,) = [row for row in listed if row["name"] == guest.name]
    assert row["state"] == "stopped"
    return str(row)


def test_with_restart_the_guest_comes_back_in_the_same_process(
    guest_home: Home, guest_initrd: Path
) -> None:
    said = POLICIES.format("restart")
    with Guest(guest_home, guest_initrd, said, machine=BOARD, words="bare=1") as guest:
        boots = [guest.boot()]
        process = guest.status()["pid"]
        guest.tell("reboot -f")
        boots.append(guest.ready())
        guest.tell(PANIC)
        boots.append(guest.ready())
        # Opened, never fed: the shortest time that the driver takes.
        guest.tell("watchdog -F -t 600 -T 2 /dev/watchdog")
        boots.append(guest.ready())
        assert len(set(boots)) == len(boots)
        assert (guest.state(), guest.status()["pid"]) == ("running", process)
        log = guest.qlaunch("logs").out
        assert "the guest panicked" in log
        assert "WATCHDOG" in log


def test_with_destroy_a_restart_ends_the_machine(guest_home: Home, guest_initrd: Path) -> None:
    with Guest(guest_home, guest_initrd, POLICIES.format("destroy"), words="bare=1") as guest:
        guest.boot()
        guest.tell("reboot -f")
        assert "guest-reset" in how_it_ended(guest)


def test_with_destroy_a_panic_ends_the_machine(guest_home: Home, guest_initrd: Path) -> None:
    with Guest(guest_home, guest_initrd, POLICIES.format("destroy"), words="bare=1") as guest:
        guest.boot()
        guest.tell(PANIC)
        assert "panic" in how_it_ended(guest)


def test_with_dump_the_memory_of_a_guest_that_panicked_is_kept(
    guest_home: Home, guest_initrd: Path
) -> None:
    said = '[lifecycle]\non_crash = "dump"\n'
    with Guest(guest_home, guest_initrd, said, words="bare=1") as guest:
        guest.boot()
        guest.tell(PANIC)
        assert "panic" in how_it_ended(guest)
        said_where = re.search(r"the guest's memory is in (\S+)", guest.qlaunch("logs").out)
        assert said_where
        with open(said_where[1], "rb") as dump:
            assert dump.read(8) in (b"KDUMP   ", b"makedump")


def test_with_preserve_the_guest_is_kept_as_it_is_until_it_is_reset(
    guest_home: Home, guest_initrd: Path
) -> None:
    with Guest(guest_home, guest_initrd, POLICIES.format("preserve"), words="bare=1") as guest:
        boot = guest.boot()
        guest.tell("reboot -f")
        guest.await_log("the machine shut down: guest-reset")
        guest.await_state("shutdown")
        guest.qlaunch("reset")
        assert guest.ready() != boot
        guest.tell(PANIC)
        guest.await_log("the guest panicked")
        guest.await_state("guest-panicked")
        assert guest.status()["pid"]
        guest.qlaunch("down")
        assert guest.state() == "stopped"


def test_a_clock_that_the_guest_has_set_stays_so(guest_home: Home, guest_initrd: Path) -> None:
    with Guest(guest_home, guest_initrd, words="bare=1") as guest:
        guest.boot()
        for wanted in (7200, 3600):  # the second from a clock that was moved before
            guest.run(f"date -s @$(($(date +%s) - {ahead(guest)} + {wanted}))")
            guest.run("busybox hwclock -w -u")
            near = "|".join(str(abs(wanted + off)) for off in (-2, -1, 0, 1, 2))
            guest.await_log(rf"the guest has set its clock: [+-]({near}) s")
            guest.qlaunch("kill")
            guest.boot()
            assert abs(ahead(guest) - wanted) < SLACK


# A guest under TCG takes long to boot, and reads the clock at its beginning.
SLACK = 60


def ahead(guest: Guest) -> int:
    """By how many seconds the guest's hardware clock is before ours."""
    return round(int(guest.run("cat /sys/class/rtc/rtc0/since_epoch")) - time.time())
