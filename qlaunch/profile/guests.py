"""What a kind of guest can drive: the defaults of devices that a base cannot name.

Table defaults (clock, sound, video, ...) are in the built-in bases, `qlaunch/profile/bases`.
"""

from __future__ import annotations

from attrs import frozen

MIB, GIB = 1 << 20, 1 << 30


@frozen(kw_only=True)
class GuestDefaults:
    """Defaults for one kind of guest. `disk_bus` is for the i440fx board, `q35_bus` for q35."""

    machine: str = "pc"
    disk_bus: str = "ide"
    q35_bus: str = "sata"
    nic: str = "virtio"
    cpu: str | None = None
    memory: int = 256 * MIB
    hpet: bool = True


_OLD_WINDOWS = GuestDefaults(nic="rtl8139", cpu="qemu64", memory=512 * MIB, hpet=False)
_WINDOWS = GuestDefaults(machine="q35", nic="e1000e", memory=4 * GIB, hpet=False)
_UNIX = GuestDefaults(machine="q35", disk_bus="virtio", q35_bus="virtio", memory=2 * GIB)
_GUESTS = {
    "windows-xp": _OLD_WINDOWS,
    "windows-2000": _OLD_WINDOWS,
    "windows-7": _WINDOWS,
    "windows-10": _WINDOWS,
    "windows-11": _WINDOWS,
    "linux": _UNIX,
    "bsd": _UNIX,
    "dos": GuestDefaults(nic="pcnet", cpu="qemu64", memory=64 * MIB),
}


def defaults_of(guest: str) -> GuestDefaults:
    """The defaults for `guest`; those of a plain PC for one that is not known."""
    return _GUESTS.get(guest) or GuestDefaults()
