"""The guest's screen and keyboard: screenshots and key strokes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from qlaunch.errors import CommandError, HostError, UsageError
from qlaunch.machine.keys import Chord
from qlaunch.qmp.session import Session

SCREENDUMP_TIMEOUT = 20.0
# A PC's keyboard controller holds 16 bytes: a pause after each stroke lets the guest fetch them.
STROKE_PAUSE = 0.02
LARGEST_SHOT = 256 << 20


async def screenshot(session: Session, image_format: str) -> bytes:
    """The guest's screen as a PNG or PPM file.

    QEMU writes into a memory file that we hand it: its sandbox need not allow it any path.

    Raises: CommandError when the machine has no screen, UsageError for an unknown format.
    """
    if image_format not in ("png", "ppm"):
        raise UsageError(f"{image_format!r} is no format of screenshots", hint="use png or ppm")
    memory = os.memfd_create("qlaunch-screenshot", os.MFD_CLOEXEC)
    try:
        # QEMU asks its descriptor set for one that can only be written.
        writer = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            number = await session.add_fd(writer)
        finally:
            os.close(writer)
        try:
            arguments = {"filename": f"/dev/fdset/{number}", "format": image_format}
            await session.execute("screendump", arguments, timeout=SCREENDUMP_TIMEOUT)
        except CommandError as error:
            raise CommandError(
                f"no screenshot: {error.message}", hint="has the machine a graphics card?"
            ) from error
        finally:
            await session.remove_fd(number)
        size = os.fstat(memory).st_size
        if not 0 < size <= LARGEST_SHOT:
            raise HostError(f"QEMU wrote a screenshot of {size} bytes")
        return os.pread(memory, size, 0)
    finally:
        os.close(memory)


async def press(session: Session, chords: Sequence[Chord], hold: float = 0.0) -> None:
    """Press and release each chord, one after the other; `hold` is how long each is held down."""
    for chord in chords:
        await session.execute(
            "input-send-event", {"events": [_event(key, down=True) for key in chord]}
        )
        if hold:
            await asyncio.sleep(hold)
        await session.execute(
            "input-send-event", {"events": [_event(key, down=False) for key in reversed(chord)]}
        )
        await asyncio.sleep(STROKE_PAUSE)


def _event(key: str, *, down: bool) -> dict[str, object]:
    return {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": key}}}
