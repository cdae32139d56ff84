"""What a kind of guest cannot drive, and why: the lint rules behind `guest = `.

Sources: Windows XP's driver set (no AHCI, no xHCI, no HDA in the box), Proxmox and VirtualBox
defaults for the same guests, and virtio-win's viostor, which binds 1af4:1001 only.
"""

from __future__ import annotations

from collections.abc import Callable

from qlaunch.plan.draft import Draft
from qlaunch.plan.usb import controller_of
from qlaunch.units import format_size, short_size

_MAX_XP_MEMORY = 4 << 30
_OLD = ("windows-xp", "windows-2000")
_BUSES = {"sata": "SATA", "nvme": "NVMe", "scsi": "SCSI"}  # that XP knows nothing of


def check(draft: Draft) -> None:
    """Leave a warning for everything that the guest cannot use."""
    if draft.guest in _OLD:
        for rule in _OLD_WINDOWS_RULES:
            rule(draft)
    if draft.guest == "windows-11":
        _windows11(draft)
    _moved_disks(draft)
    _limits(draft)
    _security(draft)


def _security(draft: Draft) -> None:
    if draft.profile.security.sandbox is False:
        draft.notes.warn(
            "security.sandbox",
            "QEMU is not confined: a guest that breaks out of it can do all that you can",
            hint="take security.sandbox = false out; security.read and security.write open"
            " single files and folders",
        )


def _board(draft: Draft) -> None:
    if draft.q35:
        draft.notes.warn(
            "machine.type",
            "Windows XP cannot start on q35: it has no driver for its SATA controller,"
            " and virtio devices show modern ids there that XP's drivers do not bind",
            hint='set machine.type = "pc"',
        )
    if draft.profile.machine.firmware == "uefi":
        draft.notes.warn(
            "machine.firmware",
            "Windows XP cannot start from UEFI",
            hint='set machine.firmware = "bios"',
        )
    if draft.profile.machine.panic:
        draft.notes.warn(
            "machine.panic",
            "Windows XP has no driver for the panic device and opens its new-hardware wizard",
            hint="set machine.panic = false",
        )


def _hyperv(draft: Draft) -> None:
    words = [*draft.profile.cpu.flags, *(draft.profile.cpu.model or "").split(",")[1:]]
    if any(
        word.lstrip("+-").startswith(("hv-", "hv_")) and not word.startswith("-") for word in words
    ):
        draft.notes.warn(
            "cpu.flags",
            "Windows XP does not know Hyper-V enlightenments; they came with Vista and can stop it",
            hint="take the hv- flags out",
        )


def _clock(draft: Draft) -> None:
    if draft.profile.clock.base != "localtime":
        draft.notes.warn(
            "clock.base",
            "Windows XP keeps local time in the hardware clock: with UTC its clock is wrong",
            hint='set clock.base = "localtime"',
        )


def _sound(draft: Draft) -> None:
    if draft.profile.sound.model in ("hda", "ich6"):
        draft.notes.warn(
            "sound.model", "Windows XP has no driver for HDA sound", hint='set sound.model = "ac97"'
        )


def _usb(draft: Draft) -> None:
    if controller_of(draft) == "xhci":
        draft.notes.warn(
            "usb.controller",
            "Windows XP has no driver for xHCI: no USB device would work",
            hint='set usb.controller = "ich9-ehci1"',
        )


def _disks(draft: Draft) -> None:
    for disk in draft.profile.disk:
        if disk.bus in _BUSES:
            draft.notes.warn(
                f"disk.{disk.id}.bus",
                f"Windows XP has no driver for {_BUSES[disk.bus]} disks and stops with 0x7B",
                hint='set bus = "ide"',
            )
    for drive in draft.profile.cdrom:
        if drive.bus in _BUSES:
            draft.notes.warn(
                f"cdrom.{drive.id}.bus",
                f"Windows XP has no driver for {_BUSES[drive.bus]} drives",
                hint='set bus = "ide"',
            )


def _nics(draft: Draft) -> None:
    for nic in draft.profile.nic:
        if nic.model == "e1000e":
            draft.notes.warn(
                f"nic.{nic.id}.model",
                "Windows XP has no driver for e1000e",
                hint='set model = "rtl8139": its driver is on the CD',
            )


def _memory(draft: Draft) -> None:
    size = draft.profile.memory.size or 0
    if size > _MAX_XP_MEMORY:
        draft.notes.warn(
            "memory.size",
            f"Windows XP (32 bit) can use 4 GiB at most, not {short_size(size)}",
            hint='set memory.size = "4GiB" or less',
        )


def _processors(draft: Draft) -> None:
    cpu = draft.profile.cpu
    if (cpu.sockets or 1) > 2:
        draft.notes.warn(
            "cpu.sockets",
            "Windows XP Professional uses two sockets at most (Home: one)",
            hint="use cores instead",
        )


_OLD_WINDOWS_RULES: tuple[Callable[[Draft], None], ...] = (
    _board, _hyperv, _clock, _sound, _usb, _disks, _nics, _memory, _processors,
)  # fmt: skip


def _windows11(draft: Draft) -> None:
    machine = draft.profile.machine
    if machine.firmware != "uefi" or not machine.tpm:
        draft.notes.warn(
            "machine.tpm",
            "Windows 11's installer asks for UEFI and a TPM 2.0",
            hint='extends = ["@windows-11"] sets both',
        )
    if draft.profile.memory.size and draft.profile.memory.size < 4 << 30:
        draft.notes.warn(
            "memory.size", "Windows 11's installer asks for 4 GiB", hint='set memory.size = "4GiB"'
        )


def _moved_disks(draft: Draft) -> None:
    """A Windows whose boot disk changes its bus before the driver is in stops with 0x7B. Where
    another disk was on that bus before, Windows has had its chance to install the driver."""
    if not draft.guest.startswith("windows"):
        return
    for disk in draft.profile.disk:
        before, now = draft.leases.buses.get(disk.id), disk.bus or draft.disk_bus
        if before and before != now and now not in draft.leases.buses.values():
            draft.notes.warn(
                f"disk.{disk.id}.bus",
                f"was {before} at the last start, is {now} now: Windows stops with 0x7B"
                f" unless the driver for {now} is installed",
                hint=f"start once with a small second disk on {now}, let Windows install"
                " its driver, then move this one",
            )


def _limits(draft: Draft) -> None:
    limits = draft.profile.limits
    said = [
        name
        for name in ("memory", "cpu_quota", "cpus", "io_weight", "tasks")
        if getattr(limits, name) is not None
    ]
    if said and draft.facts.host.systemd_scope is None:
        draft.notes.warn(
            f"limits.{said[0]}",
            "limits need systemd, which does not run here: they have no effect",
            cause="host",
        )
    if (
        limits.memory
        and draft.profile.memory.size
        and limits.memory < draft.profile.memory.size + (128 << 20)
    ):
        draft.notes.warn(
            "limits.memory",
            "leaves QEMU less than 128 MiB beside the guest's RAM: the kernel may kill it",
            hint=f"allow {format_size(draft.profile.memory.size + (256 << 20))} or more",
        )
