"""`qlaunch save`."""

from __future__ import annotations

from qlaunch.cli import output, talk
from qlaunch.cli.progress import Steps, took
from qlaunch.units import short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Suspend machines to disk: their memory is written to a file and QEMU ends. `qlaunch up`\n"
        "goes on where they were, also after a restart of the computer. When the saving fails the\n"
        "guest runs on."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch save xp\n"
        "  qlaunch up xp             goes on where it was\n"
        "  qlaunch up xp --fresh     boots it instead, and forgets the memory"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the machines; patterns work")


def run(args: argparse.Namespace) -> int:
    names = talk.targets(args.names)
    steps = Steps(names, quiet=args.quiet)

    def work(name: str) -> int:
        answer = talk.ask_machine("save", name, {}, steps)
        if args.json:
            output.print_json(answer)
        else:
            size = short_size(answer["memory_bytes"])
            output.note(
                f"{name} is saved ({size}, {took(answer['seconds'])}); `qlaunch up {name}` goes on",
                quiet=args.quiet,
            )
        return 0

    return talk.for_each(names, work, as_json=args.json)
