"""`boot.once`: an installer starts first and never again. A boot sector plays the installer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.guest.machine import Home, Line

pytestmark = pytest.mark.qemu

# Says I on the first serial port and resets the computer, as an installer does at its end.
SECTOR = bytes.fromhex("baf803b049eebaf90cb006eef4ebfd").ljust(510, b"\0") + b"\x55\xaa"
PROFILE = """\
schema = 1
guest = "other"

[machine]
type = "pc"
accel = "tcg"

[memory]
size = "32MiB"

[boot]
once = "installer"

[[disk]]
id = "disk0"
bus = "ide"
template = "@demo"
size = "1MiB"

[[disk]]
id = "installer"
bus = "virtio"
path = "installer.img"
format = "raw"

[[serial]]
id = "serial0"
"""


@contextmanager
def started(user: Home, *settings: str) -> Iterator[Line]:
    """The machine from its start to its end, and what it says on the serial port."""
    done = user.qlaunch("up", user.place / "box.toml", *settings)
    assert done.status == 0, done.err
    line = Line(user, "console", "box")
    try:
        yield line
    finally:
        line.close()
        assert user.qlaunch("kill", "box").status == 0


@pytest.fixture
def user(guest_home: Home) -> Home:
    (guest_home.place / "installer.img").write_bytes(SECTOR.ljust(1 << 20, b"\0"))
    (guest_home.place / "box.toml").write_text(PROFILE, encoding="utf-8")
    return guest_home


def test_the_installer_starts_once_and_after_its_restart_the_disk(user: Home) -> None:
    with started(user) as line:
        line.expect(r"^I")
        line.expect(r"boots=1 (?s:.*)READY")
    with started(user) as line:
        line.expect(r"^[^I](?s:.*)boots=2 (?s:.*)READY")


def test_said_for_one_start_it_counts_again(user: Home) -> None:
    for _ in range(2):
        with started(user, "--set", "boot.once=installer") as line:
            line.expect("^I(?s:.*)READY")
