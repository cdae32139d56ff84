"""What a guest shows that does not power off: its screen as text, as a picture, its serial port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re

from attrs import frozen

from qlaunch.errors import QlaunchError
from qlaunch.machine.machine import Machine
from qlaunch.machine.screen import screenshot
from qlaunch.store import files

# A picture of 80 columns and 25 rows in VGA's text mode, whose memory is there.
TEXT_MODE = (720, 400)
COLUMNS, ROWS = 80, 25
_DUMP = f"xp /{COLUMNS * ROWS}xh 0xb8000"
_WORDS = re.compile(r"0x([0-9a-f]{4})\b")
MONITOR_TIMEOUT = 5.0
LOOK_TIMEOUT = 10.0
SERIAL_LINES = 8
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[()].|.)")


@frozen(kw_only=True)
class Look:
    """What was seen: lines of the screen or, where it has no text, of the serial port; and where
    the picture of the screen is."""

    lines: tuple[str, ...] = ()
    of: str = "screen"
    picture: str | None = None


async def look(machine: Machine) -> Look:
    """What the guest shows now; what cannot be seen, or not soon, is left out."""
    picture, lines = None, tuple[str, ...]()
    if await machine.run_state() != "unresponsive":
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_TIMEOUT):
                picture, size = await _picture(machine)
                lines = await _text(machine) if size == TEXT_MODE else ()
    if lines:
        return Look(lines=lines, picture=picture)
    return Look(lines=_serial(machine), of="serial port", picture=picture)


async def _picture(machine: Machine) -> tuple[str | None, tuple[int, int]]:
    path = os.path.join(machine.plan.places.state, "screen.png")
    try:
        data = await screenshot(machine.talk(), "png")
        files.write_bytes(path, data, lasting=False)
    except QlaunchError:
        return None, (0, 0)
    return path, (int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))


async def _text(machine: Machine) -> tuple[str, ...]:
    arguments = {"command-line": _DUMP}
    try:
        said = await machine.talk().execute(
            "human-monitor-command", arguments, timeout=MONITOR_TIMEOUT
        )
    except QlaunchError:
        return ()
    return text_of(str(said))


def text_of(dump: str) -> tuple[str, ...]:
    """The lines of the screen in a dump of its memory: a letter and its colour in two bytes."""
    letters = bytes(int(word, 16) & 0xFF for word in _WORDS.findall(dump))
    # Code page 437 has letters for these, but in memory they are mostly nothing at all.
    shown = "".join(letter if letter.isprintable() else " " for letter in letters.decode("cp437"))
    rows = [shown[at : at + COLUMNS].rstrip() for at in range(0, len(shown), COLUMNS)]
    return _without_blank_ends(rows)


def _serial(machine: Machine) -> tuple[str, ...]:
    console = next(iter(machine.consoles.values()), None)
    if console is None:
        return ()
    text = _ESCAPES.sub("", console.backlog.decode(errors="replace"))
    rows = [
        "".join(letter for letter in line if letter.isprintable()).rstrip()
        for line in text.splitlines()
    ]
    return _without_blank_ends(rows)[-SERIAL_LINES:]


def _without_blank_ends(rows: list[str]) -> tuple[str, ...]:
    filled = [at for at, row in enumerate(rows) if row]
    return tuple(rows[filled[0] : filled[-1] + 1]) if filled else ()
