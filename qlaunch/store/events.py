"""What happened to machines, a JSON line each in `<state>/events`: written by every supervisor,
read by anybody, also while none runs.

    {"time": 1700000000.123, "machine": "xp", "event": "ended", "reason": "guest-shutdown"}

On the thin client's path.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# One that has grown so large becomes `events.1`.
LIMIT = 1 << 20


def path() -> str:
    return os.path.join(paths.state_dir(), "events")


def note(machine: str, event: str, **about: Any) -> None:
    """Write down that something happened. A full disk must not stop a machine: it is lost then."""
    line = {"time": round(time.time(), 3), "machine": machine, "event": event, **about}
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    where = path()
    with contextlib.suppress(OSError):
        try:
            handle = _open(where)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(where), mode=0o700, exist_ok=True)
            handle = _open(where)
        try:
            # In one piece: several supervisors write here.
            os.write(handle, data)
            large = os.fstat(handle).st_size > LIMIT
        finally:
            os.close(handle)
        if large:
            os.replace(where, f"{where}.1")


def _open(where: str) -> int:
    return os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Reader:
    """Reads events from the oldest that is kept on, and again what has come since."""

    def __init__(self) -> None:
        self._inode = 0
        self._at = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The events that were not read yet."""
        where = path()
        for name in (f"{where}.1", where):
            with contextlib.suppress(FileNotFoundError), open(name, "rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if name != where and self._inode not in (0, inode):
                    continue  # what came before was read while it was the newer file
                if inode != self._inode:
                    self._inode, self._at = inode, 0
                yield from self._rest(file)

    def _rest(self, file: Any) -> Iterator[dict[str, Any]]:
        file.seek(self._at)
        for line in file:
            if not line.endswith(b"\n"):
                break  # it is being written
            self._at += len(line)
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event
