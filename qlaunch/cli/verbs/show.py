"""`qlaunch show`."""

from __future__ import annotations

import sys

from qlaunch.cli import definitions, output
from qlaunch.cli.verbs.up import check_overrides
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print a profile as it counts: with everything it builds on, and with --set. With --plan\n"
        "it is the plan, every decision that a start would make now."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch show xp              as TOML\n"
        "  qlaunch show xp --origins    and where each line comes from\n"
        "  qlaunch show xp --plan       the plan, as JSON"
    )
    parser.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file's path")
    definitions.add_set(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="print the plan that follows")
    what.add_argument("--origins", action="store_true", help="tell which file says each key")


def run(args: argparse.Namespace) -> int:
    check_overrides(args.set)
    path = paths.find_profile(args.profile)
    if args.plan:
        return _plan(path, args)
    from qlaunch.profile.dump import dumps
    from qlaunch.profile.load import load
    from qlaunch.profile.toml import parse_toml

    profile = load(path, overrides=args.set)
    if args.json:
        output.print_json({"file": path, "profile": parse_toml(dumps(profile))})
    else:
        sys.stdout.write(output.clean(dumps(profile, origins=args.origins), keep="\n\t"))
    return 0


def _plan(path: str, args: argparse.Namespace) -> int:
    from qlaunch.records import to_plain

    prepared = definitions.prepared(path, args.set)
    found = [finding.to_dict() for finding in prepared.resolution.findings]
    if args.json:
        output.print_json({"plan": to_plain(prepared.resolution.plan), "findings": found})
        return 0
    definitions.print_findings(found)
    output.print_json(to_plain(prepared.resolution.plan), pretty=True)
    return 0
