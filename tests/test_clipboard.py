"""Copy and paste with the real SPICE agent: spice-vdagent in the session of a real X server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.definitions import PROGRAM, Done
from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, Home, home
from tests.prerequisites import both_qemus, qemu, qemu10
from tests.spice.client import SpiceClient

pytestmark = [pytest.mark.guest, pytest.mark.spice, pytest.mark.timeout(TEST_LIMIT)]

# Letters of one to four bytes, and two lines.
TEXT = "Zoë: 10 € für 猫 und 🐈\nand a second line"
OTHER = "копия ✂"
SPICE = "[display]\nspice = true\n"
VNC = "[display]\nspice = false\nvnc = true\nfallback = true\n"


@pytest.fixture(scope="module")
def user(shared_cache: Path) -> Iterator[Home]:
    with home(shared_cache) as made:
        yield made


def agent(guest: Guest) -> Mapping[str, Any]:
    found: Mapping[str, Any] = guest.status()["agents"][0]
    return found


def until(guest: Guest, *, connected: bool) -> None:
    end = time.monotonic() + LIMIT
    while agent(guest)["connected"] is not connected:
        assert time.monotonic() < end, guest.run("cat /tmp/*.log")


@contextlib.contextmanager
def desktop(user: Home, initrd: Path, said: str, *settings: str) -> Iterator[Guest]:
    """The guest with a desktop that has begun."""
    with Guest(user, initrd, said, name="desk") as guest:
        guest.boot(*settings)
        guest.run("start-desktop")
        until(guest, connected=True)
        yield guest


@pytest.fixture(scope="module", params=["qemu", "qemu10"])
def spice(request: pytest.FixtureRequest, user: Home, desktop_initrd: Path) -> Iterator[Guest]:
    emulator = qemu10() if request.param == "qemu10" else qemu()
    if emulator is None:
        pytest.skip("[qemu] QEMU 10 is not there")
    with desktop(user, desktop_initrd, SPICE, f'machine.emulator="{emulator}"') as made:
        yield made


def copy(guest: Guest, text: str) -> None:
    """Copy in the guest, as a program with a window does."""
    quoted = "".join(f"\\{byte:03o}" for byte in text.encode())
    guest.run(f"printf '{quoted}' | DISPLAY=:0 xclip -selection clipboard -in >/dev/null 2>&1")


def pasted(guest: Guest) -> str:
    """What a paste in the guest brings; nothing where there is nothing."""
    status, said = guest.ask("DISPLAY=:0 xclip -selection clipboard -out -target UTF8_STRING")
    return said if status == 0 else ""


def eventually(question: Callable[[], str], answer: str) -> None:
    """Wait until what X tells the agent, or the agent X, has come there: a moment later."""
    end, found = time.monotonic() + LIMIT, question()
    while found != answer:
        assert time.monotonic() < end, found
        found = question()


def read(guest: Guest) -> str:
    """What `clipboard get` prints; nothing where there is nothing."""
    done = guest.home.qlaunch("clipboard", "get", guest.name)
    assert done.status in (0, 4), done.err
    return done.out


def give(guest: Guest, text: str, *words: str) -> subprocess.Popen[str]:
    """`clipboard set` with the text on its standard input."""
    process = subprocess.Popen(
        [*guest.home.prefix, *PROGRAM, "clipboard", "set", guest.name, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=guest.home.environment, encoding="utf-8",
    )  # fmt: skip
    assert process.stdin
    process.stdin.write(text)
    process.stdin.close()
    process.stdin = None
    return process


def test_what_the_guest_copies_is_read(spice: Guest) -> None:
    copy(spice, TEXT)
    eventually(lambda: read(spice), TEXT)
    copy(spice, OTHER)
    eventually(lambda: read(spice), OTHER)
    assert spice.qlaunch("clipboard", "get", "--json").json["text"] == OTHER


def test_what_is_given_can_be_pasted_again_and_again(spice: Guest) -> None:
    said = spice.qlaunch("clipboard", "set", TEXT).err
    assert "can be pasted now" in said
    eventually(lambda: pasted(spice), TEXT)
    assert pasted(spice) == TEXT
    # Another text takes the place of the first, and so does what the guest copies.
    spice.qlaunch("clipboard", "set", OTHER)
    eventually(lambda: pasted(spice), OTHER)
    copy(spice, "mine")
    eventually(lambda: read(spice), "mine")


def test_a_text_that_is_given_once_is_waited_for(spice: Guest) -> None:
    process = give(spice, TEXT, "--once")
    eventually(lambda: pasted(spice), TEXT)
    _out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, "was pasted" in err) == (0, True)


def test_a_viewer_has_the_clipboard_of_its_desk(spice: Guest) -> None:
    path = next(uri for uri in spice.status()["display"] if uri.startswith("spice+unix"))
    with SpiceClient() as client:
        client.open(path)
        client.expect(event="agent", connected=True)
        client.ask("offer", text=TEXT)
        eventually(lambda: pasted(spice), TEXT)
        copy(spice, OTHER)
        client.expect(event="grabbed", selection=0)
        client.ask("paste")
        assert client.expect(event="pasted")["text"] == OTHER
        done: Done = spice.home.qlaunch("clipboard", "get", spice.name)
        assert done.status == 5
        assert "a viewer is connected" in done.err


def test_an_agent_that_is_not_there_is_named(spice: Guest) -> None:
    spice.run("killall spice-vdagentd spice-vdagent; true")
    until(spice, connected=False)
    assert agent(spice)["missing"] == "in the guest, the package spice-vdagent"
    done = spice.home.qlaunch("clipboard", "get", spice.name)
    assert done.status == 5
    assert "the SPICE agent, which has the guest's clipboard, is not connected" in done.err
    assert "the package spice-vdagent" in done.err
    spice.run("start-desktop")
    until(spice, connected=True)


@both_qemus
def test_without_spice_qemu_itself_talks_to_the_agent(
    user: Home, desktop_initrd: Path, qemu_binary: str
) -> None:
    with desktop(user, desktop_initrd, VNC, f'machine.emulator="{qemu_binary}"') as guest:
        guest.qlaunch("clipboard", "set", TEXT)
        eventually(lambda: pasted(guest), TEXT)
        assert read(guest) == TEXT
        copy(guest, OTHER)
        eventually(lambda: read(guest), OTHER)


def test_texts_in_the_background_end_with_the_machine(spice: Guest) -> None:
    spice.qlaunch("clipboard", "set", TEXT)
    spice.qlaunch("kill")
    end = time.monotonic() + LIMIT
    while _background(spice.home):
        assert time.monotonic() < end


def _background(user: Home) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            words = Path("/proc", entry, "cmdline").read_bytes()
            environ = Path("/proc", entry, "environ").read_bytes()
            if b"\0clipboard\0" in words and user.test_id.encode() in environ:
                found.append(entry)
    return found
