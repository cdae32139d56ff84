"""`qlaunch doctor`."""

from __future__ import annotations

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
        "\nexit status: 1 when a line says fail, else 0"
    )


def run(args: argparse.Namespace) -> int:
    from qlaunch.cli.check_lines import FAIL, OK
    from qlaunch.cli.checkup import checks

    found = []
    for check in checks():
        found.append(check)
        if not args.json and not (args.quiet and check.level == OK):
            print_check(check)
    failed = any(check.level == FAIL for check in found)
    if args.json:
        output.print_json({"ok": not failed, "checks": [check.to_dict() for check in found]})
    return int(failed)


def print_check(check: Check) -> None:
    """Print a line, and what mends it."""
    level = output.paint(f"{check.level:<4}", _COLORS[check.level], on=output.colored(sys.stdout))
    print(f"{level}  {output.clean(check.message)}")
    if check.hint:
        print(f"        {output.clean(check.hint)}")
    sys.stdout.flush()
