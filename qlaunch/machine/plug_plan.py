"""What is decided before a disk is plugged in: as a start would decide it, for this machine as it
runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping

from attrs import evolve, frozen

from qlaunch.argv import plug
from qlaunch.errors import ConflictError, NotFoundError, RefusedError, UsageError
from qlaunch.host.below import stands_on
from qlaunch.host.image_facts import chain_facts, image_contents
from qlaunch.machine.bench import Bench
from qlaunch.machine.claims import Claims, claimants, steps
from qlaunch.machine.files import walk
from qlaunch.machine.plug_notes import Plug
from qlaunch.machine.prepare import heads_of, look, with_shipped
from qlaunch.plan import Plan, resolve
from qlaunch.plan.draft import is_q35
from qlaunch.plan.model import Device, Leases
from qlaunch.plan.notes import Finding
from qlaunch.profile import devices as wish_of
from qlaunch.profile.load import load
from qlaunch.profile.model import Profile
from qlaunch.store import machines, paths
from qlaunch.units import format_size

NO_PORT = "use --bus scsi or usb, or restart it: a start makes four spare ones"
_HINTS = {
    'set format = "raw"': "say --format raw",
    'set format = "qcow2"': "say --format qcow2",
    "set read_only = true": "say --read-only",
    "if that is right, write backing =": "if that is right, say --backing",
    'add size = "20GiB", or correct the path': "--size 20GiB makes it",
}


@frozen(kw_only=True)
class Wish:
    """What disk is to be plugged in. `size` makes its image, in bytes; a `stick` may be pulled out
    at any time, and snapshots leave it alone."""

    file: str | None = None
    ident: str | None = None
    bus: str | None = None
    size: int | None = None
    format: str | None = None
    backing: str | None = None
    serial: str | None = None
    read_only: bool = False
    stick: bool = False


@frozen(kw_only=True)
class Planned:
    """A disk that can be plugged in. `values` are what a profile says of it, `leases` what is to be
    kept from now on; `is_said` is one that the profile has already."""

    plug: Plug
    leases: Leases
    values: Mapping[str, object]
    is_said: bool
    warnings: tuple[str, ...]


async def plan_plug(bench: Bench, wish: Wish) -> Planned:
    """Decide everything about a new disk of the running machine.

    Raises: UsageError, NotFoundError, RefusedError, ConflictError, ProfileError, HostError.
    """
    emulator = f'machine.emulator="{bench.plan.emulator}"'
    profile = with_shipped(load(bench.plan.profile, name=bench.name, overrides=[emulator]))
    disk, is_said = _disk_wish(bench, profile, wish)
    others = [each for each in profile.disk if each.id != disk.id]
    others += _unsaid(bench, [each.id for each in others])
    without, with_it = evolve(profile, disk=tuple(others)), evolve(profile, disk=(*others, disk))
    places = machines.places(bench.name)
    heads = heads_of(with_it, places)
    facts = await look(with_it, places, heads)
    # What is wrong without it as well was wrong before, and the machine runs.
    before = resolve(without, facts, bench.leases, places, heads)
    after = resolve(with_it, facts, bench.leases, places, heads)
    fresh = [each for each in after.findings if each not in before.findings]
    check_board(bench.plan, after.plan)
    _check_bus(bench, after.plan, disk.id)
    raise_first(each for each in fresh if each.level == "error")
    found = _plug(bench.plan, after.plan, disk.id)
    check_address(bench.plan, found.adapter or found.disk.device, NO_PORT)
    return Planned(
        plug=found,
        leases=_leases(bench.leases, after.leases, found),
        values=_values(disk),
        is_said=is_said,
        warnings=(
            *(each.message for each in fresh if each.level == "warning"),
            *_check_others(bench, found),
        ),
    )


# ---- what is wished -----------------------------------------------------------------------------


def _disk_wish(bench: Bench, profile: Profile, wish: Wish) -> tuple[wish_of.Disk, bool]:
    """The wish as a profile would say it, and whether the profile says it already."""
    running = {disk.id for disk in bench.plan.disks}
    by_path = wish.ident is None and wish.file is not None
    said = next(
        (
            disk
            for disk in profile.disk
            if disk.id == wish.ident or (by_path and disk.path == wish.file)
        ),
        None,
    )
    if wish.ident in running or (said is not None and said.id in running):
        ident = wish.ident or (said.id if said else "")
        raise ConflictError(
            f"{bench.name} has the disk {ident} already",
            hint="--id gives this one another name" if wish.ident else None,
        )
    if said is not None:
        if wish.file not in (None, said.path):
            raise ConflictError(
                f"the profile of {bench.name} has another disk {said.id}: {said.path}",
                hint="--id gives this one another name",
            )
        return said, True
    if wish.file is None and wish.size is None:
        raise UsageError("which disk?", hint="name an image, or say --size 20GiB to make a new one")
    if wish.size is not None and wish.file is not None and os.path.lexists(wish.file):
        raise ConflictError(
            f"{wish.file} exists already; it is not replaced",
            hint="leave --size out to use it as it is",
        )
    disk = wish_of.Disk(
        id=wish.ident
        or _former_id(bench, wish)
        or _free_id(bench, profile, "stick" if wish.stick else "disk"),
        path=wish.file,
        format=wish.format or _format(wish),
        size=wish.size,
        bus=wish.bus,
        backing=wish.backing,
        serial=wish.serial,
        read_only=wish.read_only or None,
        removable=wish.stick or None,
        snapshot=False if wish.stick else None,
    )
    return disk, False


def _format(wish: Wish) -> str | None:
    """qcow2 where the image is that. Anything else must be said: whoever can write to a raw disk
    could make it look like something else."""
    if wish.file is None or (wish.size is not None and not os.path.lexists(wish.file)):
        return None
    facts = image_contents(wish.file)
    if not facts.exists and not facts.problem:
        raise NotFoundError(f"{wish.file} is not there", hint="--size 20GiB makes it")
    if facts.format == "raw" and not facts.problem:
        raise UsageError(
            f"{wish.file} is no qcow2 image",
            hint="say --format raw if it is a raw disk, which is used as it is",
        )
    return None


def _former_id(bench: Bench, wish: Wish) -> str | None:
    """The name under which snapshots know the image: it was plugged in before."""
    running = {disk.id for disk in bench.plan.disks}
    for ident, head in bench.timeline.heads.items():
        if wish.file is not None and ident not in running:
            path = os.path.normpath(os.path.join(os.path.dirname(wish.file), head))
            if wish.file in chain_facts(path, want_write=False):
                return ident
    return None


def _free_id(bench: Bench, profile: Profile, prefix: str) -> str:
    """A name that neither the machine, its profile nor its snapshots have given to anything."""
    timeline = bench.timeline
    taken = {*timeline.heads, *timeline.owned}
    taken |= {ident for each in timeline.snapshots for ident in each.layers}
    taken |= {device.id.removesuffix("-dev") for device in bench.plan.all_devices()}
    taken |= {disk.id for disk in bench.plan.disks}
    taken |= {item.id for array in Profile.ARRAYS for item in getattr(profile, array)}
    number = 1
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def _unsaid(bench: Bench, said: list[str]) -> list[wish_of.Disk]:
    """The machine's disks that its profile does not have: plugged in earlier, or taken out of it
    since the start."""
    return [
        wish_of.Disk(
            id=disk.id,
            path=disk.image,
            bus=disk.bus,
            format=disk.layers[-1].format if len(disk.layers) == 1 else None,
            read_only=disk.layers[0].read_only or None,
        )
        for disk in bench.plan.disks
        if disk.id not in said
    ]


def _values(disk: wish_of.Disk) -> dict[str, object]:
    """What the profile is to say of the disk."""
    return {
        "path": disk.path,
        "format": disk.format,
        "size": format_size(disk.size) if disk.size else None,
        "bus": disk.bus,
        "backing": disk.backing,
        "serial": disk.serial,
        "read_only": disk.read_only,
        "removable": disk.removable,
        "snapshot": disk.snapshot,
    }


# ---- what must be right -------------------------------------------------------------------------


def check_board(running: Plan, planned: Plan) -> None:
    if is_q35(running.board.machine) != is_q35(planned.board.machine):
        raise RefusedError(
            f"{running.name}: its profile has another board now ({planned.board.machine}) than the"
            f" machine that runs ({running.board.machine})",
            hint=f"`qlaunch restart {running.name}` first",
        )


def possible(plan: Plan) -> list[str]:
    """The buses on which the running machine takes another disk."""
    there = {device.id for device in plan.controllers}
    needs = {"scsi": "scsi0", "usb": "usb"}
    return [bus for bus in plug.HOT if bus not in needs or needs[bus] in there]


def _check_bus(bench: Bench, planned: Plan, ident: str) -> None:
    """Raises: RefusedError with what to do, when the disk's bus takes none now."""
    disk = next(disk for disk in planned.disks if disk.id == ident)
    buses = possible(bench.plan)
    if disk.bus in buses:
        return
    also = ", ".join(buses)
    if disk.bus not in plug.HOT:
        raise RefusedError(
            f"{bench.name}: the bus {disk.bus} does not support hot-plug",
            hint=f"choose another: --bus {buses[0]} (there are {also}); or add it to the profile"
            f" and restart:\n{_toml(ident, disk.image, disk.bus)}",
        )
    what = "SCSI controller" if disk.bus == "scsi" else "USB controller"
    usb = "xhci" if is_q35(bench.plan.board.machine) else "ich9-ehci1"
    lines = f'[usb]\ncontroller = "{usb}"'
    if disk.bus == "scsi":
        lines = _toml(ident, disk.image, "scsi")
    raise RefusedError(
        f"{bench.name} has no {what} to plug the disk into",
        hint=f"use --bus {buses[0]}; or give it one by its profile, from the next start on:"
        f"\n{lines}",
    )


def _toml(ident: str, path: str, bus: str) -> str:
    return f'[[disk]]\nid = "{ident}"\npath = "{path}"\nbus = "{bus}"'


def raise_first(errors: Iterable[Finding]) -> None:
    """Raise the first error in the words of the command line."""
    for each in errors:
        hint = each.hint or ""
        for said, meant in _HINTS.items():
            hint = hint.replace(said, meant)
        kind = UsageError if each.cause == "profile" else type(each.to_error())
        raise kind(each.message, hint=hint or None)


def _plug(running: Plan, planned: Plan, ident: str) -> Plug:
    disk = next(disk for disk in planned.disks if disk.id == ident)
    props = {name: value for name, value in disk.device.props.items() if name != "bootindex"}
    adapter = next((each for each in planned.controllers if each.id == f"{ident}-usb"), None)
    return Plug(disk=evolve(disk, device=evolve(disk.device, props=props)), adapter=adapter)


def check_address(running: Plan, device: Device, no_port: str) -> None:
    """Raises: ConflictError where the machine that runs has no such place, or something else at
    it: its profile has changed since the start."""
    bus = device.props.get("bus")
    taken = {_place(each.props): each.id for each in running.all_devices()}
    if (other := taken.get(_place(device.props))) is not None:
        raise ConflictError(
            f"{running.name}: the place of {device.id.removesuffix('-dev')} is taken by {other}"
            " until its next start",
            hint=f"`qlaunch restart {running.name}` brings machine and profile together",
        )
    ports = {each.id for each in running.controllers}
    if str(bus).startswith("rp") and bus not in ports:
        raise RefusedError(f"{running.name}: all its PCI root ports are used", hint=no_port)


def _place(props: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(props.get(key) for key in ("bus", "addr", "port", "scsi-id", "unit"))


def _leases(before: Leases, after: Leases, found: Plug) -> Leases:
    """`before` with what the new disk is given for good; the rest of the profile may have changed
    since the start, and waits for the next one."""
    mine = {found.disk.device.id, *([found.adapter.id] if found.adapter else [])}
    places = {ident: place for ident, place in after.places.items() if ident in mine}
    return evolve(
        before,
        places={**before.places, **places},
        buses={**before.buses, found.disk.id: found.disk.bus},
    )


def _check_others(bench: Bench, found: Plug) -> list[str]:
    """What others have to say about the image: who stands on it, who names it.

    Raises: RefusedError when something stands on an image that would be written.
    """
    layer = found.disk.layers[0]
    if layer.read_only or found.disk.create is not None:
        return []
    claims = Claims.of(claimants(bench.name, bench.plan.profile))
    above = standing_on(layer.path, claims.folders)
    if above:
        raise RefusedError(
            f"{layer.path} is the backing file of {above[0]}: writing to it would destroy that",
            hint="say --read-only, or make a new disk on it:"
            f" qlaunch disk create NEW.qcow2 --backing {shlex.quote(layer.path)}",
        )
    who = claims.who_names(layer.path)
    return [f"{layer.path}: {who}; never run both at once"] if who else []


def standing_on(path: str, folders: Iterable[str]) -> list[str]:
    """The images that stand on the one at `path`: beside it, in `folders`, and among all that
    qlaunch keeps."""
    images = set(walk(paths.data_dir()))
    for folder in {os.path.dirname(path), *folders}:
        try:
            with os.scandir(folder) as entries:
                images |= {entry.path for entry in entries if entry.is_file()}
        except OSError:
            continue
    mine = os.path.realpath(path)

    def stands(image: str) -> bool:
        below = (step for name in stands_on(image) for step in steps(name))
        return any(os.path.realpath(step) == mine for step in below)

    return sorted(image for image in images if stands(image))
