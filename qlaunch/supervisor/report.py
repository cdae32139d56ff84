"""What `ps` and `status` say about a machine, as plain data."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from typing import Any

import attrs

from qlaunch.errors import NotFoundError, QlaunchError
from qlaunch.host.landlock import FULL_FILES
from qlaunch.host.usage import Usage, usage
from qlaunch.machine.machine import Machine
from qlaunch.machine.rows import address, nic_row
from qlaunch.plan import agents
from qlaunch.plan.model import Disk, Drive, Endpoint, Nic, Plan
from qlaunch.qmp.session import Session
from qlaunch.store import machines
from qlaunch.supervisor.actor import Actor
from qlaunch.units import format_size

QUERY_TIMEOUT = 2.0


async def row(actor: Actor) -> dict[str, Any]:
    """One line of `ps`. Memory in bytes, CPU in percent of one core since the start."""
    machine = actor.machine
    plain: dict[str, Any] = {
        "name": actor.name,
        "state": await state_of(actor),
        "since": actor.since,
        "pid": None,
        "memory": None,
        "cpu": None,
        "accel": None,
        "confined": [],
        "title": None,
        "guest": None,
        "profile": None,
        "display": [],
        "network": [],
        "after": [],
        "warnings": [dict(each) for each in (actor.trouble, *actor.warnings) if each],
    }
    if machine is None:
        return plain
    plan = machine.plan
    used = _usage(machine.process.pid)
    return plain | {
        "pid": machine.process.pid,
        "memory": used.rss if used else None,
        "cpu": _percent(used.cpu_seconds, machine.started) if used else None,
        "accel": plan.board.accel,
        "confined": confinement(machine),
        "title": plan.title,
        "guest": plan.guest,
        "profile": plan.profile,
        "display": [endpoint.uri for endpoint in plan.display.endpoints],
        "network": [_cable(nic) for nic in plan.nics],
        "after": list(plan.lifecycle.after),
    }


async def state_of(actor: Actor) -> str:
    """The state as it is now: QEMU is asked, so that one that hangs is seen."""
    machine = actor.machine
    if machine is None or (actor.operation is not None and actor.operation.kind != "resetting"):
        return actor.state
    state = await machine.run_state()
    if state == "unresponsive":
        await actor.rejoin()
        state = await machine.run_state() if machine.session is not None else state
    if machine.process.ended:
        return "stopped"
    if state != actor.state:
        actor.note_state(state)
    return state


async def rows(actors: Iterable[Actor]) -> list[dict[str, Any]]:
    """The lines of `ps`, all machines asked side by side: a stuck one delays none."""
    found = await asyncio.gather(*(row(actor) for actor in actors))
    return sorted(found, key=lambda entry: str(entry["name"]))


async def used(actor: Actor) -> dict[str, Any]:
    """What a machine has used since its start, and holds now; `at` is when that was."""
    machine = actor.machine
    plain: dict[str, Any] = {
        "name": actor.name, "state": actor.state, "pid": None, "memory": None,
        "cpu_seconds": None, "read": None, "written": None, "profile": None,
    }  # fmt: skip
    if machine is not None:
        found = _usage(machine.process.pid)
        counted = await _counters(machine.session) if machine.session is not None else {}
        io = [counted[disk.id] for disk in machine.plan.disks if disk.id in counted]
        plain |= {
            "pid": machine.process.pid,
            "memory": found.rss if found else None,
            "cpu_seconds": found.cpu_seconds if found else None,
            "read": sum(each["read"] for each in io) if io else None,
            "written": sum(each["written"] for each in io) if io else None,
            "profile": machine.plan.profile,
        }
    return plain | {"at": time.monotonic()}


async def uses(actors: Iterable[Actor]) -> list[dict[str, Any]]:
    """What all machines use: a stuck one delays none of the others."""
    found = await asyncio.gather(*(used(actor) for actor in actors))
    return sorted(found, key=lambda entry: str(entry["name"]))


def _usage(pid: int, *, want_pss: bool = False) -> Usage | None:
    try:
        return usage(pid, want_pss=want_pss)
    except NotFoundError:
        return None


def _percent(cpu_seconds: float, started: float) -> float:
    lived = max(time.time() - started, 0.1)
    return round(100 * cpu_seconds / lived, 1)


async def status(actor: Actor) -> dict[str, Any]:
    """Everything about one machine."""
    summary = await row(actor)
    machine = actor.machine
    if machine is None:
        return summary
    plan, live = machine.plan, await _live(machine)
    used = _usage(machine.process.pid, want_pss=True)
    usage_now = {
        "memory": summary.pop("memory"),
        "pss": used.pss if used else None,
        "cpu_percent": summary.pop("cpu"),
    }
    return summary | {
        "usage": usage_now,
        "uuid": plan.uuid,
        "operation": actor.operation.kind if actor.operation else None,
        **_board_sections(plan, live),
        "security": security(machine),
        **_device_sections(plan, live),
        "limits": dict(plan.limits),
        "sockets": {"monitor": plan.chardev("monitor").path},
        "log": machines.log_path(plan.name),
    }


def _board_sections(plan: Plan, live: dict[str, Any]) -> dict[str, Any]:
    board = plan.board
    return {
        "machine": {
            "type": board.machine,
            "accel": board.accel,
            "emulator": plan.emulator,
            "qemu": plan.qemu_version,
            "firmware": plan.firmware.code.path if plan.firmware else "BIOS",
            "secure_boot": bool(plan.firmware and plan.firmware.secure),
            "tpm": plan.tpm is not None,
        },
        "cpu": {
            "model": ",".join((board.cpu, *board.cpu_flags)),
            "count": board.cpus,
            "sockets": board.sockets,
            "cores": board.cores,
            "threads": board.threads,
        },
        "memory_size": {
            "size": format_size(board.memory),
            "current": format_size(live.get("balloon") or board.memory_current),
        },
    }


def _device_sections(plan: Plan, live: dict[str, Any]) -> dict[str, Any]:
    return {
        "displays": [
            {"protocol": endpoint.protocol, "uri": endpoint.uri, **_access(plan, endpoint)}
            for endpoint in plan.display.endpoints
        ],
        "view": attrs.asdict(plan.view) | {"sharing": agents.shares_folders(plan)},
        "agents": agents.told(plan, live.get("open", frozenset())),
        "disks": [_disk(disk, live) for disk in plan.disks],
        "drives": [_drive(drive) for drive in plan.drives],
        "nics": [nic_row(nic) for nic in plan.nics],
        "serials": [_serial(plan, ident) for ident in plan.serials],
        "devices": [
            {"id": device.id, "driver": device.driver, "address": address(device)}
            for device in (*plan.controllers, *plan.devices)
        ],
    }


def _access(plan: Plan, endpoint: Endpoint) -> dict[str, Any]:
    """Who is let in at an endpoint, and whether it speaks TLS."""
    if endpoint.path:
        return {"access": "you"}
    return {"access": plan.display.access, "tls": endpoint.tls}


def _cable(nic: Nic) -> str:
    """Where the cable leads, in two words."""
    return f"{nic.attachment.network} ({nic.backend})" if nic.attachment else nic.backend


def _serial(plan: Plan, ident: str) -> dict[str, Any]:
    return {
        "id": ident,
        "socket": plan.chardev(f"{ident}-chr").path,
        "log": machines.console_log_path(plan.name, ident),
    }


def confinement(machine: Machine) -> list[str]:
    """What keeps QEMU from touching what is not its machine's."""
    words = ["seccomp"] if machine.plan.sandbox else []
    return [*words, f"landlock (ABI {machine.landlock})"] if machine.landlock else words


def security(machine: Machine) -> dict[str, Any]:
    """How well this computer is kept from the guest."""
    tcp = "may use TCP" if machine.tcp else "no TCP"
    gaps = []
    if not machine.plan.sandbox:
        gaps.append("not confined: the profile says security.sandbox = false")
    elif not machine.landlock:
        gaps.append("this kernel has no Landlock: QEMU may open every file that you may")
    elif machine.landlock < FULL_FILES:
        gaps.append("this kernel's Landlock does not keep QEMU from truncating files")
    if machine.plan.board.accel == "tcg":
        gaps.append("TCG is no security boundary (QEMU docs: security)")
    confined = ", ".join(confinement(machine)) or "nothing"
    return {"confined": confined, "network": tcp, "gaps": gaps}


def _disk(disk: Disk, live: dict[str, Any]) -> dict[str, Any]:
    top = disk.layers[0]
    return {
        "id": disk.id,
        "bus": disk.bus,
        "address": address(disk.device),
        "format": top.format,
        "path": top.path,
        "size": live.get("sizes", {}).get(disk.id),
        "used": _used(top.path),
        "chain": [layer.path for layer in disk.layers[1:]],
        "snapshot": disk.snapshot,
        "limits": dict(disk.limits),
        "io": live.get("io", {}).get(disk.id),
    }


def _drive(drive: Drive) -> dict[str, Any]:
    medium = drive.medium.path if drive.medium else None
    return {"id": drive.id, "kind": drive.kind, "address": address(drive.device), "medium": medium}


def _used(path: str) -> int | None:
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return None


async def _live(machine: Machine) -> dict[str, Any]:
    """What only QEMU knows: sizes, I/O counters, the balloon. Empty where it does not answer."""
    session = machine.session
    found: dict[str, Any] = {}
    if session is None:
        return found
    blocks = await _ask(session, "query-named-block-nodes", {"flat": True})
    found["sizes"] = {
        node["node-name"]: node["image"]["virtual-size"] for node in blocks or [] if "image" in node
    }
    found["io"] = await _counters(session)
    chardevs = await _ask(session, "query-chardev", {})
    found["open"] = frozenset(each["label"] for each in chardevs or [] if each["frontend-open"])
    balloon = await _ask(session, "query-balloon", {})
    found["balloon"] = balloon["actual"] if balloon else None
    return found


async def _counters(session: Session) -> dict[str, Any]:
    counters = await _ask(session, "query-blockstats", {})
    return {
        entry["node-name"]: {
            key: entry["stats"][name]
            for key, name in (
                ("read", "rd_bytes"),
                ("written", "wr_bytes"),
                ("flushes", "flush_operations"),
            )
        }
        for entry in counters or []
        if "node-name" in entry
    }


async def _ask(session: Session, command: str, arguments: dict[str, Any]) -> Any:
    try:
        return await session.execute(command, arguments or None, timeout=QUERY_TIMEOUT)
    except QlaunchError:
        return None
