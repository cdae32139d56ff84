"""`qlaunch wait`."""

from __future__ import annotations

from qlaunch.cli import output, talk
from qlaunch.cli.verbs.power import duration
from qlaunch.errors import PhaseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Wait until a machine is stopped (or running), and print its state."
    parser.epilog = (
        "examples:\n"
        "  qlaunch wait xp                           until it has ended\n"
        "  qlaunch wait xp --for running --timeout 30s"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument(
        "--for",
        dest="state",
        choices=("stopped", "running"),
        default="stopped",
        help="what to wait for; stopped when not said",
    )
    parser.add_argument(
        "--timeout", type=duration, metavar="TIME", help="give up after this time, such as 90s"
    )


def run(args: argparse.Namespace) -> int:
    request = {"for": args.state, "timeout": args.timeout}
    try:
        result: dict[str, Any] = talk.ask_machine("wait", args.name, request)
    except PhaseError:
        if args.state != "stopped":
            raise
        result = {"state": "stopped"}
    if args.json:
        output.print_json({"name": args.name, **result})
    else:
        output.print_text(result["state"])
    return 0
