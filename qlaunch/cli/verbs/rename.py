"""`qlaunch rename`."""

from __future__ import annotations

from qlaunch.cli import definitions, output

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Give a profile of yours another name: its disks, UEFI variables, state and logs go\n"
        "along, and so do the MAC addresses and everything else the guest is used to. If this is\n"
        "interrupted, the same command finishes it."
    )
    parser.epilog = (
        "examples:\n  qlaunch rename xp office    xp must not run; office must not exist"
    )
    parser.add_argument("old", metavar="NAME", help="the profile")
    parser.add_argument("new", metavar="NEWNAME", help="what it shall be called")


def run(args: argparse.Namespace) -> int:
    from qlaunch.machine.rename import rename

    path = definitions.wait_for(rename(args.old, args.new))
    if args.json:
        output.print_json({"old": args.old, "new": args.new, "file": path})
    else:
        output.note(f"{args.old} is now {args.new}: {definitions.shown(path)}", quiet=args.quiet)
    return 0
