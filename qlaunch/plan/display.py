"""SPICE and VNC: what QEMU is told, and where qlaunch lets clients in.

QEMU itself listens on nothing: clients reach qlaunch's sockets and are handed over by QMP.
"""

from __future__ import annotations

from qlaunch.facts import Facts
from qlaunch.plan.devices import is_address
from qlaunch.plan.draft import Draft
from qlaunch.plan.model import Display, Endpoint
from qlaunch.plan.notes import Notes
from qlaunch.profile.model import Profile

_LOOPBACK = ("127.", "::1")


def spice_wanted(profile: Profile, facts: Facts, notes: Notes) -> bool:
    """Whether this machine has SPICE. Asked for and missing is an error with the package's name."""
    wish = profile.display.spice
    if wish and facts.qemu.options and not facts.qemu.has_spice:
        notes.error(
            "display.spice",
            f"QEMU {facts.qemu.version_text} has no SPICE",
            hint="on Debian and Ubuntu: sudo apt install qemu-system-modules-spice;"
            " or set display.spice = false",
            cause="host",
        )
    return facts.qemu.has_spice if wish is None else wish


def display(draft: Draft) -> Display:
    """Endpoints and options of the display."""
    wish = draft.profile.display
    vnc = (
        (not draft.spice and draft.profile.video.model != "none") if wish.vnc is None else wish.vnc
    )
    endpoints = []
    if draft.spice:
        endpoints.append(Endpoint(protocol="spice", path=f"{draft.places.runtime}/spice.sock"))
    if vnc:
        endpoints.append(Endpoint(protocol="vnc", path=f"{draft.places.runtime}/vnc.sock"))
    endpoints += _tcp(draft, spice=draft.spice, vnc=vnc)
    return Display(
        spice=draft.spice,
        vnc=vnc,
        options=_options(draft) if draft.spice else (),
        endpoints=tuple(endpoints),
        password=wish.password,
    )


def _tcp(draft: Draft, *, spice: bool, vnc: bool) -> list[Endpoint]:
    """The endpoints on TCP, each checked."""
    wish, notes = draft.profile.display, draft.notes
    host = wish.listen or "127.0.0.1"
    found = []
    if wish.port:
        found.append(Endpoint(protocol="spice", host=host, port=wish.port))
        if not spice:
            notes.error(
                "display.port",
                "a SPICE port without SPICE",
                hint="set display.spice = true, or use vnc_port",
            )
    if wish.vnc_port:
        found.append(Endpoint(protocol="vnc", host=host, port=wish.vnc_port))
        if not vnc:
            notes.error("display.vnc_port", "a VNC port without VNC", hint="set display.vnc = true")
    for endpoint in found:
        _check_port(draft, endpoint)
    _check_reach(draft, host, tcp=bool(found))
    return found


def _check_port(draft: Draft, endpoint: Endpoint) -> None:
    key = "display.port" if endpoint.protocol == "spice" else "display.vnc_port"
    holder = draft.facts.ports_in_use.get(f"tcp/{endpoint.port}")
    if holder:
        draft.notes.error(
            key,
            f"port {endpoint.port} is taken by {holder}",
            hint="pick another port, or leave it out for a unix socket",
            cause="conflict",
        )
    if endpoint.port < 1024 and draft.facts.host.uid != 0:
        draft.notes.error(
            key,
            f"port {endpoint.port} is below 1024 and reserved for root",
            hint="the usual ports are 5900 and up",
            cause="refused",
        )


def _check_reach(draft: Draft, host: str, *, tcp: bool) -> None:
    wish, notes = draft.profile.display, draft.notes
    if not is_address(host):
        notes.error("display.listen", f"{host!r} is no IP address", hint="such as 0.0.0.0")
    if tcp and not host.startswith(_LOOPBACK) and wish.password is None:
        notes.warn(
            "display.listen",
            f"anyone who reaches {host} can use this machine: there is no password",
            hint='set display.password = { file = "..." }, or leave `listen` out and use ssh',
        )
    if wish.listen and not tcp:
        notes.warn("display.listen", "has no effect without a port", hint="set display.port")
    if wish.password and not tcp:
        notes.warn(
            "display.password",
            "has no effect without a port: only you can open the unix socket",
            hint="set display.port, or take the password out",
        )


def _options(draft: Draft) -> tuple[tuple[str, str], ...]:
    wish = draft.profile.display
    options = [("seamless-migration", "on")]
    if wish.agent_mouse is not None:
        options.append(("agent-mouse", "on" if wish.agent_mouse else "off"))
    if wish.clipboard is False:
        options.append(("disable-copy-paste", "on"))
    if wish.file_transfer is False:
        options.append(("disable-agent-file-xfer", "on"))
    if wish.compression:
        options.append(("image-compression", wish.compression))
    return tuple(options)
