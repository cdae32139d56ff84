"""Finds and ends the processes that a test left behind.

They are known by a word that the test's environment carries, or by the test's own folder in their
command line (QEMU may be given a bare environment).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator

# A supervisor without machines takes a moment to end itself.
GRACE = 3.0


def last_pid() -> str:
    """The number of the newest process or thread: while it stays, nothing was started."""
    with open("/proc/loadavg", encoding="ascii") as file:
        return file.read().split()[-1]


def find(*words: str) -> dict[int, str]:
    """Pid and command line of each process whose environment or command line has one of `words`."""
    wanted = [word.encode() for word in words]
    found: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        command, environ = _read(entry, "cmdline"), _read(entry, "environ")
        if any(word in command or word in environ for word in wanted):
            found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def _read(pid: str, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _ended(pid: int, seconds: float) -> bool:
    with _handle(pid) as handle:
        return handle is None or bool(select.select([handle], [], [], seconds)[0])


def _kill(pid: int, *words: str) -> None:
    with _handle(pid) as handle:
        if handle is not None and pid in find(*words):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], GRACE)
    # A child of ours would stay as a zombie.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def reap(*words: str) -> list[str]:
    """End what is left and say what it was; nothing for what ends by itself within the grace."""
    until = time.monotonic() + GRACE
    late = {
        pid: command
        for pid, command in find(*words).items()
        if not _ended(pid, max(0.0, until - time.monotonic()))
    }
    for pid in late:
        _kill(pid, *words)
    return [f"pid {pid}: {command[:300]}" for pid, command in late.items()]
