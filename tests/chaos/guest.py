"""Talks to the guest that writes numbered blocks. What it says is read from the port's log."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from attrs import define, field

from qlaunch.control import client
from qlaunch.demo.build import assemble
from qlaunch.errors import QlaunchError
from qlaunch.store import machines
from tests.chaos.content import SLOTS, Block, Disk, Dump

SOURCE = Path(__file__).with_name("blocks.S")
NAME = "demo"
IMAGE_SIZE = 4 << 20
PATIENCE = 60.0
AGAIN = 3.0
_POLL = 0.02
_LINE = re.compile(rb"^([A-Z])((?:[0-9a-f]{8})+)\r\n", re.MULTILINE)

PROFILE = """schema = 1
guest = "other"
[machine]
type = "pc"
accel = "tcg"
smm = false
[cpu]
model = "qemu64"
[memory]
size = "16MiB"
balloon = false
[video]
model = "std"
[usb]
controller = "ich9-ehci1"
[[disk]]
id = "disk0"
bus = "ide"
template = "{image}"
size = "4MiB"
[[disk]]
id = "disk1"
bus = "ide"
size = "4MiB"
[[cdrom]]
id = "cd0"
bus = "ide"
[[serial]]
id = "serial0"
"""


def write_image(path: Path) -> None:
    """The first disk, before the first boot."""
    path.write_bytes(assemble(SOURCE).ljust(IMAGE_SIZE, b"\0"))


@define
class Line:
    """A line whose sum was right."""

    letter: str
    words: list[int]


@define
class Blocks:
    """The guest of the machine `NAME`; `lines` are those that nobody has taken yet."""

    position: int = 0
    rest: bytes = b""
    lines: list[Line] = field(factory=list)

    def read(self) -> None:
        """Take in what the guest has said since."""
        path = Path(machines.console_log_path(NAME, "serial0"))
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            if size < self.position:  # rotated, or lost in a power cut
                self.position, self.rest = 0, b""
            with path.open("rb") as file:
                file.seek(self.position)
                data = file.read()
            self.position += len(data)
            text = self.rest + data
            end = text.rfind(b"\n") + 1
            self.rest = text[end:]
            self.lines += [line for each in _LINE.finditer(text[:end]) if (line := _parsed(each))]

    def forget(self) -> None:
        """Skip what was said until now."""
        self.read()
        self.lines.clear()

    def await_line(self, letter: str, seconds: float = PATIENCE) -> Line | None:
        """The next line with that letter; those before it stay for others."""
        until = time.monotonic() + seconds
        while True:
            self.read()
            for line in self.lines:
                if line.letter == letter:
                    self.lines.remove(line)
                    return line
            if time.monotonic() > until:
                return None
            time.sleep(_POLL)

    def ask(self, text: str, letter: str, seconds: float = PATIENCE) -> Line:
        """Type `text` and wait for the line with `letter`; typed again when nothing comes.

        Raises: AssertionError.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.lines = [line for line in self.lines if line.letter != letter]
            self.type(text)
            if found := self.await_line(letter, AGAIN):
                return found
        raise AssertionError(f"the guest does not answer to {text!r} within {seconds:g} s")

    def turn(self, epoch: int) -> Line:
        """Give the guest another epoch. Returns: its line, with the number that it has come to."""
        while (line := self.ask(f"e{epoch:04x}", "E")).words[0] != epoch:
            continue
        return line

    def type(self, text: str) -> None:
        """Type into the serial port; what does not arrive is typed again by who waits."""
        with contextlib.suppress(QlaunchError, OSError):
            with client.open_connection(name=NAME) as connection:
                connection.socket.settimeout(PATIENCE)
                connection.ask("console", {"name": NAME})
                connection.socket.sendall(text.encode())
                # Hung up on too early, a console does not get what was typed.
                connection.socket.settimeout(0.3)
                connection.socket.recv(1)

    def dump(self) -> tuple[Dump, Line]:
        """Both disks as the guest reads them, and the line at the end of it."""
        for _ in range(3):
            self.lines = [line for line in self.lines if line.letter != "D"]
            end = self.ask("v", "V")
            found = {line.words[0]: line.words[1:] for line in self.lines if line.letter == "D"}
            self.lines = [line for line in self.lines if line.letter != "D"]
            if len(found) == SLOTS:
                return _dump(found), end
        raise AssertionError("the guest's dump never came whole")


def _parsed(match: re.Match[bytes]) -> Line | None:
    words = [int(match[2][at : at + 8], 16) for at in range(0, len(match[2]), 8)]
    *words, check = words
    if (sum(words) ^ 0xFFFFFFFF) & 0xFFFFFFFF != check:
        return None
    return Line(match[1].decode(), words)


def _dump(found: dict[int, list[int]]) -> Dump:
    def column(at: int) -> Disk:
        blocks: list[Block] = [(found[slot][at], found[slot][at + 1]) for slot in range(SLOTS)]
        return tuple(blocks)

    return Dump((column(0), column(2)), (column(4), column(6)))
