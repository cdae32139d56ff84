"""`qlaunch inject` and `qlaunch nmi`."""

from __future__ import annotations

from qlaunch.cli import output, talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EVENTS = ("nmi", "power-button", "wakeup")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the machine")
    if parser.get_default("verb") == "nmi":
        parser.description = (
            "Send a non-maskable interrupt to the guest's processors. Windows stops and writes\n"
            "its dump where it is set up so; Linux says so, or panics with unknown_nmi_panic."
        )
        parser.epilog = "examples:\n  qlaunch nmi win"
        return
    parser.description = (
        "Have something happen to the guest: nmi, power-button (once; `down` waits and does\n"
        "more), wakeup (out of suspend to memory)."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch inject win nmi\n"
        "  qlaunch inject xp power-button\n"
        "  qlaunch inject deb wakeup"
    )
    parser.add_argument("event", choices=EVENTS, metavar="EVENT", help=", ".join(EVENTS))


def run(args: argparse.Namespace) -> int:
    event = "nmi" if args.verb == "nmi" else args.event
    answer = talk.ask_machine("inject", args.name, {"event": event})
    if args.json:
        output.print_json(answer)
    else:
        output.note(f"{args.name}: {event} was injected", quiet=args.quiet)
    return 0
