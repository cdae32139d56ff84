"""`qlaunch send-key` and `qlaunch type`."""

from __future__ import annotations

import sys

from qlaunch.cli import output, talk
from qlaunch.cli.verbs.power import duration
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the machine")
    if parser.get_default("verb") == "send-key":
        parser.description = "Press keys on the guest's keyboard, one word after the other."
        parser.epilog = (
            "examples:\n"
            "  qlaunch send-key xp ctrl-alt-delete\n"
            "  qlaunch send-key xp down down ret       three keys, one after the other\n"
            "  qlaunch send-key xp f8 --hold 500ms     long enough for a boot menu"
        )
        parser.add_argument(
            "keys", nargs="+", metavar="KEYS", help="keys held together, joined with -"
        )
        parser.add_argument("--hold", type=duration, metavar="TIME", help="how long each is held")
    else:
        parser.description = "Type a text on the guest's keyboard (a US layout in the guest)."
        parser.epilog = (
            "examples:\n"
            "  qlaunch type xp 'dir c:'\n"
            "  qlaunch type xp --enter notepad     and press enter\n"
            "  qlaunch type xp - < script.txt      the text comes from standard input\n"
            "  qlaunch type xp -- '-a text with a dash'"
        )
        parser.add_argument("text", metavar="TEXT", help="the text; - reads it from standard input")
        parser.add_argument("--enter", action="store_true", help="press enter at the end")


def run(args: argparse.Namespace) -> int:
    if args.verb == "send-key":
        request = {"keys": args.keys, "hold": args.hold}
    else:
        text = _read() if args.text == "-" else args.text
        request = {"text": text + "\n" if args.enter else text}
    result = talk.ask_machine(args.verb, args.name, request)
    if args.json:
        output.print_json({"name": args.name, **(result or {})})
    return 0


def _read() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the text on standard input is not UTF-8: {error}") from None
