"""`qlaunch status`."""

from __future__ import annotations

from qlaunch.cli import output, table, talk
from qlaunch.cli.verbs.ps import last_end, stopped_state
from qlaunch.errors import NotFoundError, PhaseError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show everything about one machine: what it is made of and how it fares."
    parser.epilog = (
        "examples:\n"
        "  qlaunch status xp           for people\n"
        "  qlaunch status xp --json    for programs"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")


def run(args: argparse.Namespace) -> int:
    status = status_of(args.name)
    if args.json:
        output.print_json(status)
        return 0
    print(table.outline(status))
    return 0


def status_of(name: str) -> dict[str, Any]:
    """The supervisor's status of `name`, or how it ended when it is not running.

    Raises: NotFoundError when there is no machine or profile of that name.
    """
    try:
        answer: dict[str, Any] = talk.ask_machine("status", name)
        return answer
    except (NotFoundError, PhaseError):
        missing = talk.not_running(name)
        if isinstance(missing, NotFoundError):
            raise missing from None
    last = last_end(name)
    return {
        "name": name,
        "state": stopped_state(name, last),
        "reason": last.get("reason"),
        "since": last.get("when"),
        "profile": paths.profile_names().get(name),
    }
