"""`qlaunch forward`."""

from __future__ import annotations

from qlaunch.cli import output, table
from qlaunch.control import client
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ports of this computer that lead to ports of a guest: list, add and remove them. Of a\n"
        "running machine it counts for this run, and with --persist for later ones too; of a\n"
        "stopped one it goes into the profile. A forward is [tcp:|udp:][ADDRESS:]PORT:GUESTPORT;\n"
        "without an address only this computer itself can use it. 8000-8009:80-89 is ten of them."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch forward xp                       list them\n"
        "  qlaunch forward xp 8080:80               http://127.0.0.1:8080 is the guest's port 80\n"
        "  qlaunch forward xp 0.0.0.0:8080:80 --persist     for everybody, and in the profile\n"
        "  qlaunch forward xp udp:5353:53 --nic net1\n"
        "  qlaunch forward xp 8080 --remove"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("forwards", nargs="*", metavar="FORWARD", help="PORT:GUESTPORT")
    parser.add_argument("--remove", action="store_true", help="remove them; the port is enough")
    parser.add_argument("--nic", metavar="ID", help="the card (default: the first with a cable)")
    parser.add_argument("--persist", action="store_true", help="change the profile, too")


def run(args: argparse.Namespace) -> int:
    paths.check_name(args.name)
    request = {
        "name": args.name,
        "forwards": args.forwards,
        "remove": args.remove,
        "nic": args.nic,
        "persist": args.persist,
    }
    answer: dict[str, Any] = client.ask("forward", request, name=args.name)
    if args.json:
        output.print_json(answer)
        return 0
    if not args.forwards:
        _print(answer, args)
        return 0
    for each in answer["added"]:
        output.note(f"{args.name}: {_port(each)} leads to {_goal(each)} now", quiet=args.quiet)
    for each in answer["removed"]:
        output.note(f"{args.name}: {_port(each)} leads nowhere now", quiet=args.quiet)
    if not answer["added"] and not answer["removed"]:
        output.note(f"{args.name}: it is so already", quiet=args.quiet)
    if answer["persistent"] and answer["state"] != "stopped":
        output.note("  and in its profile", quiet=args.quiet)
    for warning in answer["warnings"]:
        output.note(f"  warning: {warning}")
    return 0


def _print(answer: dict[str, Any], args: argparse.Namespace) -> None:
    if not answer["forwards"]:
        output.note(
            f"{args.name} has no forward; `qlaunch forward {args.name} 8080:80` adds one",
            quiet=args.quiet,
        )
        return
    rows = [
        (_port(each), each["proto"], each["guest_port"], each["nic"], each["by"])
        for each in answer["forwards"]
    ]
    print(table.table(("HERE", "PROTO", "GUEST PORT", "CARD", "BY"), rows))


def _port(each: dict[str, Any]) -> str:
    address = f"[{each['address']}]" if ":" in each["address"] else each["address"]
    return f"{address}:{each['port']}"


def _goal(each: dict[str, Any]) -> str:
    kind = "" if each["proto"] == "tcp" else " (UDP)"
    return f"port {each['guest_port']} of the guest{kind}"
