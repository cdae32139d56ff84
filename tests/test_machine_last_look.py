"""What is shown of a guest that does not power off."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlaunch.errors import TimedOutError
from qlaunch.machine.last_look import text_of
from tests.rig import Rig


def test_a_dump_of_the_screens_memory_is_read_as_text() -> None:
    row = "".join(f" 0x07{ord(letter):02x}" for letter in "Hi \N{LATIN SMALL LETTER A}".ljust(80))
    blank = " 0x0720 0x0700" * 40
    lines = [f"00000000000b8000:{blank}", f"00000000000b80a0:{row}", f"00000000000b8140:{blank}"]
    assert text_of("\r\n".join(lines)) == ("Hi a",)
    assert text_of("") == ()
    assert text_of("nonsense") == ()


@pytest.mark.qemu
def test_a_stop_that_takes_too_long_shows_the_screen(rig: Rig) -> None:
    rig.up()
    rig.ready()
    rig.ask("hmp", name="demo", line="o /w 0x602 0")  # the guest hears no power button
    with pytest.raises(TimedOutError) as caught:
        rig.ask("down", name="demo", timeout=0.5)
    told = caught.value
    assert "did not power off within 0 s" in told.message
    assert "still runs; its screen shows:\n  | " in told.message
    assert "qlaunch demo" in told.message
    assert told.hint is not None
    picture = Path(told.hint.removeprefix("its screen is in ").partition(": ")[0])
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.qemu
def test_without_a_screen_the_serial_port_is_shown(rig: Rig) -> None:
    rig.up("demo", "video.model=none")
    rig.ready()
    rig.ask("hmp", name="demo", line="o /w 0x602 0")
    with pytest.raises(TimedOutError) as caught:
        rig.ask("down", name="demo", timeout=0.5)
    assert "its serial port shows:" in caught.value.message
    assert "  | READY" in caught.value.message
    assert str(caught.value.hint).startswith("look at it: ")
