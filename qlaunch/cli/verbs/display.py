"""`qlaunch display`."""

from __future__ import annotations

import base64
import os
import sys

from qlaunch.cli import output, table, talk
from qlaunch.cli.verbs.power import duration
from qlaunch.cli.verbs.status import status_of
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Who may look at a machine's screen, and who does. On this computer you need no password;\n"
        "over the network it is asked for where the profile says so, or once you make one."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch display clients xp                     who looks at it\n"
        "  qlaunch display password xp --expires 60s      make a ticket and print it\n"
        "  qlaunch display kick xp                        throw out who looks at it\n"
        "  qlaunch display resize xp 1280x1024"
    )


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the machine")


def _clients(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the viewers that are connected, and from where."
    parser.epilog = "examples:\n  qlaunch display clients xp"
    _name(parser)


def _password(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a password for clients that come over the network, and print it. It replaces the\n"
        "one before; who is in stays in. With --expires it lets nobody in after that time. It\n"
        "holds until the machine stops and is kept nowhere."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch display password xp --expires 60s      a ticket\n"
        "  pass show xp | qlaunch display password xp --stdin"
    )
    _name(parser)
    parser.add_argument(
        "--expires", type=duration, metavar="TIME", help="how long it is good (default: no limit)"
    )
    parser.add_argument("--stdin", action="store_true", help="read it from the standard input")


def _kick(parser: argparse.ArgumentParser) -> None:
    parser.description = "Throw out every viewer. They may come back, if they know the password."
    parser.epilog = "examples:\n  qlaunch display kick xp"
    _name(parser)


def _resize(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask the guest for a resolution. Its driver has to know SPICE's wish (QXL, virtio). While\n"
        "a viewer is connected its window says the size."
    )
    parser.epilog = "examples:\n  qlaunch display resize xp 1280x1024"
    _name(parser)
    parser.add_argument("size", metavar="SIZE", help="width and height: 1280x1024")


ACTIONS = {
    "clients": ("who looks at the screen", _clients),
    "password": ("make a password or ticket for clients over the network", _password),
    "kick": ("throw out who looks at it", _kick),
    "resize": ("ask the guest for a resolution", _resize),
}


def run(args: argparse.Namespace) -> int:
    work: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "clients": _show_clients,
        "password": _make_password,
        "kick": _throw_out,
        "resize": _ask_size,
    }
    result = work[args.action](args)
    if args.json:
        output.print_json(result)
    return 0


def _show_clients(args: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = talk.ask_machine("display-clients", args.name)
    if args.json:
        return result
    if not result["clients"]:
        output.note(f"nobody looks at {args.name}", quiet=args.quiet)
        return result
    rows = [
        (each["protocol"], each["from"], "yes" if each["tls"] else "no", " ".join(each["channels"]))
        for each in result["clients"]
    ]
    print(table.table(("PROTOCOL", "FROM", "TLS", "CHANNELS"), rows))
    return result


def _make_password(args: argparse.Namespace) -> dict[str, Any]:
    expires = args.expires
    secret = _secret(args)
    request = {"password": secret, "expires": expires}
    result: dict[str, Any] = talk.ask_machine("display-password", args.name, request)
    if not args.stdin:
        result["password"] = secret
        if not args.json:
            print(secret)
    if not result["tcp"]:
        output.note(
            f"{args.name} listens on no TCP port: only you can reach it, without a password",
            quiet=args.quiet,
        )
    return result


def _secret(args: argparse.Namespace) -> str:
    if not args.stdin:
        return base64.urlsafe_b64encode(os.urandom(18)).decode()
    text = sys.stdin.readline().rstrip("\r\n")
    if not text:
        raise UsageError("the standard input holds no password")
    return text


def _throw_out(args: argparse.Namespace) -> dict[str, Any]:
    from qlaunch.cli import viewers

    status = status_of(args.name)
    gone = viewers.kick(args.name, status)
    output.note(f"{args.name}: its viewers are out", quiet=args.quiet or args.json)
    return {"name": args.name, "protocols": gone}


def _ask_size(args: argparse.Namespace) -> dict[str, Any]:
    from qlaunch.cli import viewers

    width, height = _size(args.size)
    viewers.refuse_company(args.name, "its window says the size")
    with viewers.spice(args.name, status_of(args.name)) as viewer:
        viewer.resize(width, height)
    return {"name": args.name, "width": width, "height": height}


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"{text!r} is no size", hint="width and height, such as 1280x1024")
    if not (64 <= int(width) <= 16384 and 64 <= int(height) <= 16384):
        raise UsageError(f"{text} is no size of a screen", hint="such as 1280x1024")
    return int(width), int(height)
