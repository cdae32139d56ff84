"""The verbs for whoever looks at a machine's screen: passwords and clients."""

from __future__ import annotations

import socket
from typing import Any

from attrs import evolve

from qlaunch.control import words
from qlaunch.errors import PhaseError, QlaunchError, UsageError
from qlaunch.machine.gateway import client_address
from qlaunch.machine.machine import Machine
from qlaunch.machine.secrets import check_password
from qlaunch.supervisor.request import Request

# QEMU counts an expiry in whole seconds.
SHORTEST = 1.0
_CHANNELS = {
    1: "main", 2: "display", 3: "inputs", 4: "cursor", 5: "playback", 6: "record", 8: "smartcard",
    9: "usbredir", 10: "port", 11: "webdav",
}  # fmt: skip


async def password(request: Request) -> Any:
    """Ask clients over TCP for this password from now on; those who are in stay in."""
    secret = check_password(request.text("password"), what="the password")
    expires = request.seconds("expires")
    if expires is not None and expires < SHORTEST:
        raise UsageError("a password that expires lasts at least a second")
    actor = await request.actor()
    machine = actor.running()
    shown = machine.plan.display
    protocols = [name for name in ("spice", "vnc") if getattr(shown, name)]
    if not protocols:
        raise PhaseError(f"{actor.name} shows no screen", hint="set display.spice = true")
    session = machine.talk()
    until = "never" if expires is None else f"+{round(expires)}"
    for protocol in protocols:
        await session.execute("set_password", {"protocol": protocol, "password": secret})
        await session.execute("expire_password", {"protocol": protocol, "time": until})
    if shown.access == "open":
        # Before anybody is told: the next supervisor must know, too.
        await machine.change_plan(evolve(machine.plan, display=evolve(shown, ticket=True)))
    machine.gateway.asks = True
    machine.log.say(f"a new password for clients over TCP, {_words(expires)}")
    return {
        "name": actor.name,
        "expires": expires,
        "tcp": [endpoint.uri for endpoint in shown.endpoints if not endpoint.path],
    }


def _words(expires: float | None) -> str:
    return "until the machine stops" if expires is None else f"for {expires:g} s"


async def screen(request: Request) -> Any:
    """Answer, then make the request's connection a VNC client's: QEMU has it from then on."""
    actor = await request.actor()
    machine = actor.running()
    if not (machine.plan.display.web or machine.plan.display.vnc):
        raise PhaseError(
            f"{actor.name} shows no screen to a browser",
            hint="it has no video card, its QEMU has no VNC, or an older qlaunch started it:"
            f" `qlaunch restart {actor.name}`",
        )
    machine.talk()
    # The server of VNC speaks first, so nothing has come that would be lost.
    transport = request.writer.transport
    transport.pause_reading()  # type: ignore[attr-defined]  # typeshed: a WriteTransport only
    connection = request.writer.get_extra_info("socket")
    client = socket.fromfd(connection.fileno(), connection.family, connection.type)
    try:
        request.writer.write(words.encode({"result": {"name": actor.name}}))
        await request.writer.drain()
        await machine.gateway.let_in("vnc", client, skip_login=True)
    except QlaunchError as error:  # nobody is left who could read it
        machine.log.say(f"a browser could not be let in: {error.message}")
    finally:
        client.close()


async def clients(request: Request) -> Any:
    """Who looks at the screen."""
    actor = await request.actor()
    machine = actor.running()
    return {"name": actor.name, "clients": await _viewers(machine)}


async def _viewers(machine: Machine) -> list[dict[str, Any]]:
    session, found = machine.talk(), []
    if machine.plan.display.spice:
        known: dict[object, dict[str, Any]] = {}
        for channel in (await session.execute("query-spice")).get("channels", ()):
            viewer = known.setdefault(
                channel.get("connection-id"),
                {"protocol": "spice", "from": _where(channel), "tls": _is_tls(channel)},
            )
            number = int(channel.get("channel-type", 0))
            viewer.setdefault("channels", []).append(_CHANNELS.get(number, str(number)))
        found += [{**each, "channels": sorted(each["channels"])} for each in known.values()]
    return found


def _is_tls(channel: dict[str, Any]) -> bool:
    return channel.get("family") == "unix" and client_address(channel)[0] != ""


def _where(channel: dict[str, Any]) -> str:
    address, _port = client_address(channel)
    return address or "this computer"
