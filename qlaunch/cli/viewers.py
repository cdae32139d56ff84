"""Being a viewer oneself for a moment: a SPICE or VNC client on the machine's own sockets."""

from __future__ import annotations

import socket

from qlaunch.cli import talk
from qlaunch.errors import BusyError, PhaseError, SessionLostError
from qlaunch.spice import link
from qlaunch.spice.viewer import Viewer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VNC_TIMEOUT = 10.0
_VERSION = b"RFB 003.008\n"
_NO_PASSWORD = 1


def path_of(status: dict[str, Any], protocol: str) -> str | None:
    """The machine's unix socket for `protocol`, if it has one."""
    scheme = f"{protocol}+unix://"
    uris = (str(uri) for uri in status.get("display") or ())
    return next((uri.removeprefix(scheme) for uri in uris if uri.startswith(scheme)), None)


def spice(name: str, status: dict[str, Any]) -> Viewer:
    """A SPICE client of the machine. Raises: PhaseError, SessionLostError."""
    if status.get("state") in ("stopped", "saved"):
        raise PhaseError(f"{name} is not running", hint=f"`qlaunch up {name}` starts it")
    path = path_of(status, "spice")
    if path is None:
        raise PhaseError(f"{name} has no SPICE", hint="set display.spice = true in its profile")
    return Viewer(path)


def refuse_company(name: str, why: str) -> None:
    """Raises: BusyError when somebody looks at the screen: SPICE has one client at a time."""
    found = talk.ask_machine("display-clients", name)["clients"]
    viewer = next((each for each in found if "display" in each["channels"]), None)
    if viewer is not None:
        raise BusyError(
            f"a viewer is connected to {name} (from {viewer['from']}): {why}",
            hint=f"close it, or `qlaunch display kick {name}`",
        )


def kick(name: str, status: dict[str, Any]) -> list[str]:
    """Throw out every viewer, by taking its place and leaving. Returns: the protocols.

    Raises: PhaseError, SessionLostError.
    """
    protocols = []
    if path_of(status, "spice") is not None:
        spice(name, status).close()
        protocols.append("spice")
    path = path_of(status, "vnc")
    if path is not None:
        _take_vnc(path)
        protocols.append("vnc")
    if not protocols:
        raise PhaseError(f"{name} shows no screen to a viewer")
    return protocols


def _take_vnc(path: str) -> None:
    """Be the only VNC client for a moment: one that does not share makes QEMU drop the others."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(VNC_TIMEOUT)
        try:
            connection.connect(path)
            link.read(connection, len(_VERSION))
            connection.sendall(_VERSION)
            offered = link.read(connection, link.read(connection, 1)[0])
            if _NO_PASSWORD not in offered:
                raise SessionLostError("VNC asks for a password")
            connection.sendall(bytes([_NO_PASSWORD]))
            link.read(connection, 4)
            connection.sendall(b"\0")  # not shared
            link.read(connection, 24)  # the answer comes when the others are gone
        except (OSError, EOFError) as error:
            raise SessionLostError(f"VNC does not answer at {path}: {error}") from error
