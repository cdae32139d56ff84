"""`qlaunch rm`."""

from __future__ import annotations

from qlaunch import units
from qlaunch.cli import definitions, output
from qlaunch.cli.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from qlaunch.machine.remove import Removal

_FOR_GOOD = "Remove these for good?"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Remove a machine: its profile, its disks and UEFI variables in its own folder, its state\n"
        "and logs. Every file is listed first, and you are asked. What another machine names or\n"
        "another image stands on is kept; so are disks that lie elsewhere, unless --all-disks."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch rm xp                 lists, asks, removes\n"
        "  qlaunch rm xp --dry-run       only lists\n"
        "  qlaunch rm xp --keep-disks    only the profile and the state\n"
        "  qlaunch rm xp --yes           in a script"
    )
    parser.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file's path")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("-n", "--dry-run", action="store_true", help="list, and remove nothing")
    disks = parser.add_mutually_exclusive_group()
    disks.add_argument(
        "--keep-disks", action="store_true", help="keep disks, UEFI variables and TPM"
    )
    disks.add_argument(
        "--all-disks", action="store_true", help="remove disks outside the machine's folder, too"
    )


def run(args: argparse.Namespace) -> int:
    from qlaunch.machine.held import held
    from qlaunch.machine.remove import plan_removal, remove

    machine = definitions.machine_of(args.profile)
    if machine.problem is not None:
        output.note(
            f"{machine.file} is broken: disks that it has elsewhere are not known and stay",
            quiet=args.quiet,
        )
    with held(machine.name, to="remove"):
        removal = plan_removal(machine, keep_disks=args.keep_disks, all_disks=args.all_disks)
        if not args.json and not (args.quiet and args.yes):
            _list(removal)
        if not args.dry_run:
            definitions.confirm(_FOR_GOOD, yes=args.yes)
            remove(removal)
    _report(removal, args)
    return 0


def _list(removal: Removal) -> None:
    if removal.remove:
        rows = [
            (units.short_size(entry.size), entry.kind, definitions.shown(entry.path))
            for entry in removal.remove
        ]
        print(table(("SIZE", "WHAT", "FILE"), rows))
    for entry in removal.keep:
        print(f"kept: {definitions.shown(entry.path)}: {output.clean(entry.keep)}")


def _report(removal: Removal, args: argparse.Namespace) -> None:
    done = not args.dry_run
    if args.json:
        output.print_json(
            {
                "name": removal.machine.name,
                "done": done,
                "bytes": removal.size,
                "removed" if done else "remove": [entry.to_dict() for entry in removal.remove],
                "kept": [entry.to_dict() for entry in removal.keep],
            }
        )
        return
    count = definitions.counted(len(removal.remove), "file")
    words = "removed" if done else "would be removed"
    size = units.short_size(removal.size)
    output.note(f"{removal.machine.name}: {count} ({size}) {words}", quiet=args.quiet)
