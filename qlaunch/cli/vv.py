"""The file with which remote-viewer on another computer opens a machine's screen."""

from __future__ import annotations

import base64
import os

from qlaunch.cli import output
from qlaunch.cli.verbs.status import status_of
from qlaunch.cli.verbs.view import USB, best_uri, usb_lines, vv_file
from qlaunch.control import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

# Time enough to carry the file over.
TICKET_TIME = 300.0
_EVERYWHERE = ("0.0.0.0", "::")
_LOOPBACK = ("127.", "::1")


def for_elsewhere(args: argparse.Namespace) -> str:
    """The text of the file, with a new ticket where one is needed. What is doubtful about it is
    told on stderr. Raises: PhaseError, UsageError, HostError."""
    lasts = args.expires or TICKET_TIME
    status = status_of(args.name)
    first = best_uri(args.name, status)
    endpoint = _best(status, first)
    title = str(status.get("title") or args.name)
    if endpoint is None:
        output.note(
            f"{args.name} can be reached on this computer only: set display.tls_port and"
            " display.listen in its profile, or forward the socket by ssh",
            quiet=args.quiet,
        )
        return vv_file(first, title, fullscreen=args.fullscreen) + _usb(args, status)
    uri, host = _called(endpoint["uri"], args.host)
    text = vv_file(uri, title, fullscreen=args.fullscreen) + _usb(args, status)
    lines = [text.rstrip("\n")]
    if endpoint.get("tls"):
        lines.append(f"ca={_ca(host, args.host)}")
    if endpoint["access"] == "ticket":
        lines += [f"password={_ticket(args.name, lasts)}", "delete-this-file=1"]
        output.note(
            f"its ticket is good for {lasts:g} s; who has the file has the machine",
            quiet=args.quiet,
        )
    _warn(args, endpoint, host)
    return "\n".join(lines) + "\n"


def _usb(args: argparse.Namespace, status: dict[str, Any]) -> str:
    wish = status.get("view") or {}
    return usb_lines(args.usb or wish.get("usb") or USB[0], wish.get("usb_filter") or "")


def _best(status: dict[str, Any], first: str) -> dict[str, Any] | None:
    """The endpoint on TCP of the protocol that `view` takes, one with TLS before others."""
    protocol = first.partition(":")[0].partition("+")[0]
    found = [
        each
        for each in status.get("displays") or ()
        if each["protocol"] == protocol and "+unix" not in each["uri"]
    ]
    return next((each for each in found if each.get("tls")), found[0] if found else None)


def _called(uri: str, wanted: str | None) -> tuple[str, str]:
    """The address with the name by which this computer is called from there, and the host in the
    address as it is."""
    from urllib.parse import urlsplit

    host = urlsplit(uri).hostname or ""
    name = wanted or (os.uname().nodename if host in _EVERYWHERE else host)
    shown = f"[{host}]" if ":" in host else host
    named = f"[{name}]" if ":" in name else name
    return uri.replace(f"://{shown}", f"://{named}", 1), host


def _ca(listen: str, name: str | None) -> str:
    from qlaunch.machine import certificates

    names = certificates.names_for([listen], [name] if name else [])
    with open(certificates.ensure(names).ca, encoding="ascii") as file:
        return file.read().replace("\n", "\\n")


def _ticket(name: str, lasts: float) -> str:
    secret = base64.urlsafe_b64encode(os.urandom(18)).decode()
    client.ask("display-password", {"name": name, "password": secret, "expires": lasts})
    return secret


def _warn(args: argparse.Namespace, endpoint: dict[str, Any], host: str) -> None:
    if host.startswith(_LOOPBACK):
        text = f"it listens on {host} only: from elsewhere forward its port by ssh"
    elif not endpoint.get("tls"):
        text = "there is no TLS: what is typed and shown can be read on its way (display.tls_port)"
    else:
        return
    output.note(f"warning: {text}", quiet=args.quiet)
