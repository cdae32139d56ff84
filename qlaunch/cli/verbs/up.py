"""`qlaunch up`."""

from __future__ import annotations

import os

from qlaunch.cli import output, talk
from qlaunch.cli.progress import Steps
from qlaunch.control import client
from qlaunch.errors import NotFoundError, UsageError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start machines: make the disks that are missing, start QEMU, wait until it runs. Several\n"
        "start side by side, in the order that [lifecycle] `after` asks for.\n"
        "Without a PROFILE it is ./qlaunch.toml."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch up xp                                     the profile called xp\n"
        "  qlaunch up ./lab.toml web-1 web-2                 a file and two more, all at once\n"
        "  qlaunch up 'web-*'                                every profile whose name begins so\n"
        "  qlaunch up --all                                  all of yours that do not run yet\n"
        "  qlaunch up xp --set memory.size=2GiB --set cpu.count=4   for this start only\n"
        "  qlaunch up xp --view                              and open its screen"
    )
    parser.add_argument(
        "profiles", nargs="*", metavar="PROFILE", help="a profile's name, or the path of its file"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value for this start; the profile stays as it is (again for more)",
    )
    parser.add_argument("--all", action="store_true", help="all profiles of yours")
    parser.add_argument("--name", metavar="NEWNAME", help="call the machine so")
    parser.add_argument("--paused", action="store_true", help="do not let the processors run yet")
    parser.add_argument(
        "--fresh", action="store_true", help="boot, and forget the memory that `save` has kept"
    )
    parser.add_argument("--view", action="store_true", help="open its screen when it runs")


def run(args: argparse.Namespace) -> int:
    check_overrides(args.set)
    words = _words(args)
    if len(words) > 1 and (args.name or args.view):
        raise UsageError("--name and --view are for one machine at a time")
    if args.name:
        paths.check_name(args.name)
    profiles = {word: paths.find_profile(word) for word in words}
    shown = {word: args.name or short_name(word) for word in profiles}
    steps = Steps(list(shown.values()), quiet=args.quiet)
    started: list[str] = []

    def start(word: str) -> int:
        request = {
            "profile": profiles[word],
            "set": args.set,
            "paused": args.paused,
            "fresh": args.fresh,
            "unless_running": talk.is_unit() or args.all or any(map(talk.is_glob, args.profiles)),
            "env": talk.environment(),
            "cwd": talk.folder(),
        }
        if args.name:
            request["name"] = args.name
        result = client.ask("up", request, progress=steps)
        _report(result, args)
        started.append(result["name"])
        return 0

    status = _start_all(profiles, start, args)
    if args.view and started:
        from qlaunch.cli.verbs import view

        return view.open_view(started[0])
    return status


def _words(args: argparse.Namespace) -> list[str]:
    """The profiles that are meant, patterns and `--all` resolved. Raises: NotFoundError."""
    if args.all and args.profiles:
        raise UsageError("--all and names do not go together")
    if args.all:
        return paths.own_profile_names()
    found: dict[str, None] = {}
    for word in args.profiles or talk.here():
        if not talk.is_glob(word) or talk.is_path(word):
            found[word] = None
            continue
        import fnmatch

        matching = fnmatch.filter(sorted(paths.profile_names()), word)
        if not matching:
            raise NotFoundError(
                f"no profile is called like {word!r}", hint="`qlaunch list` shows the profiles"
            )
        found.update(dict.fromkeys(matching))
    return list(found)


def _start_all(
    profiles: dict[str, str], start: Callable[[str], int], args: argparse.Namespace
) -> int:
    if not profiles:
        output.note("you have no profiles; `qlaunch new NAME` writes one", quiet=args.quiet)
        return 0
    if len(profiles) == 1 and not talk.is_unit():
        return start(next(iter(profiles)))
    from qlaunch.cli import ordered

    wishes = ordered.Wishes(profiles, args.set)
    if talk.is_unit():
        for word in profiles:
            ordered.await_others(wishes, word, quiet=args.quiet)
    order = ordered.starting(wishes.after)
    return ordered.for_each(
        list(profiles), start, order, delays=wishes.delays, needs=True, as_json=args.json
    )


def short_name(word: str) -> str:
    """The name that `word` stands for in progress lines, until the supervisor says better."""
    return os.path.basename(word).removesuffix(".toml")


def check_overrides(overrides: list[str]) -> None:
    """Raises: UsageError for a `--set` without a key or value."""
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise UsageError(
                f"--set {override!r} is not KEY=VALUE", hint="for example --set memory.size=2GiB"
            )


def _report(result: dict[str, Any], args: argparse.Namespace) -> None:
    name = result["name"]
    if args.json:
        output.print_json(result)
    for warning in result.get("warnings") or ():
        print_finding(name, warning, quiet=args.quiet)
    if result.get("already"):
        output.note(f"{name} runs already", quiet=args.quiet)
        return
    if result.get("continued"):
        output.note(f"{name}: {result['continued']}", quiet=args.quiet)
    ways = [f"view: qlaunch view {name}"] if result.get("display") else []
    if result.get("serial", True):
        ways.append(f"console: qlaunch console {name}")
    ways.append(f"stop: qlaunch down {name}")
    output.note(f"    {'   '.join(ways)}", quiet=args.quiet)


def print_finding(name: str, finding: dict[str, Any], *, quiet: bool = False) -> None:
    """Print one finding of the supervisor: where, what and what to do about it."""
    where, hint = finding.get("where"), finding.get("hint")
    text = f"{where}: {finding.get('message')}" if where else f"{finding.get('message')}"
    output.note(f"{name}: {finding.get('level', 'warning')}: {text}", quiet=quiet)
    if hint:
        output.note(f"  hint: {hint}", quiet=quiet)
