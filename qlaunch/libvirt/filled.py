"""A profile in which everything is said that libvirt would otherwise decide in another way."""

from __future__ import annotations

from attrs import evolve

from qlaunch.plan.board import topology
from qlaunch.plan.lines import GUEST_AGENT, SPICE_AGENT, WEBDAV
from qlaunch.plan.notes import Notes
from qlaunch.profile.devices import Cdrom, Channel, Disk
from qlaunch.profile.guests import defaults_of
from qlaunch.profile.model import Profile

_USB_INPUTS = ("usb-tablet", "usb-mouse", "usb-kbd")


def is_q35(profile: Profile) -> bool:
    return "q35" in (profile.machine.type or "")


def filled(profile: Profile, folder: str) -> Profile:
    """`profile` with the plan's defaults; disks without a path are in `folder`."""
    defaults = defaults_of(profile.guest or "other")
    machine = profile.machine
    hpet = defaults.hpet if machine.hpet is None else machine.hpet
    machine = evolve(machine, type=machine.type or defaults.machine, hpet=hpet)
    profile = evolve(profile, machine=machine)
    shape = topology(profile, Notes(profile))
    cpu = evolve(
        profile.cpu,
        model=profile.cpu.model or defaults.cpu or "host",
        count=shape.cpus,
        sockets=shape.sockets,
        cores=shape.cores,
        threads=shape.threads,
    )
    balloon = profile.memory.balloon is not False and profile.guest != "dos"
    memory = evolve(profile.memory, size=profile.memory.size or defaults.memory, balloon=balloon)
    spice = profile.display.spice is not False
    vnc = profile.display.vnc
    shown = profile.video.model != "none"
    display = evolve(
        profile.display, spice=spice, vnc=(not spice and shown) if vnc is None else vnc
    )
    video = evolve(profile.video, model=profile.video.model or "std")
    profile = evolve(profile, cpu=cpu, memory=memory, display=display, video=video)
    profile = _with_usb(profile)
    return _with_devices(profile, folder)


def drives_of(profile: Profile) -> tuple[Disk | Cdrom, ...]:
    """Disks and CD drives."""
    return (*profile.disk, *profile.cdrom)


def _with_usb(profile: Profile) -> Profile:
    usb = profile.usb
    wanted = (
        any((item.model or "usb-tablet") in _USB_INPUTS for item in profile.input)
        or any(drive.bus == "usb" for drive in drives_of(profile))
        or profile.sound.model == "usb"
        or bool(usb.redirect)
        or bool(profile.hostdev)
    )
    best = "xhci" if is_q35(profile) else "ich9-ehci1"
    return evolve(
        profile, usb=evolve(usb, controller=usb.controller or (best if wanted else "none"))
    )


def _with_devices(profile: Profile, folder: str) -> Profile:
    defaults, q35 = defaults_of(profile.guest or "other"), is_q35(profile)
    disks = tuple(
        evolve(
            disk,
            bus=disk.bus or (defaults.q35_bus if q35 else defaults.disk_bus),
            format=disk.format or "qcow2",
            path=disk.path or f"{folder}/{disk.id}.{'raw' if disk.format == 'raw' else 'qcow2'}",
        )
        for disk in profile.disk
    )
    drives = tuple(
        evolve(drive, bus=drive.bus or ("sata" if q35 else "ide")) for drive in profile.cdrom
    )
    nics = tuple(evolve(nic, model=nic.model or defaults.nic) for nic in profile.nic)
    inputs = tuple(evolve(item, model=item.model or "usb-tablet") for item in profile.input)
    return evolve(
        profile, disk=disks, cdrom=drives, nic=nics, input=inputs, channel=_channels(profile)
    )


def _channels(profile: Profile) -> tuple[Channel, ...]:
    found = []
    kinds = {SPICE_AGENT: "spicevmc", GUEST_AGENT: "guest-agent"}
    names = {kind: name for name, kind in kinds.items()}
    for channel in profile.channel:
        kind = channel.type or kinds.get(channel.name or SPICE_AGENT, "socket")
        name = channel.name or names.get(kind, f"org.qlaunch.{channel.id}")
        found.append(evolve(channel, type=kind, name=name))
    known = {channel.name for channel in found}
    shared = profile.display.folder_sharing
    shared = SPICE_AGENT in known if shared is None else shared
    if shared and profile.display.spice and WEBDAV not in known:
        found.append(Channel(id="webdav0", type="spicevmc", name=WEBDAV))
    return tuple(found)
