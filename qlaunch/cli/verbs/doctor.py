"""`qlaunch doctor`."""

from __future__ import annotations

import os
import sys

from qlaunch.cli import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from qlaunch.cli.check_lines import Check

_COLORS = {"ok": output.GREEN, "warn": output.YELLOW, "fail": output.RED}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say what this computer can do for machines, a line each: ok, warn (something will not\n"
        "work) or fail (nothing will), with the command that mends it. Nothing is changed."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch doctor            for people\n"
        "  qlaunch doctor --json     for programs\n"
        "  qlaunch doctor --report   a file for a bug report, without passwords\n"
        "\nexit status: 1 when a line says fail, else 0"
    )
    parser.add_argument(
        "--report", nargs="?", const="", metavar="FILE",
        help="write all this, plans and logs into a file to send; secrets are left out",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from qlaunch.cli.check_lines import FAIL, OK
    from qlaunch.cli.checkup import checks

    found = []
    for check in checks():
        found.append(check)
        if not args.json and not (args.quiet and check.level == OK):
            print_check(check)
    written = _write_report(args, found) if args.report is not None else None
    failed = any(check.level == FAIL for check in found)
    if args.json:
        answer = {"ok": not failed, "checks": [check.to_dict() for check in found]}
        output.print_json(answer | ({"report": written} if written else {}))
    return int(failed)


def _write_report(args: argparse.Namespace, found: list[Check]) -> str:
    from qlaunch.cli import bug_report

    path = os.path.abspath(os.path.expanduser(args.report)) if args.report else ""
    path = path or bug_report.default_path()
    bug_report.write(path, found)
    output.note(f"{path} is for a bug report: read it once before you send it", quiet=args.quiet)
    return path


def print_check(check: Check) -> None:
    """Print a line, and what mends it."""
    level = output.paint(f"{check.level:<4}", _COLORS[check.level], on=output.colored(sys.stdout))
    print(f"{level}  {output.clean(check.message)}")
    if check.hint:
        print(f"        {output.clean(check.hint)}")
    sys.stdout.flush()
