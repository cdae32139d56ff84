"""What to do when a guest or its QEMU ends: pure decisions, for the actor to carry out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import evolve

from qlaunch.plan.model import BootPlan, Device, Leases, Lifecycle, Plan

# `quit`: end QEMU. `reset`: start the guest anew in the same process. `stay`: keep it as it is.
Action = Literal["quit", "reset", "stay"]
# By policy a machine is started again at most so often in so many seconds.
RESTARTS = 10
RESTART_WINDOW = 60.0
TOO_OFTEN = f"not started again: {RESTARTS} times in a minute are enough"

_BY_POLICY: dict[str, Action] = {
    "destroy": "quit",
    "restart": "reset",
    "preserve": "stay",
    "dump": "quit",
}
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


def recent(restarts: Sequence[float], now: float) -> list[float]:
    """Those of the moments in `restarts` that count against the limit `now`."""
    return [moment for moment in restarts if now - moment < RESTART_WINDOW]


def second_start(plan: Plan, leases: Leases) -> Plan:
    """`plan` for another start of the same machine: what it made the first time is there now, a
    `boot.once` that was used up since has no effect any more, and the clock is as the guest set it.
    """
    once_done = leases.once_done
    plan = evolve(
        plan,
        board=evolve(plan.board, rtc_offset=leases.rtc_offset),
        disks=tuple(evolve(disk, create=None) for disk in plan.disks),
        firmware=evolve(plan.firmware, create=None) if plan.firmware else None,
    )
    if plan.boot.once is None or plan.boot.once != once_done:
        return plan
    later = plan.boot.later
    return evolve(
        plan,
        disks=tuple(evolve(disk, device=_ordered(disk.device, later)) for disk in plan.disks),
        drives=tuple(evolve(drive, device=_ordered(drive.device, later)) for drive in plan.drives),
        nics=tuple(evolve(nic, device=_ordered(nic.device, later)) for nic in plan.nics),
        boot=evolve(plan.boot, once=BootPlan().once, later={}),
    )


def _ordered(device: Device, later: Mapping[str, int]) -> Device:
    props = {key: value for key, value in device.props.items() if key != "bootindex"}
    if device.id in later:
        props["bootindex"] = later[device.id]
    return evolve(device, props=props)
