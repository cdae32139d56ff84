"""`qlaunch down` and what guests make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.machine import BOOT_LIMIT, TEST_LIMIT, Guest, Home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

TIMED_OUT = 7
NO_AGENT = """\
[[channel]]
id = "agent0"
remove = true
"""


def test_down_asks_the_guest_agent(guest_home: Home, guest_initrd: Path) -> None:
    with Guest(guest_home, guest_initrd, words="bare=1 agent=1") as guest:
        guest.boot()
        assert guest.qlaunch("wait", "--for", "agent", limit=BOOT_LIMIT).out == "agent\n"
        done = guest.qlaunch("down")
        assert "the guest agent was asked to shut down" in done.err
        assert "power button" not in done.err
        assert guest.state() == "stopped"
        log = guest.qlaunch("console", "--log").out
        assert "guest: shutdown -h" in log  # the agent's command, not the button's


def test_the_power_button_is_pressed_until_a_guest_that_still_boots_hears_it(
    guest_home: Home, guest_initrd: Path
) -> None:
    with Guest(guest_home, guest_initrd, NO_AGENT, words="bare=1 button=1") as guest:
        guest.up()
        done = guest.qlaunch("down", limit=BOOT_LIMIT)
        assert "power button pressed (2 times)" in done.err
        assert guest.state() == "stopped"
        assert "guest: shutdown" in guest.qlaunch("console", "--log").out


def test_a_guest_that_does_not_listen_runs_on_until_it_is_forced(
    guest_home: Home, guest_initrd: Path
) -> None:
    # Its agent's port is there, and nobody behind it.
    with Guest(guest_home, guest_initrd, words="bare=1") as guest:
        boot = guest.boot()
        refused = guest_home.qlaunch("down", guest.name, "--timeout", "5s")
        assert refused.status == TIMED_OUT
        assert "did not power off within 5 s and still runs" in refused.err
        assert "power button pressed" in refused.err
        assert guest.state() == "running"
        assert guest.run("cut -c1-8 /proc/sys/kernel/random/boot_id") == boot
        guest.qlaunch("down", "--timeout", "1s", "--force")
        assert guest.state() == "stopped"
