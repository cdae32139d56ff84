"""The verb for CDs and floppies."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from qlaunch.errors import NotFoundError, RefusedError, UsageError
from qlaunch.machine import media
from qlaunch.store import machines, paths
from qlaunch.supervisor.benches import profile_of
from qlaunch.supervisor.request import Request


async def change(request: Request) -> Any:
    """Insert, eject, or without either only list."""
    begun = time.monotonic()
    name = paths.check_name(request.text("name"))
    path, eject = request.optional_text("file"), request.flag("eject")
    if path is not None and not os.path.isabs(path):
        raise UsageError(f"the path is not absolute: {path}")
    if name not in request.server.actors and name in machines.running_names():
        await request.server.adopt_strays()
    actor = request.server.actors.get(name)
    if actor is None:
        return await _stopped(request, name, path, eject=eject)
    wanted = request.optional_text("drive")
    with actor.operate("changing"):
        machine = actor.running()
        if path is None and not eject:
            await media.tidy(machine)
            found = await media.trays(machine)
            return {"name": name, "drives": [about(tray) for tray in found]}
        drive = media.choose(machine, wanted)
        tray = await media.change(
            machine, drive, path, force=request.flag("force"), tell=request.tell
        )
        used = {found.path for found in await media.trays(machine)}
    if request.flag("persist"):
        await asyncio.to_thread(_write, name, drive.kind, drive.id, path)
    await asyncio.to_thread(media.sweep, name, profile_of(name), used)
    return {
        "name": name,
        "changed": about(tray),
        "persisted": request.flag("persist"),
        "seconds": round(time.monotonic() - begun, 3),
    }


def about(tray: media.Tray) -> dict[str, Any]:
    return {
        "drive": tray.drive.id,
        "kind": tray.drive.kind,
        "file": tray.path,
        "open": tray.open,
        "locked": tray.locked,
        "replaced": tray.replaced,
    }


async def _stopped(request: Request, name: str, path: str | None, *, eject: bool) -> Any:
    """A machine that does not run has its medium in its profile."""
    from qlaunch.machine.prepare import prepare

    handle = machines.lock(name)
    try:
        plan = (await prepare(profile_of(name), name=name)).plan
        if path is None and not eject:
            drives = [
                {"drive": each.id, "kind": each.kind, "open": False, "locked": False,
                 "file": each.medium.path if each.medium else None, "replaced": False}
                for each in plan.drives
            ]  # fmt: skip
            return {"name": name, "drives": drives}
        wanted = request.optional_text("drive")
        found = [each for each in plan.drives if wanted in (None, each.id)]
        if not found:
            raise NotFoundError(
                f"{name} has no drive {wanted!r}" if wanted else f"{name} has no drive",
                hint='these lines in its profile add one: [[cdrom]] id = "cd0"',
            )
        if path is not None:
            await asyncio.to_thread(media.check_file, found[0], path)
        await asyncio.to_thread(_write, name, found[0].kind, found[0].id, path)
        await asyncio.to_thread(media.sweep, name, profile_of(name), {path})
    finally:
        os.close(handle)
    about_it = {"drive": found[0].id, "kind": found[0].kind, "file": path, "open": False}
    return {"name": name, "changed": about_it, "persisted": True, "seconds": 0.0}


def _write(name: str, kind: str, ident: str, path: str | None) -> None:
    """Say the medium in the profile. Raises: RefusedError, ProfileError, HostError."""
    import tomlkit  # late: the supervisor lives without it

    from qlaunch.machine import texts

    profile = profile_of(name)
    if os.path.dirname(profile) == paths.shipped_profiles():
        raise RefusedError(
            f"{profile} came with qlaunch and is not changed",
            hint=f"`qlaunch edit {name}` makes a copy of your own",
        )
    document = tomlkit.parse(texts.read(profile))
    items = document.get(kind) or []
    item = next((each for each in items if each.get("id") == ident), None)
    if item is None:
        raise RefusedError(
            f"{profile} does not say the drive {ident} itself: it comes from what it extends",
            hint=f'add [[{kind}]] with id = "{ident}" to it',
        )
    if path is None:
        item.pop("path", None)
    else:
        item["path"] = path
    texts.replace(profile, tomlkit.dumps(document).encode())
