"""The machine's log: QEMU's own output and what qlaunch did, in one time line.

QEMU writes to the same file itself (it outlives the supervisor), each line with its time; ours
have the same form.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime

from attrs import define

from qlaunch.errors import HostError
from qlaunch.store import machines

TAIL = 64 << 10
# systemd 252, and 254 and later.
_SCOPE_WORDS = ("Running scope as unit: ", "Running as unit: ")


@define
class MachineLog:
    """An open log; `fd` is also QEMU's standard output and error."""

    path: str
    fd: int

    @classmethod
    def open(cls, name: str) -> MachineLog:
        """The log of the machine `name`. Raises: HostError when it cannot be written."""
        path = machines.log_path(name)
        return cls(path, machines.open_log(path))

    @classmethod
    def open_if_possible(cls, name: str) -> MachineLog:
        """As `open`, but without a log where there can be none: a machine that runs needs none."""
        try:
            return cls.open(name)
        except HostError:
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            return cls(machines.log_path(name), nowhere)

    def say(self, text: str) -> None:
        """Append a line. A full disk must not stop a machine: the line is then lost."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        line = f"{stamp} qlaunch: {' '.join(text.split())}\n"
        with contextlib.suppress(OSError):
            os.write(self.fd, line.encode(errors="replace"))

    def position(self) -> int:
        return os.fstat(self.fd).st_size

    def qemu_words(self, since: int) -> list[str]:
        """QEMU's own lines written after `since`, without their time stamps."""
        return [_plain(line) for line in self._lines(since) if not line.startswith(_SCOPE_WORDS)]

    def scope_words(self, since: int) -> list[str]:
        """What systemd-run said of the scope it entered, written after `since`."""
        return [line for line in self._lines(since) if line.startswith(_SCOPE_WORDS)]

    def _lines(self, since: int) -> list[str]:
        try:
            with open(self.path, "rb") as file:
                file.seek(max(since, os.fstat(file.fileno()).st_size - TAIL))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if line and " qlaunch: " not in line]

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _plain(line: str) -> str:
    """A line of QEMU without its stamp and without its program's name."""
    first, _, rest = line.partition(" ")
    text = rest if first.endswith("Z") and first[:4].isdigit() else line
    program, colon, message = text.partition(": ")
    return message if colon and "qemu-system" in program else text


def last_words(lines: list[str]) -> str:
    """The line that most likely says why QEMU ended: its last error, not a later warning."""
    errors = [line for line in lines if "warning:" not in line.lower()]
    return (errors or lines or ["it said nothing"])[-1]
