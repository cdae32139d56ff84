"""What the parts of a plan are made from: the wish, the facts, and the notes they leave."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from attrs import Factory, define

from qlaunch.facts import Facts
from qlaunch.plan.model import Device, Leases, Places
from qlaunch.plan.notes import Notes
from qlaunch.plan.pci import Pci
from qlaunch.plan.seats import Seats
from qlaunch.profile.guests import GuestDefaults, defaults_of
from qlaunch.profile.model import Profile


@define(kw_only=True)
class Draft:
    """The input of a plan on its way through the parts, and the address books they share."""

    profile: Profile
    facts: Facts
    leases: Leases
    places: Places
    notes: Notes
    machine: str
    spice: bool
    pci: Pci
    seats: Seats
    heads: Mapping[str, str] = Factory(dict)

    @property
    def name(self) -> str:
        return self.profile.name or "machine"

    @property
    def guest(self) -> str:
        return self.profile.guest or "other"

    @property
    def arch(self) -> str:
        return self.profile.machine.arch or "x86_64"

    @property
    def defaults(self) -> GuestDefaults:
        return defaults_of(self.guest)

    @property
    def q35(self) -> bool:
        return is_q35(self.machine)

    @property
    def vnc(self) -> bool:
        """Whether there is VNC: as said, else where there is no SPICE for the screen."""
        wish = self.profile.display.vnc
        return (not self.spice and self.profile.video.model != "none") if wish is None else wish

    @property
    def disk_bus(self) -> str:
        """Where a disk goes that does not say it."""
        return self.defaults.q35_bus if self.q35 else self.defaults.disk_bus

    def has(self, key: str, driver: str) -> bool:
        """Whether this QEMU has the device `driver`; if not, that is an error at `key`."""
        if not self.facts.qemu.devices or driver in self.facts.qemu.devices:
            return True
        self.notes.error(
            key,
            f"QEMU {self.facts.qemu.version_text} has no device {driver}",
            hint=_PACKAGES.get(driver, "install the QEMU modules of your distribution"),
            cause="host",
        )
        return False

    def device(self, key: str, ident: str, driver: str, props: Mapping[str, object]) -> Device:
        """The device `ident` with its PCI address or USB port, if it has one.

        A driver that this QEMU does not have is an error at `key`.
        """
        self.has(key, driver)
        where: dict[str, object] = dict(self.pci.props(ident))
        bus, number = self.seats.given.get(ident, ("", 0))
        if bus == "usb":
            where = {"bus": "usb.0", "port": str(number)}
        return Device(id=ident, driver=driver, props={**props, **where})


_PACKAGES = dict.fromkeys(
    ("qxl-vga", "usb-redir", "chardev-spicevmc"),
    "on Debian and Ubuntu: sudo apt install qemu-system-modules-spice",
)


def is_q35(machine: str) -> bool:
    return machine == "q35" or machine.startswith("pc-q35-")


def stable_bytes(*words: str) -> bytes:
    """Bytes that are the same for the same words and practically different for others: no chance
    below the line, so a MAC or a UUID comes from who and where the machine is."""
    return hashlib.sha256("\0".join(words).encode()).digest()
