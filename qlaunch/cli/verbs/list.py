"""`qlaunch list`."""

from __future__ import annotations

import sys

from qlaunch.cli import definitions, output
from qlaunch.cli.table import table
from qlaunch.errors import QlaunchError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

HEADER = ("NAME", "FROM", "GUEST", "STATE", "TITLE")
COLORS = {"running": output.GREEN, "broken": output.RED, "paused": output.YELLOW}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the profiles that can be started by name: yours, the system's and those that came\n"
        "with qlaunch. A broken one is listed with what is wrong."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch list           for people\n"
        "  qlaunch list --json    for programs, with the files"
    )


def run(args: argparse.Namespace) -> int:
    from qlaunch.machine.names import interrupted_renames

    states = definitions.states()
    listed = [_look(name, path, states) for name, path in sorted(paths.profile_names().items())]
    renames = interrupted_renames()
    if args.json:
        output.print_json({"profiles": listed, "interrupted_renames": renames})
        return 0
    if listed:
        colors = COLORS if output.colored(sys.stdout) else None
        print(table(HEADER, [_row(each) for each in listed], colors))
    else:
        output.note("there are no profiles; `qlaunch new NAME` writes one", quiet=args.quiet)
    for each in listed:
        if each["machine"] != each["name"] and not each["problem"]:
            output.note(
                f"{each['name']}: its machine is called {each['machine']}", quiet=args.quiet
            )
    for old, new in renames.items():
        output.note(
            f"renaming {old} to {new} was interrupted: `qlaunch rename {old} {new}` finishes it"
        )
    return 0


def _look(name: str, path: str, states: dict[str, str]) -> dict[str, Any]:
    from qlaunch.profile.load import load

    entry: dict[str, Any] = {
        "name": name, "machine": name, "from": definitions.source_of(path), "file": path,
        "title": None, "guest": None, "state": "stopped", "problem": None,
    }  # fmt: skip
    try:
        profile = load(path)
    except QlaunchError as error:
        entry["problem"] = error.to_dict()
    else:
        entry |= {
            "machine": profile.name, "title": profile.title, "guest": profile.guest or "other",
        }  # fmt: skip
    state = "broken" if entry["problem"] else paths.stopped_state(entry["machine"])
    entry["state"] = states.get(entry["machine"], state)
    return entry


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    words = entry["title"] or ""
    if entry["problem"]:
        words = str(entry["problem"]["message"]).splitlines()[0]
    return entry["name"], entry["from"], entry["guest"] or "-", entry["state"], words
