"""`qlaunch jobs`."""

from __future__ import annotations

from qlaunch import units
from qlaunch.cli import output, table
from qlaunch.control import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What works on a machine's disks in the background: layers being merged, disks being\n"
        "moved. Cancelling it loses nothing."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch jobs xp\n"
        "  qlaunch jobs xp --cancel all\n"
        "  qlaunch jobs xp --limit 20MiB     at most so much a second"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("--cancel", metavar="JOB", help="cancel this one, or all")
    parser.add_argument(
        "--limit", type=_size, metavar="SIZE", help="bytes a second; 0 is without limit"
    )


def _size(text: str) -> int:
    import argparse

    try:
        return 0 if text == "0" else units.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> int:
    request = {"name": args.name, "cancel": args.cancel, "limit": args.limit}
    answer = client.ask("jobs", request)
    if args.json:
        output.print_json(answer)
        return 0
    rows = [
        (
            row["id"],
            row["what"],
            f"{100 * row['done'] // row['total']} %" if row["total"] else "-",
            units.short_size(row["total"]),
            f"{units.short_size(row['limit'])}/s" if row["limit"] else "none",
        )
        for row in answer["jobs"]
    ]
    if answer["cancelled"]:
        output.note(f"{args.name}: cancelled; nothing is lost", quiet=args.quiet)
    elif rows:
        print(table.table(("JOB", "WHAT", "DONE", "SIZE", "LIMIT"), rows))
    else:
        output.note(f"{args.name}: nothing is under way", quiet=args.quiet)
    return 0
