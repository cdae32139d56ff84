"""A screen for viewers: an X server that shows nothing, with a window manager, whose pixels can be
looked at."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

PATIENCE = 30.0
_POLL = 0.05


@frozen
class Picture:
    """Rows of pixels, three bytes each."""

    width: int
    height: int
    rows: tuple[bytes, ...]

    def place_of(self, other: Picture) -> tuple[int, int] | None:
        """Where `other` is in this picture, pixel for pixel; None where it is not."""
        # A row with much in it is found in few places only.
        at = max(range(other.height), key=lambda number: len(set(other.rows[number])))
        wanted = other.rows[at]
        for top in range(self.height - other.height + 1):
            left = self.rows[top + at].find(wanted)
            while left >= 0:
                if left % 3 == 0 and self._is_there(other, left, top):
                    return left // 3, top
                left = self.rows[top + at].find(wanted, left + 1)
        return None

    def _is_there(self, other: Picture, left: int, top: int) -> bool:
        return all(
            self.rows[top + number].startswith(row, left) for number, row in enumerate(other.rows)
        )


def of_ppm(data: bytes) -> Picture:
    """The picture in a PPM file, as `qlaunch screenshot` writes it."""
    _magic, width, height, _most, pixels = data.split(maxsplit=4)
    pixels = data[-int(width) * int(height) * 3 :]
    return _cut(pixels, int(width), int(height))


def _cut(pixels: bytes, width: int, height: int) -> Picture:
    size = width * 3
    return Picture(
        width, height, tuple(pixels[at * size : (at + 1) * size] for at in range(height))
    )


@frozen
class Screen:
    """One X server."""

    display: str
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to show itself there and nowhere else."""
        there = {"DISPLAY": self.display, "NO_AT_BRIDGE": "1", "GSETTINGS_BACKEND": "memory"}
        return {**os.environ, **there, "GDK_BACKEND": "x11"}

    def picture(self) -> Picture:
        """What is on the screen now. The server keeps it as xwd would print it."""
        data = self.file.read_bytes()
        header = struct.unpack(">25I", data[:100])
        size, width, height, stride, colors = (
            header[0], header[4], header[5], header[12], header[19],
        )  # fmt: skip
        start = size + colors * 12
        rows = []
        for number in range(height):
            line = data[start + number * stride : start + number * stride + width * 4]
            row = bytearray(width * 3)
            row[0::3], row[1::3], row[2::3] = line[2::4], line[1::4], line[0::4]
            rows.append(bytes(row))
        return Picture(width, height, tuple(rows))

    def until(self, condition: Callable[[Picture], object], what: str) -> None:
        """Wait until the screen shows what is wanted."""
        deadline = time.monotonic() + PATIENCE
        while not condition(self.picture()):
            assert time.monotonic() < deadline, f"the screen does not show {what}"
            time.sleep(_POLL)


@contextlib.contextmanager
def screen(width: int = 1280, height: int = 1024) -> Iterator[Screen]:
    """A screen of that size, on a display that nobody else has."""
    with tempfile.TemporaryDirectory(prefix="ql-x-", dir="/tmp") as folder:
        told, tell = os.pipe()
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(tell), "-screen", "0", f"{width}x{height}x24",
             "-fbdir", folder, "-nolisten", "tcp", "-noreset", "-nocursor"],
            pass_fds=[tell], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(tell)
        try:
            with os.fdopen(told, "rb") as pipe:
                assert select.select([pipe], [], [], PATIENCE)[0], "Xvfb does not start"
                number = pipe.readline().decode().strip()
            made = Screen(f":{number}", Path(folder, "Xvfb_screen0"))
            with _manager(made):
                yield made
        finally:
            server.terminate()
            server.wait(PATIENCE)


@contextlib.contextmanager
def _manager(made: Screen) -> Iterator[None]:
    """A window manager: without one no window fills the screen."""
    nothing = {**made.environment, "XDG_CONFIG_HOME": str(made.file.parent)}
    process = subprocess.Popen(
        ["openbox"], env=nothing, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        # Without a background of its own the screen keeps the picture of a window that has gone.
        subprocess.run(["xsetroot", "-solid", "black"], env=nothing, check=True)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
