"""The verbs of USB: devices of this computer, slots for a client's, a file as a CD."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import evolve

from qlaunch.aio import finish
from qlaunch.control.words import encode
from qlaunch.errors import (
    BusyError,
    ConflictError,
    NotFoundError,
    PhaseError,
    QlaunchError,
    RefusedError,
    UsageError,
)
from qlaunch.host.usb import usb_devices
from qlaunch.host.users import user_name
from qlaunch.machine import gadgets as pieces
from qlaunch.machine import media, plug_notes, plug_texts
from qlaunch.machine.letting_go import present
from qlaunch.machine.machine import Machine
from qlaunch.machine.rows import address
from qlaunch.plan import gadgets as plans
from qlaunch.plan.gadgets import Gadget
from qlaunch.plan.model import Leases
from qlaunch.plan.usb_filter import for_qemu
from qlaunch.profile import fields
from qlaunch.profile.load import load
from qlaunch.profile.model import Profile
from qlaunch.store import machines
from qlaunch.supervisor import unplugging
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.request import Request

# As many as a profile can say.
MOST_SLOTS = 15
_WHICH = re.compile(rf"{fields.USB_ID}|{fields.USB_PORT}")
_IDENT = re.compile(fields.ID_PATTERN)


@asynccontextmanager
async def plugging(request: Request) -> AsyncIterator[Machine]:
    """The machine, with nothing else done to it meanwhile. Raises: BusyError, PhaseError."""
    actor = await request.actor()
    await unplugging.wait(actor)
    with actor.operate("plugging"):
        yield actor.running()


# ---- looking ------------------------------------------------------------------------------------


async def look(request: Request) -> Any:
    """What the machine has on USB."""
    actor = await request.actor()
    machine = actor.running()
    session = machine.talk()
    rows = []
    for gadget in plans.gadgets(machine.plan):
        there = await pieces.is_attached(session, gadget)
        rows.append({**about(gadget), "attached": there})
    for disk in machine.plan.disks:
        if disk.bus == "usb":
            row = {"id": disk.id, "kind": "stick", "what": disk.image, "attached": True}
            adapter = next(each for each in machine.plan.controllers if each.id == f"{disk.id}-usb")
            rows.append({**row, "port": adapter.props.get("port")})
    return {
        "name": actor.name,
        "controller": next(
            (each.driver for each in machine.plan.controllers if each.id == "usb"), None
        ),
        "devices": rows,
    }


def about(gadget: Gadget) -> dict[str, Any]:
    """A device in plain words."""
    if gadget.kind == "host":
        what = plans.which_of(gadget.device)
    elif gadget.kind == "slot":
        what = "a slot for a client's device"
    else:
        medium = gadget.drive.medium if gadget.drive is not None else None
        what = medium.path if medium is not None else "an empty CD drive"
    port = gadget.device.props.get("port")
    return {"id": gadget.id, "kind": gadget.kind, "what": what, "port": port}


# ---- plugging in --------------------------------------------------------------------------------


async def attach(request: Request) -> Any:
    """Give the guest a device of this computer, or a file as a CD."""
    begun = time.monotonic()
    which, file = request.optional_text("device"), request.optional_text("file")
    if (which is None) == (file is None):
        raise UsageError("which USB device?", hint="name a port, vendor and product, or a file")
    if which is not None and not _WHICH.fullmatch(which):
        raise UsageError(f"{which!r} is no USB device", hint="such as 0951:1666, or 1-2 for a port")
    if file is not None and not os.path.isabs(file):
        raise UsageError(f"the path is not absolute: {file}")
    persist = request.flag("persist")
    async with plugging(request) as machine:
        leases = machines.load_leases(machine.name)
        profile = await asyncio.to_thread(load, machine.plan.profile, name=machine.name)
        ident = _ident(request, machine, profile, which)
        port = _port(machine, leases, ident)
        if which is not None:
            _check_host(machine, which.lower())
            gadget = plans.host_device(ident, which.lower(), port)
            array, values = "hostdev", {"device": which.lower()}
        else:
            assert file is not None
            gadget = plans.cd(ident, file, port)
            assert gadget.drive is not None
            await asyncio.to_thread(media.check_file, gadget.drive, file)
            array, values = "cdrom", {"path": file, "bus": "usb"}
        said = any(each.id == ident for each in getattr(profile, array))
        change = plug_texts.put(ident, values, array)
        if persist and not said:
            _check_change(machine, change)
        await finish(asyncio.to_thread(_keep_port, machine.name, leases, gadget))
        problem = await pieces.attach(machine, gadget)
        warnings = [f"it is plugged in, but: {problem}"] if problem else []
        if persist and not said:
            said = await _write(machine, change, warnings)
        there = await pieces.is_attached(machine.talk(), gadget)
    return {
        **_told(machine, gadget, begun),
        "attached": there,
        "persistent": said,
        "warnings": [*warnings, *_host_words(which)],
    }


def _told(machine: Machine, gadget: Gadget, begun: float) -> dict[str, Any]:
    seconds = round(time.monotonic() - begun, 3)
    return {
        "name": machine.name,
        **about(gadget),
        "address": address(gadget.device),
        "seconds": seconds,
    }


def _host_words(which: str | None) -> list[str]:
    """What is to be known of a device of this computer."""
    if which is None:
        return []
    found = [device for device in usb_devices() if device.is_meant(which)]
    who = user_name(os.geteuid())
    return [f"{text} ({hint})" for text, hint in plans.about(which.lower(), found, who)]


def _ident(request: Request, machine: Machine, profile: Profile, which: str | None) -> str:
    """The name of the new device: as asked, the profile's for this one, or a free one.

    Raises: UsageError, ConflictError.
    """
    wanted = request.optional_text("id")
    taken = plans.names_in(machine.plan)
    if wanted is not None:
        if not _IDENT.fullmatch(wanted):
            raise UsageError(f"{wanted!r} is no name for a device: {fields.ID_WORDS}")
        if wanted in taken:
            raise ConflictError(f"{machine.name} has something called {wanted} already")
        return wanted
    for each in profile.hostdev:
        if which is not None and (each.device or "").lower() == which.lower():
            if each.id not in taken:
                return each.id
    said = {item.id for array in Profile.ARRAYS for item in getattr(profile, array)}
    return plans.free_name("usb" if which is not None else "cd", taken | said)


def _port(machine: Machine, leases: Leases, ident: str) -> int:
    """A free port of its USB controller. Raises: RefusedError."""
    if not plans.has_controller(machine.plan):
        raise RefusedError(
            f"{machine.name} has no USB controller",
            hint='give it one by its profile, from the next start on:\n[usb]\ncontroller = "xhci"',
        )
    passing = [str(each.device.props["port"]) for each in plug_notes.load_gadgets(machine)]
    port = plans.free_port(machine.plan, leases, ident, passing)
    if port is None:
        raise RefusedError(
            f"{machine.name}: all ports of its USB controller are used",
            hint=f"`qlaunch usb list {machine.name}` shows by what; xhci has fifteen",
        )
    return port


def _check_host(machine: Machine, which: str) -> None:
    """Raises: ConflictError when the machine has that device already."""
    for each in plans.gadgets(machine.plan):
        if each.kind == "host" and plans.which_of(each.device) == which:
            raise ConflictError(f"{machine.name} has {which} already, as {each.id}")


def _keep_port(name: str, leases: Leases, gadget: Gadget) -> None:
    """The device finds the same port when it comes back."""
    place = f"usb/{gadget.device.props['port']}"
    fresh = evolve(leases, places={**leases.places, gadget.device.id: place})
    machines.save_leases(name, fresh)


def _check_change(machine: Machine, change: plug_texts.Change) -> None:
    """Raises: HostError, ProfileError, RefusedError."""
    path = machine.plan.profile
    plug_texts.check_writable(path)
    plug_texts.changed(plug_texts.text_of(path), path, machine.name, change)


async def _write(machine: Machine, change: plug_texts.Change, warnings: list[str]) -> bool:
    """Change the profile; why not goes to `warnings`."""
    try:
        await finish(
            asyncio.to_thread(plug_texts.change, machine.plan.profile, machine.name, change)
        )
    except QlaunchError as error:
        warnings.append(f"the profile was not changed: {error.message}")
        return False
    return True


# ---- taking out ---------------------------------------------------------------------------------


async def detach(request: Request) -> Any:
    """Take a device out: by its name, or by what it is."""
    begun = time.monotonic()
    word, persist = request.text("device"), request.flag("persist")
    warnings: list[str] = []
    async with plugging(request) as machine:
        gadget = _find(machine, word)
        array = "hostdev" if gadget.kind == "host" else "cdrom"
        profile = await asyncio.to_thread(load, machine.plan.profile, name=machine.name)
        said = any(each.id == gadget.id for each in getattr(profile, array))
        drop = plug_texts.drop(gadget.id, machine.plan.profile, array)
        if persist and said:
            _check_change(machine, drop)
        await pieces.detach(machine, gadget)
        if persist and said:
            said = not await _write(machine, drop, warnings)
    return {**_told(machine, gadget, begun), "in_profile": said, "warnings": warnings}


def _find(machine: Machine, word: str) -> Gadget:
    """Raises: NotFoundError."""
    known = [each for each in plans.gadgets(machine.plan) if each.kind != "slot"]
    for each in known:
        if word in (each.id, each.id.lower(), about(each)["what"]) or (
            each.kind == "host" and plans.which_of(each.device) == word.lower()
        ):
            return each
    names = ", ".join(each.id for each in known)
    raise NotFoundError(
        f"{machine.name} has no USB device {word!r}",
        hint=f"it has {names}" if names else f"`qlaunch usb list {machine.name}` shows all",
    )


# ---- slots --------------------------------------------------------------------------------------


async def slots(request: Request) -> Any:
    """Say how many slots for a client's devices there are, or have so many."""
    wanted, more = request.args.get("count"), request.flag("more")
    if wanted is not None and (type(wanted) is not int or not 0 <= wanted <= MOST_SLOTS):
        raise UsageError(f"there can be 0 to {MOST_SLOTS} slots")
    warnings: list[str] = []
    async with plugging(request) as machine:
        if wanted is not None:
            have = len(slots_of(machine))
            wanted = have + wanted if more else wanted
            change = plug_texts.say("usb", "redirect", wanted)
            if request.flag("persist"):
                _check_change(machine, change)
            while len(slots_of(machine)) < wanted:
                await grow(machine)
            while len(slots_of(machine)) > wanted:
                await _shrink(machine, force=request.flag("force"))
            if request.flag("persist"):
                await _write(machine, change, warnings)
        session = machine.talk()
        rows = [
            {**about(each), "attached": await pieces.is_attached(session, each)}
            for each in slots_of(machine)
        ]
    return {"name": machine.name, "slots": rows, "warnings": warnings}


def slots_of(machine: Machine) -> list[Gadget]:
    """The slots for a client's devices, in their order."""
    found = [each for each in plans.gadgets(machine.plan) if each.kind == "slot"]
    return sorted(found, key=lambda each: plans.slot_number(each.id))


async def grow(machine: Machine) -> Gadget:
    """Have one slot more; a client that is connected sees it at once. Raises: PhaseError,
    RefusedError, CommandError, HostError."""
    if not machine.plan.display.spice:
        raise PhaseError(
            f"{machine.name} has no SPICE, whose client brings USB devices",
            hint=f"`qlaunch usb redirect {machine.name}` needs no SPICE",
        )
    leases = machines.load_leases(machine.name)
    ident = plans.free_name("redir", plans.names_in(machine.plan), first=0)
    rules = next((each.device.props.get("filter", "") for each in slots_of(machine)), None)
    if rules is None:
        profile = await asyncio.to_thread(load, machine.plan.profile, name=machine.name)
        rules = for_qemu(profile.usb.filter)
    gadget = plans.slot(ident, _port(machine, leases, ident), str(rules))
    await finish(asyncio.to_thread(_keep_port, machine.name, leases, gadget))
    await pieces.attach(machine, gadget)
    return gadget


async def _shrink(machine: Machine, *, force: bool) -> None:
    """Take the last slot away. Raises: BusyError when a client's device is in it."""
    last = slots_of(machine)[-1]
    if not force and await pieces.is_attached(machine.talk(), last):
        raise BusyError(
            f"{machine.name}: a device of the client is in the slot {last.id}",
            hint="give it back in the viewer first, or --force",
        )
    await pieces.detach(machine, last)


# ---- without SPICE ------------------------------------------------------------------------------


async def redirect(request: Request) -> Any:
    """Answer, then carry the bytes of somebody's USB device both ways until one side hangs up."""
    actor = await request.actor()
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            async with plugging(request) as machine:
                leases = machines.load_leases(machine.name)
                taken = plans.names_in(machine.plan) | await present(machine.talk())
                ident = plans.free_name("remote", taken)
                port = _port(machine, leases, ident)
                gadget = plans.slot(ident, port, "", passing=True)
                await pieces.attach(machine, gadget, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
    except BaseException:
        ours.close()
        raise
    try:
        told = {"name": machine.name, "id": ident, "port": str(port)}
        request.writer.write(encode({"result": told}))
        await _carry((request.reader, writer), (reader, request.writer))
    finally:
        writer.close()
        await finish(_let_go(actor, machine, gadget))


async def _carry(*ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Carry bytes each way until the first of them ends."""
    tasks = [asyncio.ensure_future(_copy(*way)) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await finish(asyncio.wait(tasks))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    except ConnectionError:
        return


async def _let_go(actor: Actor, machine: Machine, gadget: Gadget) -> None:
    """Whoever held the slot is gone: so is the slot."""
    while actor.operation is not None:
        await actor.operation.done.wait()
    if actor.machine is not machine or machine.process.ended:
        return
    try:
        with actor.operate("plugging"):
            await pieces.detach(machine, gadget)
    except QlaunchError as error:
        machine.log.say(f"{gadget.id} is still there: {error.message}")
