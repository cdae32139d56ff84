"""The verbs of the control socket: each takes a request and returns plain data."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define

from qlaunch.control import words
from qlaunch.errors import ConflictError, NotFoundError, TimedOutError, UsageError
from qlaunch.machine import keys, screen
from qlaunch.machine.launch import Order
from qlaunch.machine.prepare import Prepared, prepare
from qlaunch.store import machines, paths
from qlaunch.supervisor import report
from qlaunch.supervisor.actor import Actor

if TYPE_CHECKING:
    from qlaunch.supervisor.server import Server

# A command that a person types may take long: a snapshot, a dump.
PERSON_TIMEOUT = 600.0


@define(kw_only=True, eq=False)
class Request:
    """One request under way."""

    server: Server
    args: Mapping[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    cancelled_by: str | None = None

    def text(self, key: str) -> str:
        """A text among the arguments. Raises: UsageError."""
        value = self.args.get(key)
        if not isinstance(value, str) or not value:
            raise UsageError(f"the request lacks {key!r}")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts among the arguments, empty when not there. Raises: UsageError."""
        value = self.args.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{key!r} is not a list of texts")
        return value

    def seconds(self, key: str) -> float | None:
        """A time limit among the arguments. Raises: UsageError."""
        value = self.args.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or value < 0:
            raise UsageError(f"{key!r} is not a number of seconds")
        return float(value)

    def environment(self) -> dict[str, str]:
        value = self.args.get("env") or {}
        if not isinstance(value, dict):
            raise UsageError("'env' is not a table")
        return {str(key): str(item) for key, item in value.items()}

    def actor(self) -> Actor:
        """The machine that the request names. Raises: NotFoundError when it does not run."""
        name = paths.check_name(self.text("name"))
        actor = self.server.actors.get(name)
        if actor is None:
            raise not_running(name)
        return actor

    def tell(self, step: str, text: str, seconds: float, *, machine: str = "") -> None:
        """Send a progress line."""
        line = {
            "machine": machine or self.args.get("name"),
            "step": step,
            "text": text,
            "seconds": round(seconds, 3),
        }
        if not self.writer.is_closing():
            self.writer.write(words.encode({"progress": line}))


def not_running(name: str) -> NotFoundError:
    if name in machines.names() or name in paths.profile_names():
        return NotFoundError(f"{name} is not running", hint=f"`qlaunch up {name}` starts it")
    return NotFoundError(f"there is no machine {name!r}", hint="`qlaunch list` shows the profiles")


async def ps(request: Request) -> Any:
    server = request.server
    return {
        "supervisor": {"pid": os.getpid(), "version": server.version, "since": server.started},
        "machines": await report.rows(list(server.actors.values())),
    }


async def status(request: Request) -> Any:
    return await report.status(request.actor())


async def up(request: Request) -> Any:
    begun = time.monotonic()
    path, overrides = request.text("profile"), request.texts("set")
    name = request.args.get("name")
    prepared = await prepare(path, name=str(name) if name else None, overrides=overrides)
    machine = prepared.plan.name
    if (running := request.server.actors.get(machine)) is not None:
        raise _already(running)
    prepared.raise_errors()
    actor = request.server.host(machine)
    await start(actor, prepared, request)
    return await started(actor, prepared, begun)


def _already(actor: Actor) -> ConflictError:
    machine = actor.machine
    pid = f" (pid {machine.process.pid})" if machine else ""
    return ConflictError(
        f"{actor.name} is {actor.state} already{pid}",
        hint=f"`qlaunch status {actor.name}` shows it",
    )


async def start(actor: Actor, prepared: Prepared, request: Request) -> None:
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
        paused=bool(request.args.get("paused")),
        environment=request.environment(),
        warnings=tuple(finding.to_dict() for finding in prepared.resolution.warnings),
        step=step,
    )
    try:
        await actor.start(order)
    except asyncio.CancelledError:
        request.cancelled_by = actor.cancelled_by
        raise


async def started(actor: Actor, prepared: Prepared, begun: float) -> dict[str, Any]:
    """The answer to a start that went well."""
    machine = actor.machine
    return {
        "name": actor.name,
        "pid": machine.process.pid if machine else None,
        "state": actor.state,
        "seconds": round(time.monotonic() - begun, 3),
        "warnings": [finding.to_dict() for finding in prepared.resolution.warnings],
        "display": [endpoint.uri for endpoint in prepared.plan.display.endpoints],
        "serial": bool(prepared.plan.serials),
        "already": False,
    }


async def down(request: Request) -> Any:
    actor = request.actor()
    how = await actor.down(
        timeout=request.seconds("timeout"), force=bool(request.args.get("force")), tell=request.tell
    )
    return {"name": actor.name, "how": how}


async def kill(request: Request) -> Any:
    actor = request.actor()
    return {"name": actor.name, "how": await actor.kill(request.tell)}


async def restart(request: Request) -> Any:
    """Down and up again, with the profile as it is now."""
    begun = time.monotonic()
    actor = request.actor()
    if actor.machine is None:
        raise ConflictError(f"{actor.name} is {actor.state}", hint="try again in a moment")
    # Prepared first: a profile that cannot start must not cost the running machine. Its own
    # images are in use by itself, which is no error here.
    profile = actor.machine.plan.profile
    before = await prepare(profile, name=actor.name, overrides=request.texts("set"))
    own = f"machine {actor.name}"
    for finding in before.resolution.errors:
        if finding.cause != "conflict" and own not in finding.message:
            before.raise_errors()
    await actor.down(
        timeout=request.seconds("timeout"), force=bool(request.args.get("force")), tell=request.tell
    )
    prepared = await prepare(profile, name=actor.name, overrides=request.texts("set"))
    prepared.raise_errors()
    fresh = request.server.host(actor.name)
    await start(fresh, prepared, request)
    return await started(fresh, prepared, begun)


async def reset(request: Request) -> Any:
    actor = request.actor()
    await actor.reset()
    return {"name": actor.name}


async def pause(request: Request) -> Any:
    actor = request.actor()
    await actor.session().execute("stop")
    actor.note_state("paused")
    return {"name": actor.name, "state": "paused"}


async def resume(request: Request) -> Any:
    actor = request.actor()
    await actor.session().execute("cont")
    state = await report.state_of(actor)
    return {"name": actor.name, "state": state}


async def wait(request: Request) -> Any:
    wanted = request.args.get("for") or "stopped"
    if wanted not in ("stopped", "running"):
        raise UsageError(f"cannot wait for {wanted!r}", hint="wait for stopped or running")
    name = paths.check_name(request.text("name"))
    limit = request.seconds("timeout")
    actor = request.server.actors.get(name)
    try:
        async with asyncio.timeout(limit):
            if wanted == "stopped":
                if actor is not None:
                    await actor.gone.wait()
                return {"name": name, "state": "stopped"}
            while actor is None or actor.state != "running":
                await request.server.change()
                actor = request.server.actors.get(name)
    except TimeoutError:
        state = actor.state if actor else "stopped"
        raise TimedOutError(f"{name} is {state}, not {wanted}, after {limit:g} s") from None
    return {"name": name, "state": "running"}


async def screenshot(request: Request) -> Any:
    image_format = str(request.args.get("format") or "png")
    data = await screen.screenshot(request.actor().session(), image_format)
    return {"format": image_format, "data": base64.b64encode(data).decode()}


async def send_key(request: Request) -> Any:
    actor = request.actor()
    chords = [keys.parse_chord(text) for text in request.texts("keys")]
    await screen.press(actor.session(), chords, request.seconds("hold") or 0.0)
    return {"name": actor.name, "keys": len(chords)}


async def type_text(request: Request) -> Any:
    actor = request.actor()
    chords = keys.text_to_chords(request.text("text"))
    await screen.press(actor.session(), chords)
    return {"name": actor.name, "keys": len(chords)}


async def qmp(request: Request) -> Any:
    arguments = request.args.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise UsageError("'arguments' is not a table")
    session = request.actor().session()
    return {
        "return": await session.execute(request.text("command"), arguments, timeout=PERSON_TIMEOUT)
    }


async def hmp(request: Request) -> Any:
    arguments = {"command-line": request.text("line")}
    session = request.actor().session()
    return {
        "text": await session.execute("human-monitor-command", arguments, timeout=PERSON_TIMEOUT)
    }


async def console(request: Request) -> Any:
    """Answer, then carry the serial port's bytes both ways until one side hangs up."""
    actor = request.actor()
    wanted = request.args.get("serial")
    consoles = actor.consoles()
    if not consoles:
        raise NotFoundError(
            f"{actor.name} has no serial port",
            hint='add [[serial]] with id = "serial0" to its profile',
        )
    ident = str(wanted) if wanted else next(iter(consoles))
    if ident not in consoles:
        raise NotFoundError(
            f"{actor.name} has no serial port {ident!r}", hint=f"it has {', '.join(consoles)}"
        )
    port = consoles[ident]
    request.writer.write(words.encode({"result": {"serial": ident, "backlog": len(port.backlog)}}))
    port.add(request.writer)
    try:
        while data := await request.reader.read(4096):
            port.write(data)
    finally:
        port.remove(request.writer)


async def supervisor(request: Request) -> Any:
    action = request.args.get("action") or "status"
    server = request.server
    if action == "stop":
        asyncio.get_running_loop().call_soon(server.stop)
    elif action != "status":
        raise UsageError(f"the supervisor cannot {action!r}", hint="status or stop")
    return {
        "pid": os.getpid(),
        "version": server.version,
        "since": server.started,
        "machines": sorted(server.actors),
        "socket": server.path,
    }


VERBS: dict[str, Callable[[Request], Awaitable[Any]]] = {
    "ps": ps,
    "status": status,
    "up": up,
    "down": down,
    "kill": kill,
    "restart": restart,
    "reset": reset,
    "pause": pause,
    "resume": resume,
    "wait": wait,
    "screenshot": screenshot,
    "send-key": send_key,
    "type": type_text,
    "qmp": qmp,
    "hmp": hmp,
    "console": console,
    "supervisor": supervisor,
}
