"""The profile: every table and key that a user can write, declared once.

`None` (or an empty tuple) means "not said"; only `plan` gives it a value. Sizes are bytes,
durations seconds, paths absolute. A loaded profile holds what its bases say too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from attrs import field, frozen

from qlaunch.profile import fields as key
from qlaunch.profile.devices import (
    Cdrom,
    Channel,
    Disk,
    Floppy,
    HostDevice,
    Input,
    Nic,
    Serial,
    Share,
)
from qlaunch.profile.screens import Display, View
from qlaunch.profile.security import Security
from qlaunch.profile.tables import (
    Boot,
    Clock,
    Cpu,
    Lifecycle,
    Limits,
    Machine,
    Memory,
    Qemu,
    Sound,
    Ssh,
    Usb,
    Video,
)

SCHEMA = 1
GUESTS = (
    "windows-xp", "windows-2000", "windows-7", "windows-10", "windows-11",
    "linux", "bsd", "dos", "other",
)  # fmt: skip


@frozen(kw_only=True)
class Profile:
    """A machine as its user wishes it."""

    TABLES: ClassVar[tuple[str, ...]] = (
        "machine", "cpu", "memory", "clock", "boot", "lifecycle", "display", "video", "sound",
        "usb", "limits", "view", "ssh", "security", "qemu",
    )  # fmt: skip
    ARRAYS: ClassVar[tuple[str, ...]] = (
        "disk", "cdrom", "floppy", "nic", "input", "channel", "serial", "share",
        "hostdev",
    )  # fmt: skip

    schema: int = key.version("Version of this format: `schema = 1`.", SCHEMA)
    name: str | None = key.text(
        "Name of the machine.",
        example="xp",
        otherwise="the file's name without `.toml`",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}",
        pattern_words="a letter or digit, then up to 40 letters, digits and ._-",
    )
    title: str | None = key.text("A line for people, shown in lists.", example="Windows XP")
    uuid: str | None = key.text(
        "UUID that the guest sees.",
        example="12345678-1234-1234-1234-123456789abc",
        otherwise="made at the first start, then kept",
        pattern=r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        pattern_words="a UUID, such as '12345678-1234-1234-1234-123456789abc'",
    )
    guest: str | None = key.choice(
        "What runs inside: picks defaults and warnings.", *GUESTS, otherwise="`other`"
    )
    # Empty in a loaded profile, which has it all in itself.
    extends: tuple[str, ...] = key.words(
        "Profiles that this one builds on: built-in bases or files beside it, later ones win."
        " `[]` builds on nothing.",
        otherwise="the base of `guest`",
        example='["@windows-xp"]',
    )
    machine: Machine = key.table(Machine, "The board.")
    cpu: Cpu = key.table(Cpu, "The virtual processors.")
    memory: Memory = key.table(Memory, "RAM.")
    clock: Clock = key.table(Clock, "The real-time clock.")
    boot: Boot = key.table(Boot, "What the guest starts from.")
    lifecycle: Lifecycle = key.table(Lifecycle, "Ends and restarts.")
    display: Display = key.table(Display, "How the screen can be reached.")
    video: Video = key.table(Video, "The graphics card.")
    sound: Sound = key.table(Sound, "The sound card.")
    usb: Usb = key.table(Usb, "The USB controller.")
    limits: Limits = key.table(Limits, "What it may take of the host.")
    view: View = key.table(View, "How `qlaunch view` shows it.")
    ssh: Ssh = key.table(Ssh, "How `qlaunch ssh` logs in.")
    security: Security = key.table(Security, "How it is confined.")
    qemu: Qemu = key.table(Qemu, "The way out.")
    disk: tuple[Disk, ...] = key.tables(Disk, "Disks.")
    cdrom: tuple[Cdrom, ...] = key.tables(Cdrom, "CD drives.")
    floppy: tuple[Floppy, ...] = key.tables(Floppy, "Floppy drives.")
    nic: tuple[Nic, ...] = key.tables(Nic, "Network cards.")
    input: tuple[Input, ...] = key.tables(Input, "Pointing devices.")
    channel: tuple[Channel, ...] = key.tables(Channel, "Channels between guest and host.")
    serial: tuple[Serial, ...] = key.tables(Serial, "Serial ports.")
    share: tuple[Share, ...] = key.tables(Share, "Shared folders.")
    hostdev: tuple[HostDevice, ...] = key.tables(HostDevice, "USB devices of this computer.")
    # Where each key is said: `disk.hda.bus` -> `xp.toml:7`, `@windows-xp:12` or `--set`.
    origins: Mapping[str, str] = field(factory=dict, eq=False, repr=False)
    # The file as it was named to `load`, and as `origins` names it.
    file: str = field(default="", eq=False)

    def where(self, name: str) -> str:
        """`FILE:LINE: KEY` of a key called `disk.hda.bus`, or of the nearest table above it."""
        at = name
        while at and at not in self.origins:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        place = self.origins.get(at) or self.file or "profile"
        return f"{place}: {name}"

    def from_base(self, name: str) -> bool:
        """Whether a built-in base says the key or table `name`, and not the user."""
        return self.origins.get(name, "").startswith("@")


Policy = Literal["destroy", "restart", "preserve", "dump"]
