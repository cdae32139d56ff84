"""`qlaunch ps`."""

from __future__ import annotations

import os
import sys
import time

from qlaunch import units
from qlaunch.cli import output, talk
from qlaunch.cli.table import table
from qlaunch.errors import NotFoundError, UsageError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

# With --watch: memory and processor change without an event.
LONGEST = 5.0
HEADER = ("NAME", "STATE", "SINCE", "PID", "MEM", "CPU", "NETWORK", "CONNECT")
FIELDS = (
    "name", "state", "since", "pid", "memory", "cpu", "accel", "confined", "title", "network",
    "display", "profile", "warnings",
)  # fmt: skip
COLORS = {
    "running": output.GREEN,
    "paused": output.YELLOW,
    "starting": output.YELLOW,
    "stopping": output.YELLOW,
    "failed": output.RED,
    "unresponsive": output.RED,
    "io-error": output.RED,
    "guest-panicked": output.RED,
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the machines that run: their state and since when, process, memory and processor in\n"
        "use (100 % is one core), what their network cards are plugged into, and where a viewer\n"
        "connects."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch ps                           what runs\n"
        "  qlaunch ps -a                        the profiles that do not run, too\n"
        "  qlaunch ps 'web-*'                   some of them\n"
        "  qlaunch ps --watch                   until Ctrl-C\n"
        "  qlaunch ps --format '{name} {pid}'   for a shell script\n"
        f"\nfields of --format: {' '.join(FIELDS)}"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; * ? [ ] are patterns")
    parser.add_argument("-a", "--all", action="store_true", help="list what does not run, too")
    parser.add_argument("--watch", action="store_true", help="and again whenever it changes")
    parser.add_argument("--format", metavar="TEXT", help="print TEXT for each, {fields} replaced")


def run(args: argparse.Namespace) -> int:
    if not args.watch:
        _show(args)
        return 0
    from qlaunch.cli import watch

    watch.on_change(lambda: _show(args), paths.state_dir(), LONGEST)
    return 0


def _show(args: argparse.Namespace) -> None:
    reply = talk.machines()
    listed: list[dict[str, Any]] = reply["machines"]
    if args.all or args.names:
        stopped = _stopped({each["name"] for each in listed})
        if not args.all:
            stopped = [each for each in stopped if each["name"] in args.names]
        listed += stopped
    if args.names:
        listed = [each for each in listed if any(talk.matches(word, each) for word in args.names)]
        _check_found(args.names, listed)
    reply["machines"] = listed
    if args.json:
        output.print_json(reply)
    elif args.format is not None:
        for machine in listed:
            print(_formatted(args.format, machine))
    else:
        _print(listed, args)


def _print(listed: list[dict[str, Any]], args: argparse.Namespace) -> None:
    if listed:
        now = time.time()
        colors = COLORS if output.colored(sys.stdout) else None
        print(table(HEADER, [_row(machine, now) for machine in listed], colors))
        for machine in listed:
            for warning in machine.get("warnings") or ():
                output.note(f"{machine['name']}: {_warning(warning)}", quiet=args.quiet)
    else:
        output.note("no machine runs; `qlaunch up NAME` starts one", quiet=args.quiet)


def _row(machine: dict[str, Any], now: float) -> tuple[object, ...]:
    since, memory, cpu = machine.get("since"), machine.get("memory"), machine.get("cpu")
    return (
        machine["name"],
        machine["state"],
        "-" if since is None else units.short_duration(max(0.0, now - since)),
        machine.get("pid") or "-",
        "-" if memory is None else units.short_size(memory),
        "-" if cpu is None else f"{cpu:.0f}%",
        ", ".join(machine.get("network") or ()) or "-",
        " ".join(machine.get("display") or ()) or machine.get("reason") or "-",
    )


def _warning(warning: object) -> str:
    return str(warning["message"]) if isinstance(warning, dict) else str(warning)


def _stopped(running: set[str]) -> list[dict[str, Any]]:
    """The profiles that do not run, and the machines that were started from a file elsewhere,
    with why and when they ended last."""
    listed: list[dict[str, Any]] = []
    known: dict[str, str | None] = {**dict.fromkeys(_ended()), **paths.profile_names()}
    for name, profile in sorted(known.items()):
        if name not in running:
            last = last_end(name)
            listed.append(
                {"name": name, "state": stopped_state(name, last), "since": last.get("when"),
                 "pid": None, "memory": None, "cpu": None, "accel": None, "confined": [],
                 "title": None, "network": [], "display": [], "profile": profile, "warnings": [],
                 "reason": last.get("reason")}
            )  # fmt: skip
    return listed


def _ended() -> list[str]:
    """The machines that ran once and whose state is still there."""
    folder = os.path.join(paths.state_dir(), "machines")
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [name for name in names if os.path.exists(os.path.join(folder, name, "last.json"))]


def stopped_state(name: str, last: dict[str, Any]) -> str:
    """`stopped`, `saved`, or `failed` for one that ended as nobody wanted it to."""
    state = paths.stopped_state(name)
    return "failed" if state == "stopped" and last.get("failed") is True else state


def last_end(name: str) -> dict[str, Any]:
    """Why and when the machine ended last: {"reason", "when"}, or nothing."""
    try:
        with open(os.path.join(paths.machine_state(name), "last.json"), "rb") as file:
            text = file.read()
    except OSError:
        return {}
    import json

    try:
        last = json.loads(text)
    except ValueError:
        return {}
    return last if isinstance(last, dict) else {}


def _check_found(words: list[str], listed: list[dict[str, Any]]) -> None:
    for word in words:
        if not talk.is_glob(word) and not any(talk.matches(word, each) for each in listed):
            paths.find_profile(word)
            raise NotFoundError(f"{word} does not run", hint="`qlaunch ps -a` shows all")


def _formatted(form: str, machine: dict[str, Any]) -> str:
    words = dict.fromkeys(FIELDS, "") | {
        key: " ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in machine.items()
        if value is not None
    }
    try:
        return output.clean(form.format_map(words), keep="\n\t")
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"--format: {form!r} is not understood ({error})", hint=f"fields: {' '.join(FIELDS)}"
        ) from None
