"""A guest that QEMU stopped because a write failed: it is told, and goes on when there is space.

Nothing is lost: QEMU (werror=stop) keeps the write that failed and does it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from qlaunch.errors import QlaunchError
from qlaunch.host.access import free_space, mount_point
from qlaunch.machine.machine import Machine
from qlaunch.units import short_size

if TYPE_CHECKING:
    from qlaunch.supervisor.actor import Actor

# While a guest stands still for it, its file systems are looked at so often.
PAUSE = 1.0
# With less it would stop again at once.
LEAST_SPACE = 4 << 20
QUERY_TIMEOUT = 5.0


def note_error(actor: Actor, machine: Machine, data: Mapping[str, Any]) -> None:
    """QEMU says that a request failed (BLOCK_IO_ERROR); only some of those stop the guest."""
    if data.get("action") != "stop":
        return
    node = str(data.get("node-name") or data.get("device") or "")
    if data.get("nospace"):
        _watch(actor, machine, _paths(machine, node))
        return
    disk = next(iter(_paths(machine, node)), node)
    verb = "read" if data.get("operation") == "read" else "written"
    actor.trouble = {
        "level": "error",
        "where": "",
        "message": f"stopped: {disk} cannot be {verb}: {data.get('reason') or 'an I/O error'}",
        "hint": f"mend it, then `qlaunch resume {actor.name}`; nothing is lost until then",
        "cause": "host",
    }


async def note_adopted(actor: Actor, machine: Machine) -> None:
    """Find out why an adopted guest stands still with an I/O error, which nobody has seen."""
    try:
        devices = await machine.talk().execute("query-block", timeout=QUERY_TIMEOUT)
    except QlaunchError:
        return
    full = [
        device["inserted"]["node-name"]
        for device in devices
        if device.get("io-status") == "nospace" and device.get("inserted")
    ]
    if full:
        _watch(actor, machine, [path for node in full for path in _paths(machine, node)])


def _paths(machine: Machine, node: str) -> list[str]:
    """The files behind a node; those of all disks when it is none that we know."""
    mine = [
        disk for disk in machine.plan.disks if node == disk.id or node.startswith(f"{disk.id}-")
    ]
    return [disk.layers[0].path for disk in mine or machine.plan.disks]


def _watch(actor: Actor, machine: Machine, paths: Iterable[str]) -> None:
    wanted = sorted(set(paths))
    places = sorted({mount_point(path) for path in wanted})
    first = actor.trouble is None
    actor.trouble = {
        "level": "error",
        "where": "",
        "message": f"stopped: no space left on {', '.join(places)} for {', '.join(wanted)}",
        "hint": "free some: it goes on by itself, and nothing is lost",
        "cause": "host",
    }
    if first:
        actor.later(_go_on_with_space(actor, machine, wanted))


async def _go_on_with_space(actor: Actor, machine: Machine, paths: list[str]) -> None:
    """Let the guest go on once each file system has space, for as long as it stands still."""
    message = str((actor.trouble or {}).get("message"))
    machine.log.say(message)
    actor.tell("disk-full", message=message)
    while actor.machine is machine and not machine.process.ended:
        await asyncio.sleep(PAUSE)
        state = await machine.run_state()
        if state not in ("io-error", "unresponsive"):
            break  # somebody else let it go on
        space = await asyncio.to_thread(_least_space, paths)
        if state == "io-error" and space >= LEAST_SPACE and actor.operation is None:
            machine.log.say(f"there is space again ({short_size(space)}): the guest goes on")
            try:
                await machine.talk().execute("cont")
            except QlaunchError as error:
                machine.log.say(f"it does not go on: {error.message}")
    if actor.machine is machine:
        actor.trouble = None
        actor.tell("disk-has-space")


def _least_space(paths: list[str]) -> int:
    return min((free_space(path) or 0 for path in paths), default=0)
