"""The verbs of the control socket: each takes a request and returns plain data."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from qlaunch.control import words
from qlaunch.errors import ConflictError, NotFoundError, UsageError
from qlaunch.machine import keys, names, screen
from qlaunch.machine.launch import Order
from qlaunch.machine.prepare import Prepared, prepare
from qlaunch.plan.model import Plan
from qlaunch.plan.notes import Finding
from qlaunch.store import files, machines, timeline
from qlaunch.supervisor import continuing, neighbours, power, report
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.own import without_own
from qlaunch.supervisor.request import Request

if TYPE_CHECKING:
    pass

# A command that a person types may take long: a snapshot, a dump.
PERSON_TIMEOUT = 600.0


async def ps(request: Request) -> Any:
    server = request.server
    await server.adopt_strays()
    rows = await report.rows(list(server.actors.values()))
    if not server.foreground:
        known = {row["name"] for row in rows}
        others = await neighbours.rows()
        rows = sorted(
            [*rows, *(row for row in others if row["name"] not in known)],
            key=lambda row: str(row["name"]),
        )
    return {
        "supervisor": {"pid": os.getpid(), "version": server.version, "since": server.started},
        "machines": rows,
    }


async def usage(request: Request) -> Any:
    return {"machines": await report.uses(list(request.server.actors.values()))}


async def status(request: Request) -> Any:
    return await report.status(await request.actor())


async def up(request: Request) -> Any:
    begun = time.monotonic()
    path, overrides = request.text("profile"), request.texts("set")
    if not os.path.isabs(path):
        raise UsageError(f"the profile's path is not absolute: {path}")
    await request.server.adopt_strays()
    prepared = await prepare(
        path,
        name=request.optional_text("name"),
        overrides=overrides,
        folder=request.optional_text("cwd"),
    )
    machine = prepared.plan.name
    if (running := request.server.actors.get(machine)) is not None:
        if request.flag("unless_running") and running.machine is not None:
            return {"name": machine, "state": running.state, "already": True}
        raise _already(running, prepared.profile.file)
    if machine in request.server.collectors:
        from qlaunch.supervisor.snapshots import until_merged

        await until_merged(request, machine)
    if request.flag("fresh"):
        await continuing.forget(machine)
    if (going_on := await continuing.find(machine)) is not None:
        from qlaunch.supervisor import saving

        return await saving.go_on(request, prepared, going_on, begun)
    prepared.raise_errors()
    told = await asyncio.to_thread(_changed_images, prepared.plan)
    actor = request.server.host(machine)
    await start(actor, prepared, request, told)
    return await started(actor, prepared, begun)


def _changed_images(plan: Plan) -> tuple[Finding, ...]:
    if not timeline.load(plan.name).snapshots:
        return ()
    from qlaunch.machine import survey

    return survey.at_start(plan)


def _already(actor: Actor, profile: str) -> ConflictError:
    pid = f" (pid {actor.process.pid})" if actor.process else ""
    machine = actor.machine
    hint = f"`qlaunch status {actor.name}` shows it"
    if machine is not None and machine.plan.profile != profile:
        hint = f"that one is from {machine.plan.profile}; --name gives this one another name"
    return ConflictError(f"{actor.name} is {actor.state} already{pid}", hint=hint)


async def start(
    actor: Actor, prepared: Prepared, request: Request, told: tuple[Finding, ...] = ()
) -> None:
    """Launch a prepared machine on behalf of a request."""
    name = actor.name

    def step(step_name: str, text: str, seconds: float) -> None:
        request.tell(step_name, text, seconds, machine=name)

    order = Order(
        plan=prepared.plan,
        leases=prepared.resolution.leases,
        group=request.server.tasks,
        swtpm=prepared.facts.host.swtpm,
        qemu_img=prepared.facts.host.qemu_img,
        paused=request.flag("paused"),
        environment=request.environment(),
        warnings=(*_warnings(prepared), *(finding.to_dict() for finding in told)),
        step=step,
    )
    await actor.start(order)
    names.complete(name)  # a clone may have been killed just before it said so
    request.server.tidy(name)


def _warnings(prepared: Prepared) -> tuple[Mapping[str, Any], ...]:
    """What the user should know of this start, as `ps` shows it while the machine runs."""
    damaged = [
        Finding(
            level="warning",
            where=path.removesuffix(files.DAMAGED),
            message="was damaged and is not used",
            hint=f"it was set aside as {path}: look at it and remove it",
            cause="host",
        )
        for path in machines.damaged(prepared.plan.name)
    ]
    return tuple(finding.to_dict() for finding in (*prepared.resolution.warnings, *damaged))


async def started(actor: Actor, prepared: Prepared, begun: float) -> dict[str, Any]:
    """The answer to a start that went well."""
    return {
        "name": actor.name,
        "pid": actor.process.pid if actor.process else None,
        "state": actor.state,
        "seconds": round(time.monotonic() - begun, 3),
        "warnings": [dict(warning) for warning in actor.warnings],
        "display": [endpoint.uri for endpoint in prepared.plan.display.endpoints],
        "serial": bool(prepared.plan.serials),
        "already": False,
    }


async def down(request: Request) -> Any:
    timeout, force = request.seconds("timeout"), request.flag("force")
    by_unit = request.flag("by_unit")
    if by_unit and request.text("name") in request.server.releasing:
        return {"name": request.text("name"), "how": "it has ended already"}
    actor = await request.actor()
    actor.keeps_unit = by_unit
    service = request.server.service
    if by_unit and service is not None and await service.leaves_with_all(actor):
        return {"name": actor.name, "how": power.how(actor.name)}
    how = await power.down(actor, timeout=timeout, force=force, tell=request.tell)
    return {"name": actor.name, "how": how}


async def kill(request: Request) -> Any:
    actor = await request.actor()
    return {"name": actor.name, "how": await power.kill(actor, request.tell)}


async def restart(request: Request) -> Any:
    """Down and up again, with the profile as it is now."""
    begun = time.monotonic()
    timeout, force, overrides = (
        request.seconds("timeout"), request.flag("force"), request.texts("set")
    )  # fmt: skip
    request.environment()
    actor = await request.actor()
    machine = actor.running()
    # Prepared first: a profile that cannot start must not cost the running machine.
    profile = machine.plan.profile
    before = await prepare(profile, name=actor.name, overrides=overrides)
    evolve(before.resolution, findings=without_own(before, machine)).raise_errors()
    actor.keeps_unit = True
    await power.down(actor, timeout=timeout, force=force, tell=request.tell)
    prepared = await prepare(profile, name=actor.name, overrides=overrides)
    prepared.raise_errors()
    fresh = request.server.host(actor.name)
    await start(fresh, prepared, request)
    return await started(fresh, prepared, begun)


async def reset(request: Request) -> Any:
    actor = await request.actor()
    await power.reset(actor)
    return {"name": actor.name}


async def pause(request: Request) -> Any:
    actor = await request.actor()
    await actor.session().execute("stop")
    actor.note_state("paused")
    return {"name": actor.name, "state": "paused"}


async def resume(request: Request) -> Any:
    actor = await request.actor()
    continuing.refuse_half_done(actor.name)
    await actor.session().execute("cont")
    state = await report.state_of(actor)
    return {"name": actor.name, "state": state}


async def screenshot(request: Request) -> Any:
    image_format = request.optional_text("format") or "png"
    actor = await request.actor()
    data = await screen.screenshot(actor.session(), image_format)
    return {"format": image_format, "data": base64.b64encode(data).decode()}


async def send_key(request: Request) -> Any:
    chords = [keys.parse_chord(text) for text in request.texts("keys")]
    hold = request.seconds("hold") or 0.0
    actor = await request.actor()
    await screen.press(actor.session(), chords, hold)
    return {"name": actor.name, "keys": len(chords)}


async def type_text(request: Request) -> Any:
    chords = keys.text_to_chords(request.text("text"))
    actor = await request.actor()
    await screen.press(actor.session(), chords)
    return {"name": actor.name, "keys": len(chords)}


async def qmp(request: Request) -> Any:
    command, arguments = request.text("command"), request.args.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise UsageError("'arguments' is not a table")
    session = (await request.actor()).session()
    return {"return": await session.execute(command, arguments, timeout=PERSON_TIMEOUT)}


async def hmp(request: Request) -> Any:
    arguments = {"command-line": request.text("line")}
    session = (await request.actor()).session()
    return {
        "text": await session.execute("human-monitor-command", arguments, timeout=PERSON_TIMEOUT)
    }


async def console(request: Request) -> Any:
    """Answer, then carry the serial port's bytes both ways until one side hangs up."""
    wanted, take = request.optional_text("serial"), request.flag("take")
    actor = await request.actor()
    consoles = actor.consoles()
    if not consoles:
        raise NotFoundError(
            f"{actor.name} has no serial port",
            hint='add [[serial]] with id = "serial0" to its profile',
        )
    ident = wanted or next(iter(consoles))
    if ident not in consoles:
        raise NotFoundError(
            f"{actor.name} has no serial port {ident!r}", hint=f"it has {', '.join(consoles)}"
        )
    port = consoles[ident]
    types = not request.flag("read_only") and port.claim(request.writer, take=take)
    answer = {"serial": ident, "backlog": len(port.backlog), "types": types}
    request.writer.write(words.encode({"result": answer}))
    port.add(request.writer)
    try:
        while data := await request.reader.read(4096):
            if port.may_write(request.writer):
                await port.write(data)
    finally:
        port.remove(request.writer)
