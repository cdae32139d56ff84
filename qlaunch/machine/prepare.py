"""From a profile's file to a plan: load, look at the host, resolve. Nothing is changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, frozen

from qlaunch import demo
from qlaunch.facts import Facts, ImageFacts
from qlaunch.host.gather import gather
from qlaunch.host.usb import usb_devices
from qlaunch.machine.network_facts import network_facts
from qlaunch.plan import Leases, Places, Plan, Resolution, resolve
from qlaunch.plan.forwards import readable
from qlaunch.profile.devices import Disk
from qlaunch.profile.load import load
from qlaunch.profile.model import Profile
from qlaunch.store import machines, paths, timeline


@frozen(kw_only=True)
class Prepared:
    """A profile, what is known of this computer, and the plan that follows."""

    profile: Profile
    facts: Facts
    resolution: Resolution

    @property
    def plan(self) -> Plan:
        return self.resolution.plan

    def raise_errors(self) -> None:
        """Raise all that keeps the machine from starting (see `Resolution.raise_errors`)."""
        self.resolution.raise_errors()


async def prepare(
    path: str,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    folder: str | None = None,
) -> Prepared:
    """Plan the machine of the profile at `path` (absolute).

    Relative paths in `overrides` start at `folder`, or at the current one.

    Raises: ProfileError when the profile cannot be read, NotFoundError, HostError when there is no
    QEMU. What merely keeps it from starting is in the resolution's findings.
    """
    profile = with_shipped(load(path, name=name, overrides=overrides, folder=folder))
    machine = paths.check_name(profile.name or "")
    leases, places = machines.load_leases(machine), machines.places(machine)
    heads = heads_of(profile, places)
    facts = await look(profile, places, heads)
    found = resolve(profile, facts, leases, places, heads)
    plan = evolve(
        found.plan,
        made_from=_digest(profile, facts),
        overrides=tuple(overrides),
        said_in=folder or (os.getcwd() if overrides else None),
    )
    return Prepared(profile=profile, facts=facts, resolution=evolve(found, plan=plan))


def _digest(profile: Profile, facts: Facts) -> str:
    """What tells whether another start would be one of another machine: what the profile says,
    wherever in its files it says that, and the QEMU program."""
    said = repr((evolve(profile, origins={}), facts.qemu.path, facts.qemu.version_text))
    with contextlib.suppress(OSError):
        program = os.stat(facts.qemu.path)
        said += f" {program.st_size} {program.st_mtime_ns}"
    return hashlib.blake2s(said.encode(errors="surrogatepass")).hexdigest()[:16]


def heads_of(profile: Profile, places: Places) -> dict[str, str]:
    """The images that the disks of `profile` with snapshots are on now (absolute paths)."""
    heads = timeline.load(profile.name or "").heads
    return {
        disk.id: os.path.join(os.path.dirname(_own(disk, places)), heads[disk.id])
        for disk in profile.disk
        if disk.id in heads
    }


async def look(profile: Profile, places: Places, heads: Mapping[str, str] | None = None) -> Facts:
    """All facts that a plan for `profile` needs."""
    wanted = list(_images(profile, places, heads or {}))
    if not os.path.isdir(places.data):  # noqa: ASYNC240 -- our own folder, not one of the user's
        # The machine's own folder is made at its first start: nothing is in it yet.
        wanted = [entry for entry in wanted if os.path.dirname(entry[0]) != places.data]
    facts = await gather(
        wanted,
        profile.machine.emulator,
        profile.machine.arch or "x86_64",
        paths.cache_dir(),
        ports=list(_ports(profile)),
    )
    facts = evolve(facts, network=await network_facts(profile))
    if profile.hostdev:
        facts = evolve(facts, usb=usb_devices())
    folders = {share.path: _folder(share.path) for share in profile.share if share.path}
    return evolve(facts, images={**facts.images, **folders}) if folders else facts


def with_shipped(profile: Profile) -> Profile:
    """`profile` with `@demo` replaced by the demo guest's image."""
    disks = tuple(
        evolve(disk, template=demo.IMAGE) if disk.template == "@demo" else disk
        for disk in profile.disk
    )
    return evolve(profile, disk=disks) if disks != profile.disk else profile


def _images(
    profile: Profile, places: Places, heads: Mapping[str, str]
) -> Iterator[tuple[str, bool]]:
    for disk in profile.disk:
        own = _own(disk, places)
        head = heads.get(disk.id, own)
        yield (head, not disk.read_only)
        if head != own:
            yield (own, False)  # a lower layer now, which nobody writes
        yield from ((path, False) for path in (disk.template, disk.backing) if path)
    for drive in profile.cdrom:
        if drive.path:
            yield (drive.path, False)
    for floppy in profile.floppy:
        if floppy.path:
            yield (floppy.path, not floppy.read_only)
    for path in (profile.boot.kernel, profile.boot.initrd):
        if path:
            yield (path, False)
    if profile.machine.firmware == "uefi":
        yield from ((path, True) for path in _nvrams(profile, places))


def _own(disk: Disk, places: Places) -> str:
    suffix = "raw" if disk.format == "raw" else "qcow2"
    return disk.path or os.path.join(places.data, f"{disk.id}.{suffix}")


def _nvrams(profile: Profile, places: Places) -> tuple[str, ...]:
    if profile.machine.nvram:
        return (profile.machine.nvram,)
    return tuple(os.path.join(places.data, name) for name in ("nvram.fd", "nvram.qcow2"))


def _ports(profile: Profile) -> Iterator[tuple[str, int]]:
    display = profile.display
    host = display.listen or "127.0.0.1"
    yield from ((host, port) for port in (display.port, display.tls_port, display.vnc_port) if port)
    for nic in profile.nic:
        for each in readable(nic.forward):
            if each.proto == "tcp":
                yield (each.address, each.port)


def _folder(path: str) -> ImageFacts:
    there = os.path.isdir(path)
    return ImageFacts(path=path, exists=there, format="directory" if there else None)


def leases_of(prepared: Prepared) -> Leases:
    """The leases to save once the machine has started."""
    return prepared.resolution.leases
