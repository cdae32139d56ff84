"""`qlaunch view` with a real remote-viewer on a real screen, which is looked at."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import PATIENCE, PROFILE, Rig, until, write_profile
from tests.spice.screen import Picture, Screen, of_ppm, screen

pytestmark = [pytest.mark.qemu, pytest.mark.spice]

TEXT = PROFILE.replace('controller = "none"', 'controller = "ich9-ehci1"\nredirect = 2') + (
    "[display]\nspice = true\nfolder_sharing = true\n[[channel]]\nid = 'vdagent0'\n"
)


@pytest.fixture(scope="module")
def desk() -> Iterator[Screen]:
    with screen() as made:
        yield made


@pytest.fixture(scope="module")
def small() -> Iterator[Screen]:
    """A screen that the guest's text mode fills."""
    with screen(720, 400) as made:
        yield made


@contextlib.contextmanager
def viewing(desk: Screen, *words: str, verb: str = "view") -> Iterator[subprocess.Popen[bytes]]:
    """The command, which becomes the viewer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qlaunch", verb, *words], env=desk.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def channels(rig: Rig) -> set[str]:
    """What the viewers are connected to."""
    found = rig.ask("display-clients", name="demo")["clients"]
    return {channel for each in found for channel in each["channels"]}


def until_there(rig: Rig, *wanted: str) -> set[str]:
    until(lambda: channels(rig) >= {"main", "display", *wanted}, "the viewer")
    return channels(rig)


def guests_picture(rig: Rig) -> Picture:
    data = rig.ask("screenshot", name="demo", format="ppm")["data"]
    return of_ppm(base64.b64decode(data))


def shows(rig: Rig, desk: Screen) -> tuple[int, int]:
    """Wait until the whole of the guest's picture is on the screen; where it is."""
    places: list[tuple[int, int]] = []

    def is_there(seen: Picture) -> bool:
        place = seen.place_of(guests_picture(rig))
        places.extend([place] if place else [])
        return place is not None

    desk.until(is_there, "the guest's picture")
    return places[-1]


@pytest.fixture
def here(rig: Rig) -> Rig:
    write_profile("demo", text=TEXT)
    rig.up()
    rig.ready()
    return rig


def test_the_guest_is_seen_in_a_window(here: Rig, desk: Screen) -> None:
    with viewing(desk, "demo") as viewer:
        until_there(here)
        _left, top = shows(here, desk)
        assert top > 0  # there is a title bar or a menu above
        words = Path(f"/proc/{viewer.pid}/cmdline").read_bytes().split(b"\0")
        assert words[0] == b"remote-viewer"
        assert not [word for word in words if b"spice.sock" in word]
    until(lambda: not channels(here), "the viewer's end")
    assert here.row()["state"] == "running"


def test_in_full_screen_there_is_nothing_else(here: Rig, small: Screen) -> None:
    with viewing(small, "demo", "--fullscreen"):
        until_there(here)
        assert shows(here, small) == (0, 0)


def test_a_kiosk_ends_with_its_machine(here: Rig, small: Screen) -> None:
    with viewing(small, "demo", "--kiosk") as viewer:
        until_there(here)
        assert shows(here, small) == (0, 0)
        here.kill()
        assert viewer.wait(PATIENCE) == 0


@pytest.mark.parametrize("usb", ["auto", "ask", "off"])
def test_usb_is_offered_or_not(here: Rig, desk: Screen, usb: str) -> None:
    with viewing(desk, "demo", "--usb", usb):
        found = until_there(here, "inputs", *([] if usb == "off" else ["usbredir"]))
        assert ("usbredir" in found) == (usb != "off")


def test_a_folder_is_shared_by_the_viewer(here: Rig, desk: Screen, own_place: Path) -> None:
    with viewing(desk, "demo", "--share", str(own_place)) as viewer:
        until_there(here)
        words = Path(f"/proc/{viewer.pid}/cmdline").read_bytes().split(b"\0")
        assert f"--spice-shared-dir={own_place}".encode() in words


def test_up_opens_the_view(rig: Rig, desk: Screen) -> None:
    write_profile("demo", text=TEXT)
    with viewing(desk, "demo", "--view", verb="up"):
        until(lambda: rig.row().get("state") == "running", "the machine")
        until_there(rig)
        shows(rig, desk)


def test_the_profile_says_how_to_view(rig: Rig, small: Screen) -> None:
    write_profile("demo", text=TEXT + '[view]\nkiosk = true\nusb = "off"\n')
    rig.up()
    rig.ready()
    with viewing(small, "demo") as viewer:
        assert "usbredir" not in until_there(rig, "inputs")
        assert shows(rig, small) == (0, 0)
        rig.kill()
        assert viewer.wait(PATIENCE) == 0


def test_a_second_viewer_takes_the_place_of_the_first(here: Rig, desk: Screen) -> None:
    with viewing(desk, "demo", "--kiosk") as first:
        until_there(here)
        with viewing(desk, "demo"):
            assert first.wait(PATIENCE) == 0
            until_there(here)
