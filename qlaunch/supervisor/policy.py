"""What to do when a guest or its QEMU ends: pure decisions, for the actor to carry out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from qlaunch.plan.model import Lifecycle

# `quit`: end QEMU. `reset`: start the guest anew in the same process. `stay`: keep it as it is.
Action = Literal["quit", "reset", "stay"]
RESTARTS = 10
RESTART_WINDOW = 60.0

_BY_POLICY: dict[str, Action] = {"destroy": "quit", "restart": "reset", "preserve": "stay"}
_REBOOTS = ("guest-reset", "host-qmp-system-reset", "subsystem-reset")


def on_shutdown(lifecycle: Lifecycle, event: Mapping[str, Any], *, stop_asked: bool) -> Action:
    """The answer to QEMU's SHUTDOWN. One that ends by itself needs none, and none harms it."""
    reason = str(event.get("reason", ""))
    if stop_asked:
        return "quit"
    if reason == "guest-shutdown":
        return _BY_POLICY[lifecycle.on_poweroff]
    if reason in _REBOOTS:
        return _BY_POLICY[lifecycle.on_reboot]
    if reason == "guest-panic":
        return _BY_POLICY[lifecycle.on_crash]
    return "quit"


def on_panic(lifecycle: Lifecycle, *, stop_asked: bool) -> Action:
    """The answer to GUEST_PANICKED: the guest said that it crashed."""
    return "quit" if stop_asked else _BY_POLICY[lifecycle.on_crash]


def relaunch(
    lifecycle: Lifecycle, restarts: Sequence[float], now: float, *, crashed: bool, stop_asked: bool
) -> bool:
    """Whether a QEMU that died is started again: by policy, never after a user's stop, and at most
    ten times a minute. `restarts` and `now` are seconds of one clock."""
    recent = [moment for moment in restarts if now - moment < RESTART_WINDOW]
    wanted = crashed and lifecycle.on_crash == "restart" and not stop_asked
    return wanted and len(recent) < RESTARTS
