"""`qlaunch ssh`."""

from __future__ import annotations

import os
import shlex
import sys

from qlaunch.cli import output, talk
from qlaunch.errors import HostError, NotFoundError, RefusedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

_WAYS = ("address", "forward", "door")
# Whom a door leads into, without root or by QEMU's own network.
_WITH_DOORS = ("user", "rootless", "netd")
_WILD = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Log in to a running guest with ssh, by the best way there is: its address where this\n"
        "computer is on its network, a port that is forwarded to its ssh, or else a door: a\n"
        "connection through the supervisor, which needs no port. The guest's key is known by the\n"
        "machine's name, whatever the way. The user is `ssh.user` of its profile, or --user."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch ssh deb\n"
        "  qlaunch ssh deb --user root uptime       one command\n"
        "  qlaunch ssh deb -- -A -L 8080:localhost:80     options of ssh come after --\n"
        "  qlaunch ssh deb --print                  the command, for scp or an editor"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("words", nargs="*", metavar="WORD", help="for ssh: options, a command")
    parser.add_argument("--user", metavar="USER", help="(default: ssh.user of its profile)")
    parser.add_argument("--port", type=int, metavar="PORT", help="(default: ssh.port, or 22)")
    parser.add_argument("--way", choices=_WAYS, help="this way and no other")
    parser.add_argument("--print", action="store_true", help="print the command, run nothing")
    import argparse

    parser.add_argument("--door", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    if args.port is not None and not 0 < args.port < 65536:
        raise UsageError(f"--port: {args.port} is no port")
    if args.door:
        return _be_door(args.name, args.port or 22)
    answer: dict[str, Any] = talk.ask_machine("ip", args.name)
    port, user = args.port or answer["ssh"]["port"], args.user or answer["ssh"]["user"]
    way, host, at = choose(answer, port, args.way)
    argv = command(args.name, host, at, port=port, user=user, door=way == "door")
    argv += args.words
    if args.json:
        output.print_json({"name": args.name, "way": way, "argv": argv})
        return 0
    if args.print:
        print(shlex.join(argv))
        return 0
    if args.verbose:
        output.note(f"by {way}: {shlex.join(argv)}")
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        raise HostError(
            f"ssh cannot be started: {error.strerror}",
            hint="on Debian and Ubuntu: sudo apt install openssh-client",
        ) from error


def choose(answer: dict[str, Any], port: int, wanted: str | None) -> tuple[str, str, int]:
    """The way, and the host and port to which it leads. Raises: NotFoundError, RefusedError."""
    name, nics = answer["name"], answer["nics"]
    if wanted in (None, "address"):
        for nic in nics:
            # What the guest alone says of itself may be anybody's address.
            sure = [each for each in nic["addresses"] if each["sources"] != ["agent"]]
            if nic["direct"] and sure:
                return "address", sure[0]["address"], port
    if wanted in (None, "forward"):
        for nic in nics:
            for each in nic["forwards"]:
                if each["proto"] == "tcp" and each["guest_port"] == port:
                    return "forward", _WILD.get(each["address"], each["address"]), each["port"]
    if wanted in (None, "door") and any(nic["backend"] in _WITH_DOORS for nic in nics):
        return "door", name, port
    if wanted is not None:
        raise NotFoundError(
            f"{name} has no way to its port {port} by {wanted}",
            hint=f"`qlaunch ip {name}` and `qlaunch forward {name}` show what there is",
        )
    raise RefusedError(
        f"nothing leads to port {port} of {name}",
        hint=f"`qlaunch forward {name} 2222:{port}` makes a way",
    )


def command(name: str, host: str, at: int, *, port: int, user: str | None, door: bool) -> list[str]:
    """The command line of ssh."""
    # Addresses and ports change and are given to others; the machine's name stays.
    options = [f"HostKeyAlias=qlaunch-{name}", "CheckHostIP=no", "StrictHostKeyChecking=accept-new"]
    if door:
        words = (sys.executable, "-m", "qlaunch", "ssh", name, "--door", "--port", str(port))
        options.append(f"ProxyCommand={shlex.join(words).replace('%', '%%')}")
    argv = ["ssh", "-p", str(at)]
    argv += [word for option in options for word in ("-o", option)]
    argv += ["-l", user] if user else []
    return [*argv, host]


def _be_door(name: str, port: int) -> int:
    """Be what ssh talks to: bytes from here to the guest and back."""
    from qlaunch.cli import terminal

    with talk.open_machine(name) as connection:
        connection.ask("dial", {"name": name, "port": port})
        terminal.talk(connection.socket, connection.rest())
    return 0
