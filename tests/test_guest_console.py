"""The serial console and the keyboard of a guest with a shell on both."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qlaunch.control import words
from tests.definitions import PROGRAM
from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

ESCAPE = b"\x1d"
MIB = 1 << 20


@pytest.fixture(scope="module")
def guest(shared_cache: Path, guest_initrd: Path) -> Iterator[Guest]:
    with home(shared_cache) as user, Guest(user, guest_initrd, words="bare=1") as machine:
        machine.boot("video.model=std")
        yield machine


class Terminal:
    """A person's terminal with `qlaunch console` on it."""

    def __init__(self, guest: Guest) -> None:
        self.outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [*PROGRAM, "console", guest.name],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=guest.home.environment,
        )
        os.close(inner)
        self.shown = b""

    def type(self, text: bytes) -> None:
        os.write(self.outer, text)

    def expect(self, pattern: bytes) -> re.Match[bytes]:
        until = time.monotonic() + LIMIT
        while not (found := re.search(pattern, self.shown)):
            ready = select.select([self.outer], [], [], max(0.0, until - time.monotonic()))[0]
            assert ready, f"{pattern!r} was not shown in time, but {self.shown[-500:]!r}"
            self.shown += os.read(self.outer, 1 << 16)
        self.shown = self.shown[found.end() :]
        return found


@contextmanager
def terminal(guest: Guest) -> Iterator[Terminal]:
    opened = Terminal(guest)
    try:
        opened.expect(b"leave with Ctrl-]")
        yield opened
        opened.type(ESCAPE)
        opened.expect(b"left serial0 of guest")
        assert opened.process.wait(LIMIT) == 0
    finally:
        opened.process.kill()
        opened.process.wait(LIMIT)
        os.close(opened.outer)


# ---- the console --------------------------------------------------------------------------------


def test_a_person_works_in_the_shell_leaves_and_comes_back_to_what_was_said(guest: Guest) -> None:
    with terminal(guest) as tty:
        tty.expect(rb"guest# ")
        tty.type(b"echo first-$((40 + 2))\r")
        tty.expect(rb"first-42\r\n")
        tty.type(b"note=kept\r")
        tty.expect(rb"guest# ")
    guest.run("echo said meanwhile >/dev/ttyS0")
    with terminal(guest) as tty:
        tty.expect(rb"first-42\r\n(?s:.*)said meanwhile\r\n")
        tty.type(b"\recho $note-$((40 + 3))\r")  # the same shell
        tty.expect(rb"kept-43\r\n")


def test_control_c_is_the_guests(guest: Guest) -> None:
    with terminal(guest) as tty:
        tty.expect(rb"guest# ")
        # Told by the one that is then ended, so that it is in the foreground by then.
        tty.type(b"sh -c 'echo begun-$((40 + 6)); exec tail -f /dev/null'\r")
        tty.expect(rb"begun-46\r\n")
        tty.type(b"\x03")
        tty.expect(rb"guest# ")
        tty.type(b"echo after-$((40 + 4))\r")
        tty.expect(rb"after-44\r\n")


def test_much_output_is_all_in_the_log_while_nobody_looks(guest: Guest) -> None:
    """More than the log's limit, so that it is turned over on the way."""
    lines = 18_000
    text = "s/.*/line & of the long answer that comes while nobody looks/"
    guest.run(f"seq -w 1 {lines} | sed '{text}' >/dev/ttyS0", LIMIT * 3)
    guest.run("echo the end >/dev/ttyS0")
    said = console_log(guest)
    found = [int(number) for number in re.findall(rb"line (\d{5}) of", said)]
    assert len(said) > MIB
    assert found == list(range(1, lines + 1))


def console_log(guest: Guest) -> bytes:
    """The log with the one before it, once the last words are in it."""
    log = Path(guest.status()["serials"][0]["log"])
    until = time.monotonic() + LIMIT
    said = b""
    while b"the end\r\n" not in said:
        assert time.monotonic() < until
        older = log.with_name(f"{log.name}.1")
        said = (older.read_bytes() if older.exists() else b"") + log.read_bytes()
    return said


def test_a_client_that_does_not_read_stalls_neither_the_guest_nor_others(guest: Guest) -> None:
    with socket.socket(socket.AF_UNIX) as stalled:
        stalled.settimeout(LIMIT)
        stalled.connect(f"{guest.home.environment['XDG_RUNTIME_DIR']}/qlaunch/control.sock")
        stalled.sendall(words.request("console", {"name": guest.name, "serial": "serial0"}))
        stalled.recv(64)  # it is served; from now on it reads nothing
        guest.run("head -c 2000000 /dev/zero | tr '\\0' x >/dev/ttyS0", LIMIT * 3)
        assert guest.run("echo still here") == "still here"
        assert guest.state() == "running"


# ---- the keyboard -------------------------------------------------------------------------------


def test_typed_text_and_keys_reach_the_shell_on_the_screen(guest: Guest) -> None:
    guest.qlaunch("type", 'echo "It\'s {typed} & SENT?" >/tmp/typed', "--enter")
    guest.run("until [ -s /tmp/typed ]; do :; done")
    assert guest.run("cat /tmp/typed") == "It's {typed} & SENT?"
    guest.qlaunch(
        "send-key", *"echo", "spc", "k", "shift-dot", "slash", *"tmp", "slash", "x", "ret"
    )
    guest.run("until [ -s /tmp/x ]; do :; done")
    assert guest.run("cat /tmp/x") == "k"


def test_the_screen_is_shown_by_a_screenshot(guest: Guest) -> None:
    shot = guest.home.place / "screen.png"
    guest.qlaunch("screenshot", shot)
    assert shot.read_bytes().startswith(b"\x89PNG")
