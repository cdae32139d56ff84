"""The two agents inside a guest: what each is good for, and which installer brings it."""

from __future__ import annotations

from typing import Any

from qlaunch.plan.lines import WEBDAV
from qlaunch.plan.model import Plan

_GOOD_FOR = {
    "spice": "clipboard, resolution, dropped files",
    "guest": "a clean stop, addresses, frozen file systems",
}
_INSTALLERS = {
    "windows": {
        "spice": "spice-guest-tools (spice-space.org)",
        "guest": "guest-agent/qemu-ga-x86_64.msi on the CD virtio-win.iso",
    },
    "windows-xp": {
        "spice": "spice-guest-tools 0.74 (spice-space.org), the last one for XP",
        "guest": "guest-agent/qemu-ga-x86.msi on virtio-win-0.1.96.iso, the last one for XP",
    },
    "unix": {"spice": "the package spice-vdagent", "guest": "the package qemu-guest-agent"},
}
_CHANNELS = {
    "spice": 'name = "com.redhat.spice.0"',
    "guest": 'name = "org.qemu.guest_agent.0"',
}


def told(plan: Plan, opened: frozenset[str]) -> list[dict[str, Any]]:
    """What `status` says of each agent: whether it is connected, and if not, what is missing.

    `opened` are the chardevs whose ports the guest has open.
    """
    found = []
    for agent, chardev in _lines(plan).items():
        row: dict[str, Any] = {"agent": agent, "connected": chardev in opened}
        if chardev is None:
            row["missing"] = f"a channel: [[channel]] with {_CHANNELS[agent]} in its profile"
        elif not row["connected"]:
            row["missing"] = f"in the guest, {installer(plan.guest, agent)}"
        if not row["connected"]:
            row["for"] = _GOOD_FOR[agent]
        found.append(row)
    return found


def _lines(plan: Plan) -> dict[str, str | None]:
    """The chardev of each agent; None where the machine has no channel for it."""
    spice = next(
        (
            chardev.id
            for chardev in plan.chardevs
            if chardev.kind == "qemu-vdagent"
            or (chardev.kind == "spicevmc" and chardev.name == "vdagent")
        ),
        None,
    )
    return {"spice": spice, "guest": plan.agent}


def shares_folders(plan: Plan) -> bool:
    """Whether a viewer can share a folder with the guest."""
    return any(chardev.name == WEBDAV for chardev in plan.chardevs)


def installer(guest: str, agent: str) -> str:
    """What brings `agent` into a guest of this kind."""
    if guest in ("windows-xp", "windows-2000"):
        kind = "windows-xp"
    else:
        kind = "windows" if guest.startswith("windows") else "unix"
    return _INSTALLERS[kind][agent]
