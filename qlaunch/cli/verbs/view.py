"""`qlaunch view`."""

from __future__ import annotations

import os
import shutil

from qlaunch.cli import output
from qlaunch.cli.verbs.power import duration
from qlaunch.cli.verbs.status import status_of
from qlaunch.errors import HostError, PhaseError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

VIEWERS = ("remote-viewer", "spicy")
USB = ("auto", "ask", "off")
_TAKES_NOTHING = "-1,-1,-1,-1,0"
_SCHEMES = ("spice", "vnc")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open the machine's screen with remote-viewer or spicy, or in the browser. It can be\n"
        "closed and opened again; the machine runs on. With --vv a file for remote-viewer on\n"
        "another computer is printed instead: it holds the address, whom to trust and, where the\n"
        "profile asks for tickets, a new one that expires and replaces the one before."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch view xp\n"
        "  qlaunch view xp --fullscreen --share ~/shared\n"
        "  qlaunch view xp --usb ask          take no USB device without a word\n"
        "  qlaunch view xp --kiosk            no way out until the machine stops\n"
        "  qlaunch view xp --vv > xp.vv       for another computer: remote-viewer xp.vv\n"
        "  qlaunch view xp --vv --expires 1h | ssh desk remote-viewer -\n"
        "  qlaunch view xp --web              in the browser; Ctrl-C ends it\n"
        "  qlaunch view xp --uri              print where a viewer connects, open none"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("--viewer", choices=VIEWERS, help="the program to open it with")
    parser.add_argument(
        "--fullscreen", "--full-screen", action="store_true", help="fill the screen"
    )
    parser.add_argument(
        "--kiosk", action="store_true", help="full screen, and nothing else can be reached"
    )
    parser.add_argument("--share", metavar="FOLDER", help="share this folder with the guest")
    parser.add_argument(
        "--usb", choices=USB, help="USB devices plugged in there: given, asked for, none"
    )
    parser.add_argument("--uri", action="store_true", help="print the address only")
    parser.add_argument(
        "--web", action="store_true", help="show it in the browser (see `qlaunch web`)"
    )
    parser.add_argument("--vv", action="store_true", help="print a file for remote-viewer")
    parser.add_argument(
        "--expires", type=duration, metavar="TIME", help="--vv: how long its ticket is good"
    )
    parser.add_argument("--host", metavar="HOST", help="--vv: this computer's name, from there")


def run(args: argparse.Namespace) -> int:
    if not args.vv and (args.expires or args.host):
        raise UsageError("--expires and --host are for --vv")
    if args.web:
        return in_browser(args.name, quiet=args.quiet, as_json=args.json)
    if args.vv:
        from qlaunch.cli import vv

        text = vv.for_elsewhere(args)
        if args.json:
            output.print_json({"name": args.name, "vv": text})
        else:
            output.print_text(text.rstrip("\n"))
        return 0
    if args.uri or args.json:
        uri = best_uri(args.name, status_of(args.name))
        if args.json:
            output.print_json({"name": args.name, "uri": uri})
        else:
            output.print_text(uri)
        return 0
    return open_view(
        args.name,
        viewer=args.viewer,
        fullscreen=args.fullscreen,
        kiosk=args.kiosk,
        share=args.share,
        usb=args.usb,
    )


def in_browser(name: str, *, quiet: bool = False, as_json: bool = False) -> int:
    """Serve the page on a free port of this computer, opened at the machine, until Ctrl-C.

    Raises: PhaseError when the machine does not run, HostError without noVNC.
    """
    if status_of(name).get("state") == "stopped":
        raise PhaseError(f"{name} is not running", hint=f"`qlaunch up {name} --view` starts it")
    from qlaunch.cli.web import running

    wish = running.Wish(host="127.0.0.1", port=0, machine=name, open=not as_json)
    running.run(wish, quiet=quiet, as_json=as_json)
    return 0


def open_view(
    name: str,
    *,
    viewer: str | None = None,
    fullscreen: bool = False,
    kiosk: bool = False,
    share: str | None = None,
    usb: str | None = None,
) -> int:
    """Become the viewer of the machine `name`; where none is installed, show it in the browser.

    Raises: PhaseError when it shows no screen; HostError when there is no viewer or no desktop.
    """
    status = status_of(name)
    uri = best_uri(name, status)
    wish = status.get("view") or {}
    folder = _folder(name, share or wish.get("share"), status, uri)
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        raise HostError(
            f"there is no desktop here to show {name} on (DISPLAY and WAYLAND_DISPLAY are unset); "
            f"its screen is at {uri}",
            hint=_from_elsewhere(name, uri),
        )
    fullscreen = fullscreen or bool(wish.get("fullscreen"))
    kiosk = kiosk or bool(wish.get("kiosk"))
    wanted = viewer or wish.get("viewer")
    if wanted not in VIEWERS and not any(map(shutil.which, VIEWERS)) and _has_novnc():
        output.note("no viewer is installed (sudo apt install virt-viewer); in the browser, then")
        return in_browser(name)
    program, path = _find_viewer(wanted)
    words = [f"--spice-shared-dir={folder}"] if folder else []
    usb, rules = usb or str(wish.get("usb") or USB[0]), str(wish.get("usb_filter") or "")
    words += _usb_words(usb, rules, spicy=program == "spicy")
    if program == "spicy":
        _check_spicy(uri, kiosk=kiosk)
        words = [f"--uri={uri}", *(["--full-screen"] if fullscreen else []), *words]
    else:
        if kiosk:
            words += ["--kiosk", "--kiosk-quit=on-disconnect"]
        if wish.get("resize") is False:
            words.append("--auto-resize=never")
        title = str(status.get("title") or name)
        text = vv_file(uri, title, fullscreen=fullscreen or kiosk)
        give_as_stdin(text + usb_lines(usb, rules))
        words.append("-")
    return os.execv(path, [program, *words])


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
        hint="set display.spice = true or display.vnc = true in its profile;"
        f" `qlaunch console {name}` is its serial console",
    )


def _folder(name: str, share: str | None, status: dict[str, Any], uri: str) -> str | None:
    """The folder to share. Raises: UsageError, PhaseError when the guest cannot have it."""
    if not share:
        return None
    path = os.path.abspath(os.path.expanduser(share))
    if not os.path.isdir(path):
        raise UsageError(f"there is no folder {share}")
    if not uri.startswith("spice") or not (status.get("view") or {}).get("sharing"):
        raise PhaseError(
            f"{name} has no channel for shared folders",
            hint="set display.folder_sharing = true in its profile, and start it again",
        )
    return path


def _usb_words(usb: str, rules: str, *, spicy: bool) -> list[str]:
    """What a viewer's command line says of USB: devices that are there when it opens, and for
    spicy all the rest, which remote-viewer reads in its file."""
    words = []
    if usb == "off" and spicy:
        words.append("--spice-disable-usbredir")
    if usb == "auto" and rules:
        words.append(f"--spice-usbredir-redirect-on-connect={rules}")
    if usb != "off" and spicy and (rules or usb == "ask"):
        taken = _TAKES_NOTHING if usb == "ask" else rules
        words.append(f"--spice-usbredir-auto-redirect-filter={taken}")
    return words


def usb_lines(usb: str, rules: str) -> str:
    """What remote-viewer's file says of USB."""
    lines = ["enable-usbredir=0"] if usb == "off" else []
    if usb == "ask":
        lines.append("enable-usb-autoshare=0")
    if usb == "auto" and rules:
        lines += ["enable-usb-autoshare=1", f"usb-filter={rules}"]
    return "".join(f"{line}\n" for line in lines)


def _check_spicy(uri: str, *, kiosk: bool) -> None:
    hint = "sudo apt install virt-viewer"
    if not uri.startswith("spice"):
        raise HostError("spicy does not speak VNC", hint=hint)
    if kiosk:
        raise HostError("spicy has no kiosk mode", hint=hint)


def _has_novnc() -> bool:
    from qlaunch.cli.web import pages

    try:
        pages.find_novnc()
    except HostError:
        return False
    return True


def _find_viewer(wanted: str | None) -> tuple[str, str]:
    for program in (wanted,) if wanted in VIEWERS else VIEWERS:
        path = shutil.which(program)
        if path:
            return program, path
    if wanted == "spicy":
        raise HostError("spicy is not installed", hint="sudo apt install spice-client-gtk")
    raise HostError("no viewer is installed", hint="sudo apt install virt-viewer")


def vv_file(uri: str, title: str, *, fullscreen: bool) -> str:
    """What remote-viewer reads: the address never shows up in the list of processes."""
    scheme, _, where = uri.partition("://")
    kind, _, transport = scheme.partition("+")
    lines = ["[virt-viewer]", f"type={kind}"]
    if transport == "unix":
        lines.append(f"unix-path={output.clean(where)}")
    else:
        from urllib.parse import urlsplit

        address = urlsplit(uri)
        port = address.port or address.query.removeprefix("tls-port=")
        key = "port" if address.port else "tls-port"
        lines += [f"host={address.hostname or 'localhost'}", f"{key}={port}"]
    lines += [f"title={output.clean(title)}", f"fullscreen={int(fullscreen)}"]
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
            f"then remote-viewer {uri.split('+', 1)[0]}+unix:///tmp/{name}.sock"
        )
    port = uri.rsplit(":", 1)[-1]
    return f"on your desktop: ssh -N -L {port}:localhost:{port} {here}, then remote-viewer {uri}"
