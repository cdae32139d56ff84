"""`qlaunch set`."""

from __future__ import annotations

from qlaunch.cli import output, talk
from qlaunch.units import format_size, short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Change what a running machine has: the memory that its guest may use (by the balloon)\n"
        "and the limits of its disks; 0 takes a limit out. For this run, or with --persist in its\n"
        "profile as well. Cards, disks and CDs have verbs of their own: nic, disk, media, usb."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch set xp memory.current=512MiB\n"
        "  qlaunch set db disk.data.iops=300 disk.data.bps_write=20MiB --persist\n"
        "  qlaunch set db disk.data.iops=0          no limit any more"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="what it is to be")
    parser.add_argument("--persist", action="store_true", help="write it into the profile, too")


def run(args: argparse.Namespace) -> int:
    request = {"settings": args.settings, "persist": args.persist}
    answer = talk.ask_machine("set", args.name, request)
    if args.json:
        output.print_json(answer)
        return 0
    for each in answer["set"]:
        output.note(f"{args.name}: {_words(each)}", quiet=args.quiet)
    for warning in answer["warnings"]:
        output.note(f"{args.name}: warning: {warning}", quiet=args.quiet)
    return 0


def _words(done: dict[str, Any]) -> str:
    key, value = done["key"], done["value"]
    if key == "memory.current":
        text = f"{key}={format_size(value)}"
        if done["actual"] == value:
            return text
        return f"{text} is asked for; the guest's driver is at {short_size(done['actual'])} so far"
    if not value:
        return f"{key}: no limit"
    return f"{key}={format_size(value) if '.bps' in key else value}"
