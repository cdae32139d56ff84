"""CDs and floppies of a running machine: looked at, inserted, ejected."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen

from qlaunch.aio import finish
from qlaunch.errors import (
    CommandError,
    ConflictError,
    HostError,
    NotFoundError,
    QlaunchError,
    RefusedError,
)
from qlaunch.host.image_facts import image_contents, image_facts
from qlaunch.machine import live
from qlaunch.machine.machine import Machine
from qlaunch.machine.steps import step
from qlaunch.plan.model import Drive, Layer
from qlaunch.profile.load import load
from qlaunch.qmp.session import Session
from qlaunch.store import paths

# How long a guest has for letting go of a CD that it was asked to give out.
EJECT_TIMEOUT = 5.0
# Seconds in which a CD that was made gets into its drive.
SWEEP_AGE = 60.0
_ATTEMPTS = 5
_POLL = 0.05
_FDSET = "/dev/fdset/"

Tell = Callable[[str, str, float], None]


@frozen(kw_only=True)
class Tray:
    """What QEMU says of a drive: the node in it, the files it comes from, whether its tray is open
    (a floppy drive has none) and whether the guest holds it shut. `replaced` says that the file was
    replaced on the disk since: the guest still reads the old one."""

    drive: Drive
    node: str | None
    file_node: str | None
    path: str | None
    open: bool
    locked: bool
    replaced: bool = False


async def trays(machine: Machine) -> list[Tray]:
    """Every drive of the machine as QEMU has it. Raises: CommandError, SessionLostError."""
    session = machine.talk()
    entries: list[dict[str, Any]] = await session.execute("query-block")
    nodes: list[dict[str, Any]] = await session.execute("query-named-block-nodes", {"flat": True})
    by_name = {str(node["node-name"]): node for node in nodes}
    files = await live.sets(session)
    found = []
    for drive in machine.plan.drives:
        qdev = drive.device.id
        entry = next((each for each in entries if _is(each, qdev)), {})
        node = (entry.get("inserted") or {}).get("node-name")
        file_node = f"{node}-file" if node and f"{node}-file" in by_name else None
        path = None
        if file_node is not None:
            number = str(by_name[file_node]["file"]).removeprefix(_FDSET)
            path = files.get(int(number)) if number.isdigit() else None
        found.append(
            Tray(
                drive=drive, node=node, file_node=file_node, path=path,
                open=bool(entry.get("tray_open")), locked=bool(entry.get("locked")),
            )
        )  # fmt: skip
    return [evolve(tray, replaced=_replaced(machine, tray)) for tray in found]


def _is(entry: dict[str, Any], qdev: str) -> bool:
    said = str(entry.get("qdev", ""))
    return said == qdev or f"/{qdev}" in said


def _replaced(machine: Machine, tray: Tray) -> bool:
    """Whether QEMU's descriptors of the medium are of another file than lies there now."""
    if tray.path is None:
        return False
    try:
        there = os.stat(tray.path)
        listed = os.listdir(f"/proc/{machine.process.pid}/fd")
    except OSError:
        return False
    for number in listed:
        with contextlib.suppress(OSError):
            opened = os.stat(f"/proc/{machine.process.pid}/fd/{number}")
            if (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino):
                return False
    return True


def choose(machine: Machine, ident: str | None) -> Drive:
    """The drive that is meant. Raises: NotFoundError, with the lines that would add one."""
    drives = machine.plan.drives
    if ident is not None:
        found = next((drive for drive in drives if drive.id == ident), None)
        if found is not None:
            return found
        names = ", ".join(drive.id for drive in drives) or "none"
        raise NotFoundError(
            f"{machine.name} has no drive {ident!r}", hint=f"it has {names}; {_lines(ident)}"
        )
    if not drives:
        raise NotFoundError(f"{machine.name} has no drive for a medium", hint=_lines("cd0"))
    cds = [drive for drive in drives if drive.kind == "cdrom"]
    return (cds or list(drives))[0]


def _lines(ident: str) -> str:
    kind = "floppy" if ident.startswith("fd") else "cdrom"
    return f'these lines in its profile add one: [[{kind}]] id = "{ident}"; then restart it'


def check_file(drive: Drive, path: str) -> None:
    """Nothing, when the file at `path` can be a medium of `drive`.

    Raises: NotFoundError, RefusedError, ConflictError with what to do.
    """
    facts = image_contents(path) if _read_only(drive) else image_facts(path, want_write=True)
    if not facts.exists:
        raise NotFoundError(f"{path} is not there; what is inserted stays")
    if facts.problem:
        raise RefusedError(f"{path}: {facts.problem}", hint=facts.hint)
    if facts.format not in (None, "raw"):
        raise RefusedError(
            f"{path} is a {facts.format} image, a medium must be raw (ISO)",
            hint=f"qemu-img convert -O raw {path} NEW.iso",
        )
    if not facts.file_size:
        raise RefusedError(f"{path} is empty")
    if drive.kind == "floppy" and facts.file_size > 2949120:
        raise RefusedError(f"{path} is larger than a floppy, 2.88 MB")
    if facts.holder:
        raise ConflictError(f"{path} is in use by {facts.holder}")


def _read_only(drive: Drive) -> bool:
    """A CD always; a floppy as it was at the start, an empty one too."""
    return drive.kind == "cdrom" or drive.medium is None or drive.medium.read_only


def sweep(name: str, profile: str, used: set[str | None]) -> None:
    """Remove the CDs that were made of files for the machine and are in no drive any more. One that
    is being made just now is too young for that."""
    folder = os.path.join(paths.machine_data(name), "media")
    with contextlib.suppress(OSError, QlaunchError):
        kept = used | {drive.path for drive in load(profile, name=name).cdrom}
        for entry in os.listdir(folder):
            path = os.path.join(folder, entry)
            young = time.time() - os.stat(path).st_mtime < SWEEP_AGE
            if entry.startswith("files-") and path not in kept and not young:
                os.unlink(path)


async def change(
    machine: Machine, drive: Drive, path: str | None, *, force: bool, tell: Tell
) -> Tray:
    """Insert the file at `path`, or with None eject what is in the drive. What fails leaves the old
    medium in.

    Raises: NotFoundError, RefusedError, ConflictError for the file, ConflictError when the guest
    holds the tray shut, HostError, CommandError.
    """
    if path is not None:
        await asyncio.to_thread(check_file, drive, path)
    before = next(tray for tray in await trays(machine) if tray.drive.id == drive.id)
    if path is None and before.node is None:
        return before
    fresh = await _add(machine, drive, path) if path is not None else None
    step("media: added", machine.process.pid)
    try:
        if drive.kind == "cdrom" and not before.open:
            await _open(machine, before, force=force, tell=tell)
    except BaseException:
        if fresh is not None:
            await finish(_remove(machine, fresh.node, fresh.file_node))
        raise
    await finish(_swap(machine, drive, before, fresh))
    return next(tray for tray in await trays(machine) if tray.drive.id == drive.id)


async def _add(machine: Machine, drive: Drive, path: str) -> Layer:
    """Give QEMU the new medium, in no drive yet. Raises: HostError, CommandError."""
    session = machine.talk()
    nodes: list[dict[str, Any]] = await session.execute("query-named-block-nodes", {"flat": True})
    taken = {str(node["node-name"]) for node in nodes}
    names = [drive.id, *(f"{drive.id}-{number}" for number in range(2, 9))]
    node = next(name for name in names if not {name, f"{name}-file"} & taken)
    read_only = _read_only(drive)
    number = await live.hand_over(session, path, write=not read_only)
    layer = Layer(node=node, file_node=f"{node}-file", path=path, format="raw", read_only=read_only)
    file = {"driver": "file", "node-name": layer.file_node, "filename": f"{_FDSET}{number}"}
    common = {"read-only": read_only}
    try:
        await session.execute("blockdev-add", file | common | {"auto-read-only": False})
        await session.execute(
            "blockdev-add",
            {"driver": "raw", "node-name": node, "file": layer.file_node, **common},
        )
    except BaseException:
        await finish(_remove(machine, node, layer.file_node))
        raise
    return layer


async def _open(machine: Machine, tray: Tray, *, force: bool, tell: Tell) -> None:
    """Open the tray; a guest that holds it shut is asked, and with `force` not listened to.

    Raises: ConflictError when it does not let go.
    """
    session, qdev = machine.talk(), tray.drive.device.id
    await session.execute("blockdev-open-tray", {"id": qdev, "force": False})
    if await _is_open(machine, tray.drive):
        return
    if force:
        await session.execute("blockdev-open-tray", {"id": qdev, "force": True})
        return
    tell("media", "the guest uses it; waiting for it to let go", 0.0)
    try:
        async with asyncio.timeout(EJECT_TIMEOUT):
            await _until_open(machine, tray.drive)
    except TimeoutError:
        raise ConflictError(
            f"{machine.name}: the guest holds {tray.drive.id} shut",
            hint="unmount it in the guest, or --force: as if the CD were pulled out with a paper"
            " clip",
        ) from None


async def _until_open(machine: Machine, drive: Drive) -> None:
    while True:
        if await _is_open(machine, drive):
            return
        await asyncio.sleep(_POLL)


async def _is_open(machine: Machine, drive: Drive) -> bool:
    return next(tray.open for tray in await trays(machine) if tray.drive.id == drive.id)


async def _swap(machine: Machine, drive: Drive, before: Tray, fresh: Layer | None) -> None:
    """Take the old medium out and put the new one in. The plan says so before: when that cannot be
    written, or QEMU does not do it, everything is as it was.

    Raises: HostError, CommandError.
    """
    session, qdev, plan = machine.talk(), drive.device.id, machine.plan
    drives = tuple(
        evolve(each, medium=fresh) if each.id == drive.id else each for each in plan.drives
    )
    try:
        await machine.change_plan(evolve(plan, drives=drives))
        step("media: planned", machine.process.pid)
        if before.node is not None:
            await _while_open(session, "blockdev-remove-medium", {"id": qdev})
        step("media: out", machine.process.pid)
        if fresh is not None:
            arguments = {"id": qdev, "node-name": fresh.node}
            await _while_open(session, "blockdev-insert-medium", arguments)
        step("media: in", machine.process.pid)
    except (CommandError, HostError):
        if before.node is not None:  # back in with it
            with contextlib.suppress(CommandError):
                arguments = {"id": qdev, "node-name": before.node}
                await session.execute("blockdev-insert-medium", arguments)
        if fresh is not None:
            await _remove(machine, fresh.node, fresh.file_node)
        with contextlib.suppress(HostError):
            await machine.change_plan(plan)
        raise
    finally:
        if drive.kind == "cdrom":
            with contextlib.suppress(QlaunchError):
                await session.execute("blockdev-close-tray", {"id": qdev})
    if before.node is not None:
        await _remove(machine, before.node, before.file_node)


async def _while_open(session: Session, command: str, arguments: dict[str, Any]) -> None:
    """Execute what needs an open tray; a guest may close it again meanwhile."""
    for attempt in range(_ATTEMPTS):
        try:
            await session.execute(command, arguments)
            return
        except CommandError as error:
            if "not open" not in error.message or attempt == _ATTEMPTS - 1:
                raise
        await session.execute("blockdev-open-tray", {"id": arguments["id"], "force": True})


async def _remove(machine: Machine, node: str, file_node: str | None) -> None:
    session = machine.talk()
    nodes: list[dict[str, Any]] = await session.execute("query-named-block-nodes", {"flat": True})
    files = {str(each["node-name"]): str(each["file"]) for each in nodes}
    for name in (node, file_node):
        if name is not None and name in files:
            with contextlib.suppress(CommandError):
                await session.execute("blockdev-del", {"node-name": name})
    number = files.get(file_node or "", "").removeprefix(_FDSET)
    if number.isdigit():
        await live.take_back(session, int(number))


async def tidy(machine: Machine) -> None:
    """Have the plan say what is really in the drives, and drop media that are in none."""
    found = await trays(machine)
    inside = {tray.node for tray in found}
    drives = []
    for tray in found:
        medium = tray.drive.medium
        if tray.node is None or tray.path is None:
            medium = None
        elif medium is None or medium.node != tray.node:
            medium = Layer(
                node=tray.node, file_node=f"{tray.node}-file", path=tray.path, format="raw",
                read_only=_read_only(tray.drive),
            )  # fmt: skip
        drives.append(evolve(tray.drive, medium=medium))
    if tuple(drives) != machine.plan.drives:
        await machine.change_plan(evolve(machine.plan, drives=tuple(drives)))
    nodes: list[dict[str, Any]] = await machine.talk().execute(
        "query-named-block-nodes", {"flat": True}
    )
    ours = {drive.id for drive in machine.plan.drives}
    for node in nodes:
        name = str(node["node-name"])
        base, _, number = name.rpartition("-")
        loose = name in ours or (base in ours and number.isdigit())
        if loose and name not in inside:
            await _remove(machine, name, f"{name}-file")
