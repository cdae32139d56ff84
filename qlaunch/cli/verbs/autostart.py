"""`qlaunch autostart`."""

from __future__ import annotations

import os

from qlaunch.cli import output
from qlaunch.errors import HostError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

_UNIT = "qlaunch@{}.service"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Have a machine start with the computer (root's) or with your login, or no more; without\n"
        "on or off, say how it is. It counts from the next boot on: `qlaunch up` starts it now.\n"
        "`qlaunch service install` comes first."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch autostart xp on\n"
        "  qlaunch autostart xp off\n"
        "  qlaunch autostart           all that start by themselves"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the machine")
    parser.add_argument("state", nargs="?", choices=("on", "off"), help="(default: say it)")


def run(args: argparse.Namespace) -> int:
    from qlaunch.cli import service

    manager = "system" if os.geteuid() == 0 else "user"
    if args.name is not None:
        paths.check_name(args.name)
    if args.state is not None:
        _switch(manager, args.name, on=args.state == "on")
    names = [
        unit.removeprefix("qlaunch@").removesuffix(".service") for unit in service.enabled(manager)
    ]
    if args.json:
        output.print_json({"manager": manager, "autostart": names})
    elif args.name is None:
        for name in names:
            print(output.clean(name))
    else:
        print(f"{args.name}: autostart is {'on' if args.name in names else 'off'}")
    return 0


def _switch(manager: str, name: str, *, on: bool) -> None:
    """Raises: NotFoundError without a profile, HostError without the service."""
    from qlaunch.cli import service
    from qlaunch.cli.verbs.service import _systemctl

    if on:
        paths.find_profile(name)
    if not service.installed(manager):
        raise HostError(
            "systemd does not look after qlaunch yet, and nothing starts by itself",
            hint="qlaunch service install",
        )
    _systemctl(manager, "enable" if on else "disable", _UNIT.format(name))
