"""SPICE and VNC: what QEMU is told, and where qlaunch lets clients in.

QEMU itself listens on nothing: clients reach qlaunch's sockets and are handed over by QMP.
"""

from __future__ import annotations

from qlaunch.facts import Facts
from qlaunch.plan.devices import video_model
from qlaunch.plan.draft import Draft
from qlaunch.plan.model import Display, Endpoint, View
from qlaunch.plan.nics import is_address
from qlaunch.plan.notes import Notes
from qlaunch.plan.usb_filter import for_client
from qlaunch.profile.model import Profile

_LOOPBACK = ("127.", "::1")
_PACKAGE = "on Debian and Ubuntu: sudo apt install qemu-system-modules-spice"


def spice_wanted(profile: Profile, facts: Facts, notes: Notes) -> bool:
    """Whether this machine has SPICE. Asked for and missing is an error with the package's name,
    or a warning where the profile has a fallback."""
    wish = profile.display.spice
    if wish is False or facts.qemu.has_spice or not facts.qemu.options:
        return facts.qemu.has_spice if wish is None else wish
    text = f"QEMU {facts.qemu.version_text} has no SPICE"
    if profile.display.fallback:
        notes.warn(
            "display.fallback",
            f"{text}: a plain VGA card, VNC and its clipboard stand in for it; there is no sound",
            hint=_PACKAGE,
            cause="host",
        )
        return False
    if wish:
        notes.error(
            "display.spice",
            text,
            hint=f"{_PACKAGE}; or set display.fallback = true, or display.spice = false",
            cause="host",
        )
    elif any(channel.type == "spicevmc" for channel in profile.channel):
        notes.warn(
            "display.spice",
            f"{text}: there is VNC instead, without sound and without USB from the viewer",
            hint=f"{_PACKAGE}; display.fallback = true says that this will do",
            cause="host",
        )
    return bool(wish)


def view(profile: Profile) -> View:
    """What `qlaunch view` does unless it is told otherwise."""
    wish = profile.view
    return View(
        viewer=wish.viewer or "auto",
        fullscreen=bool(wish.fullscreen),
        kiosk=bool(wish.kiosk),
        resize=wish.resize is not False,
        share=wish.share,
        usb=wish.usb or "auto",  # type: ignore[arg-type]
        usb_filter=for_client(profile.usb.filter),
    )


def display(draft: Draft) -> Display:
    """Endpoints and options of the display."""
    wish = draft.profile.display
    vnc = draft.vnc
    endpoints = []
    if draft.spice:
        endpoints.append(Endpoint(protocol="spice", path=f"{draft.places.runtime}/spice.sock"))
    if vnc:
        endpoints.append(Endpoint(protocol="vnc", path=f"{draft.places.runtime}/vnc.sock"))
    endpoints += _tcp(draft, spice=draft.spice, vnc=vnc)
    ticket = bool(wish.tls_port and not wish.password) if wish.ticket is None else wish.ticket
    return Display(
        spice=draft.spice,
        vnc=vnc,
        web="vnc" in draft.facts.qemu.options and video_model(draft) != "none",
        options=_options(draft) if draft.spice else (),
        endpoints=tuple(endpoints),
        password=wish.password,
        ticket=ticket,
        tls_names=wish.tls_names,
    )


def _tcp(draft: Draft, *, spice: bool, vnc: bool) -> list[Endpoint]:
    """The endpoints on TCP, each checked."""
    wish, notes = draft.profile.display, draft.notes
    host = wish.listen or "127.0.0.1"
    found = []
    for key, port in (("display.port", wish.port), ("display.tls_port", wish.tls_port)):
        if port and spice:
            tls = key == "display.tls_port"
            found.append(Endpoint(protocol="spice", host=host, port=port, tls=tls))
        elif port and not wish.fallback:
            notes.error(
                key,
                "a SPICE port without SPICE",
                hint="set display.spice = true, or use vnc_port",
            )
    if wish.vnc_port:
        found.append(Endpoint(protocol="vnc", host=host, port=wish.vnc_port))
        if not vnc:
            notes.error("display.vnc_port", "a VNC port without VNC", hint="set display.vnc = true")
    for endpoint in found:
        _check_port(draft, endpoint)
    _check_reach(draft, host, found)
    _check_access(draft, tcp=bool(found))
    return found


def _check_port(draft: Draft, endpoint: Endpoint) -> None:
    key = "display.port" if endpoint.protocol == "spice" else "display.vnc_port"
    key = "display.tls_port" if endpoint.tls else key
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


def _check_reach(draft: Draft, host: str, endpoints: list[Endpoint]) -> None:
    """Say what strangers can do who reach the ports."""
    wish, notes = draft.profile.display, draft.notes
    if not is_address(host):
        notes.error("display.listen", f"{host!r} is no IP address", hint="such as 0.0.0.0")
    if wish.listen and not endpoints:
        notes.warn("display.listen", "has no effect without a port", hint="set display.port")
    if host.startswith(_LOOPBACK) or not endpoints:
        return
    plain = [str(endpoint.port) for endpoint in endpoints if not endpoint.tls]
    if wish.password is None and not wish.ticket and (plain or wish.ticket is False):
        notes.warn(
            "display.listen",
            f"anyone who reaches {host} can use this machine: there is no password",
            hint='set display.password = { file = "..." } or display.ticket = true,'
            " or leave `listen` out and use ssh",
        )
    if plain:
        notes.warn(
            "display.listen",
            f"what goes over port {' and '.join(plain)} can be read and changed on its way:"
            " there is no TLS",
            hint="set display.tls_port instead, or leave `listen` out and use ssh",
        )


def _check_access(draft: Draft, *, tcp: bool) -> None:
    wish, notes = draft.profile.display, draft.notes
    if wish.password and not tcp:
        notes.warn(
            "display.password",
            "has no effect without a port: only you can open the unix socket",
            hint="set display.port, or take the password out",
        )
    if wish.ticket and wish.password:
        notes.error(
            "display.ticket",
            "there is a password already, and QEMU knows one at a time",
            hint="take display.password or display.ticket out",
        )
    if wish.ticket and not tcp:
        notes.warn(
            "display.ticket",
            "has no effect without a port: only you can open the unix socket",
            hint="set display.tls_port, or take it out",
        )
    if wish.tls_names and not wish.tls_port:
        notes.warn("display.tls_names", "has no effect without TLS", hint="set display.tls_port")


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
