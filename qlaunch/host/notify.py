"""What a service manager is told of us: sd_notify(3), without a library.

Whoever starts us with NOTIFY_SOCKET in the environment hears of it: systemd, and container
managers that do the same. Nobody listening is no error.
"""

from __future__ import annotations

import contextlib
import os
import socket

# systemd wants to be told again before its time is up; half of it leaves room for a busy computer.
_SHARE = 0.5


def notify(**words: str | int) -> bool:
    """Tell the manager `READY=1` and the like, a keyword each.

    Returns: whether there is one who was told.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return False
    lines = [f"{name}={' '.join(str(word).split())}" for name, word in words.items()]
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as sock:
        # A manager that hangs must not make us hang.
        with contextlib.suppress(OSError):
            sock.sendto("\n".join(lines).encode(), path.replace("@", "\0", 1))
            return True
    return False


def listens() -> bool:
    """Whether there is a manager that wants to be told."""
    return os.environ.get("NOTIFY_SOCKET", "")[:1] in ("/", "@")


def watchdog_pause() -> float | None:
    """After how many seconds the manager wants `WATCHDOG=1` again; None when it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        limit = int(os.environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return limit / 1e6 * _SHARE if limit > 0 else None
