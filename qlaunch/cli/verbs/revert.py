"""`qlaunch revert`."""

from __future__ import annotations

from qlaunch.cli import output, talk
from qlaunch.cli.progress import Steps, took
from qlaunch.control import client
from qlaunch.units import short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Go back to a snapshot. A running machine is switched over in place where its devices are\n"
        "the same, else QEMU is started anew with the snapshot's memory. What you leave behind\n"
        "becomes a branch without a name, which can be reverted to as well."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch revert xp before-sp3             and keep what was done since as a branch\n"
        "  qlaunch revert xp '#4'                   to a branch that an earlier revert left\n"
        "  qlaunch revert xp before-sp3 --discard   throw away what was done since"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="its name, or #NUMBER")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--keep-current", action="store_true", help="keep the present (the default)")
    group.add_argument("--discard", action="store_true", help="throw the present away")
    parser.add_argument("--paused", action="store_true", help="do not let the guest run yet")


def run(args: argparse.Namespace) -> int:
    request = {
        "name": args.name,
        "snapshot": args.snapshot,
        "discard": args.discard,
        "keep_current": args.keep_current,
        "paused": args.paused,
        "env": talk.environment(),
    }
    answer = client.ask("revert", request, progress=Steps([args.name], quiet=args.quiet))
    if args.json:
        output.print_json(answer)
    else:
        _tell(args, answer)
    return 0


def _tell(args: argparse.Namespace, answer: dict[str, Any]) -> None:
    for warning in answer["warnings"]:
        output.note(f"{args.name}: warning: {warning}", quiet=args.quiet)
    label = answer["snapshot"]["label"]
    how = f"; QEMU was started anew: {answer['why_restarted']}" if answer["why_restarted"] else ""
    output.note(
        f"{args.name}: back at {label}, {answer['state']} ({took(answer['seconds'])}){how}",
        quiet=args.quiet,
    )
    if answer["branch"]:
        branch = answer["branch"]["label"]
        output.note(
            f"  what was done since is kept: `qlaunch revert {args.name} '{branch}'` goes there",
            quiet=args.quiet,
        )
    if answer["discarded"]:
        output.note(f"  thrown away: {short_size(answer['discarded'])}", quiet=args.quiet)
    for disk in answer["left_out"]:
        output.note(f"  {disk} was not in the snapshot and stays as it is", quiet=args.quiet)
