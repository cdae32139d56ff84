"""`qlaunch events`."""

from __future__ import annotations

import os
import time

from qlaunch.cli import output, talk
from qlaunch.cli.verbs.power import duration
from qlaunch.store import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what happened to machines, oldest first: starts, ends and why, states, what was\n"
        "asked for and how it went. They are kept, also over restarts and while nothing runs."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch events xp --since 1h         what became of xp in the last hour\n"
        "  qlaunch events -f --json             all from now on, for a program\n"
        "  qlaunch events -f --since 10min      what it may have missed, and then all"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only of these; patterns work")
    parser.add_argument("-f", "--follow", action="store_true", help="and all that come, for ever")
    parser.add_argument(
        "--since", type=duration, metavar="TIME", help="only the last ones, such as 10min"
    )


def run(args: argparse.Namespace) -> int:
    after = 0.0 if args.since is None else time.time() - args.since
    if args.follow and args.since is None:
        after = time.time()
    for event in _follow() if args.follow else events.Reader().new():
        if event.get("time", 0.0) >= after and _is_meant(event, args.names):
            _print(event, args)
    return 0


def _follow() -> Iterator[dict[str, Any]]:
    from qlaunch.host.inotify import Watch

    folder = os.path.dirname(events.path())
    os.makedirs(folder, mode=0o700, exist_ok=True)
    reader = events.Reader()
    with Watch(folder) as watch:
        while True:
            yield from reader.new()
            watch.wait()


def _is_meant(event: dict[str, Any], names: list[str]) -> bool:
    named = {"name": str(event.get("machine"))}
    return not names or any(talk.matches(word, named) for word in names)


def _print(event: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        print(output.to_json(event), flush=True)
        return
    moment = float(event.get("time") or 0.0)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    more = [
        f"{key}={value}"
        for key, value in event.items()
        if key not in ("time", "machine", "event") and value not in (None, "")
    ]
    words = (stamp, str(event.get("machine") or "-"), str(event.get("event")), *more)
    print(output.clean("  ".join(words)), flush=True)
