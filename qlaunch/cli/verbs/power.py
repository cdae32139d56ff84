"""`qlaunch down`, `restart`, `kill`, `reset`, `pause` and `resume`."""

from __future__ import annotations

from qlaunch import units
from qlaunch.cli import output, talk
from qlaunch.cli.progress import Steps
from qlaunch.errors import QlaunchError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

DONE = {
    "down": "is down",
    "restart": "was restarted",
    "kill": "was killed",
    "reset": "was reset",
    "pause": "is paused",
    "resume": "runs on",
}
_PATTERN = "  qlaunch {verb} 'web-*'            every machine whose name begins so"
_TEXTS = {
    "down": (
        "Shut machines down: by the guest agent or the power button. Each step is told. A guest\n"
        "that has not powered off when its time is up runs on, but with --force QEMU is ended\n"
        "then: what the guest has not saved is lost.",
        (
            "  qlaunch down xp                 gracefully",
            "  qlaunch down xp --timeout 5min  for a guest that installs updates",
            "  qlaunch down xp --force         and end QEMU if the guest takes too long",
            "  qlaunch down --all              all that run, those that need others first",
        ),
    ),
    "restart": (
        "Shut machines down and start them again, with the profile as it is now.",
        (
            "  qlaunch restart xp              gracefully",
            "  qlaunch restart xp --force      and end QEMU if the guest takes too long",
        ),
    ),
    "kill": (
        "End machines at once, as if the power failed. What the guest has not written is lost.",
        ("  qlaunch kill xp                 pull its plug",),
    ),
    "reset": (
        "Press the reset button: the guest starts anew, QEMU runs on.",
        ("  qlaunch reset xp                as the button does",),
    ),
    "pause": (
        "Stop the guest's processors. Its memory stays where it is; the guest notices nothing but\n"
        "the clock.",
        ("  qlaunch pause xp                until `qlaunch resume xp`",),
    ),
    "resume": (
        "Let paused machines go on, also those that stopped for a full disk of the host.",
        ("  qlaunch resume xp               after `qlaunch pause xp`",),
    ),
}


def configure(parser: argparse.ArgumentParser) -> None:
    verb = parser.get_default("verb")
    parser.description, examples = _TEXTS[verb]
    parser.epilog = "\n".join(("examples:", *examples, _PATTERN.format(verb=verb)))
    parser.add_argument("names", nargs="*", metavar="NAME", help="the machines; patterns work")
    if verb == "down":
        parser.add_argument("--all", action="store_true", help="all machines that run")
    if verb in ("down", "restart"):
        parser.add_argument("--force", action="store_true", help="end QEMU when the time is up")
        parser.add_argument(
            "--timeout",
            type=duration,
            metavar="TIME",
            help="how long the guest has for it, such as 90s or 5min",
        )


def duration(text: str) -> float:
    """Seconds, for argparse; a bare number is seconds too."""
    import argparse

    try:
        return float(text) if text.isascii() and text.isdigit() else units.parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> int:
    is_down = args.verb == "down"
    names = _all(args) if is_down and args.all else talk.targets(args.names)
    steps = Steps(names, quiet=args.quiet)
    request: dict[str, Any] = {}
    if args.verb in ("down", "restart"):
        request = {"force": args.force, "timeout": args.timeout}
    if is_down:
        request["by_unit"] = talk.is_unit()
    if args.verb == "restart":
        request["env"] = talk.environment()

    def work(name: str) -> int:
        result = talk.ask_machine(args.verb, name, request, steps) or {}
        if args.json:
            output.print_json({"name": name, **result})
        else:
            how = f" ({result['how']})" if result.get("how") else ""
            output.note(f"{name} {DONE[args.verb]}{how}", quiet=args.quiet)
        return 0

    if not is_down or len(names) == 1:
        return talk.for_each(names, work, as_json=args.json)
    from qlaunch.cli import ordered

    try:
        after = {each["name"]: each.get("after") or () for each in talk.machines()["machines"]}
    except QlaunchError:
        after = {}  # each of them will be told what is amiss
    order = ordered.stopping({name: after.get(name, ()) for name in names})
    return ordered.for_each(names, work, order, as_json=args.json)


def _all(args: argparse.Namespace) -> list[str]:
    if args.names:
        raise UsageError("--all and names do not go together")
    names = [each["name"] for each in talk.machines()["machines"]]
    if not names:
        output.note("no machine runs", quiet=args.quiet)
    return names
