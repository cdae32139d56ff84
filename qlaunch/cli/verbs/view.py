"""`qlaunch view`."""

from __future__ import annotations

import os
import shutil

from qlaunch.cli import output
from qlaunch.cli.verbs.status import status_of
from qlaunch.errors import HostError, PhaseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, NoReturn

VIEWERS = ("remote-viewer", "spicy")
_SCHEMES = ("spice", "vnc")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open the machine's screen with remote-viewer or spicy. It can be closed and opened\n"
        "again; the machine runs on."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch view xp\n"
        "  qlaunch view xp --full-screen\n"
        "  qlaunch view xp --uri              print where a viewer connects, open none"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("--viewer", choices=VIEWERS, help="the program to open it with")
    parser.add_argument("--full-screen", action="store_true", help="fill the screen")
    parser.add_argument("--uri", action="store_true", help="print the address only")


def run(args: argparse.Namespace) -> int:
    if args.uri or args.json:
        uri = best_uri(args.name, status_of(args.name))
        if args.json:
            output.print_json({"name": args.name, "uri": uri})
        else:
            output.print_text(uri)
        return 0
    return open_view(args.name, viewer=args.viewer, full_screen=args.full_screen)


def open_view(name: str, *, viewer: str | None = None, full_screen: bool = False) -> NoReturn:
    """Become the viewer of the machine `name`.

    Raises: PhaseError when it shows no screen; HostError when there is no viewer or no desktop.
    """
    status = status_of(name)
    uri = best_uri(name, status)
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        raise HostError(
            f"there is no desktop here to show {name} on (DISPLAY and WAYLAND_DISPLAY are unset); "
            f"its screen is at {uri}",
            hint=_from_elsewhere(name, uri),
        )
    wish = status.get("view") or {}
    full_screen = full_screen or bool(wish.get("fullscreen"))
    program, path = _find_viewer(viewer or wish.get("viewer"))
    if program == "spicy":
        os.execv(path, [program, f"--uri={uri}", *(["--full-screen"] if full_screen else [])])
    give_as_stdin(vv_file(uri, str(status.get("title") or name), full_screen=full_screen))
    os.execv(path, [program, "-"])


def best_uri(name: str, status: dict[str, Any]) -> str:
    """Where the screen is, SPICE before VNC. Raises: PhaseError when there is none."""
    if status.get("state") == "stopped":
        raise PhaseError(f"{name} is not running", hint=f"`qlaunch up {name} --view` starts it")
    shown = status.get("display") or []
    uris = [str(uri) for uri in (shown if isinstance(shown, list) else shown.get("uris") or [])]
    for scheme in _SCHEMES:
        for uri in uris:
            if uri.startswith(scheme):
                return uri
    raise PhaseError(
        f"{name} shows no screen to a viewer",
        hint=f"set display.type in its profile; `qlaunch console {name}` is its serial console",
    )


def _find_viewer(wanted: str | None) -> tuple[str, str]:
    for program in (wanted,) if wanted in VIEWERS else VIEWERS:
        path = shutil.which(program)
        if path:
            return program, path
    if wanted == "spicy":
        raise HostError("spicy is not installed", hint="sudo apt install spice-client-gtk")
    raise HostError("no viewer is installed", hint="sudo apt install virt-viewer")


def vv_file(uri: str, title: str, *, full_screen: bool) -> str:
    """What remote-viewer reads: the address never shows up in the list of processes."""
    scheme, _, where = uri.partition("://")
    kind, _, transport = scheme.partition("+")
    lines = ["[virt-viewer]", f"type={kind}"]
    if transport == "unix":
        lines.append(f"unix-path={output.clean(where)}")
    else:
        from urllib.parse import urlsplit

        address = urlsplit(uri)
        lines += [f"host={address.hostname or 'localhost'}", f"port={address.port or 5900}"]
    lines += [f"title={output.clean(title)}", f"fullscreen={int(full_screen)}"]
    return "\n".join(lines) + "\n"


def give_as_stdin(text: str) -> None:
    """Make `text` the standard input of what is executed next."""
    fd = os.memfd_create("qlaunch-view", 0)
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    os.dup2(fd, 0)
    os.close(fd)


def _from_elsewhere(name: str, uri: str) -> str:
    here = os.uname().nodename
    if "+unix://" in uri:
        path = uri.split("://", 1)[1].partition("?")[0]
        return (
            f"on your desktop: ssh -N -L /tmp/{name}.sock:{path} {here}, "
            f"then remote-viewer spice+unix:///tmp/{name}.sock"
        )
    port = uri.rsplit(":", 1)[-1]
    return f"on your desktop: ssh -N -L {port}:localhost:{port} {here}, then remote-viewer {uri}"
