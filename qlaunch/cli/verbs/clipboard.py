"""`qlaunch clipboard`."""

from __future__ import annotations

import sys

from qlaunch.cli import output
from qlaunch.cli.verbs.power import duration
from qlaunch.cli.verbs.status import status_of
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Read or write the guest's clipboard, without a viewer. Needs the SPICE agent in the\n"
        "guest (spice-vdagent, in Windows spice-guest-tools); `qlaunch status` says whether it is\n"
        "there. While a viewer is connected, its desk has the clipboard."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch clipboard xp get\n"
        "  qlaunch clipboard xp set 'a text'\n"
        "  pass show mail | qlaunch clipboard xp set"
    )


def _get(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the text that the guest has copied since the last viewer left. Without SPICE only\n"
        "what it copies from the first call on can be had: this waits for it."
    )
    parser.epilog = "examples:\n  qlaunch clipboard xp get\n  qlaunch clipboard xp get --wait 1min"
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument(
        "--wait", type=duration, metavar="TIME", help="without SPICE: how long (default: 5s)"
    )


def _set(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Give the guest a text to paste, from the standard input where none is named. It can be\n"
        "pasted until something else is copied there, a viewer connects or the machine ends: a\n"
        "process in the background has it until then."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch clipboard xp set 'a text'\n"
        "  pass show mail | qlaunch clipboard xp set --once      wait until it was pasted"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text")
    parser.add_argument("--once", action="store_true", help="wait, and forget it once pasted")


ACTIONS = {
    "get": ("print what the guest has copied", _get),
    "set": ("give the guest a text to paste", _set),
}


def run(args: argparse.Namespace) -> int:
    from qlaunch.cli import clipboards

    if args.action == "get":
        request = {"get": True, "wait": args.wait}
        text = str(clipboards.ask(args.name, status_of(args.name), request)["text"])
        if args.json:
            output.print_json({"name": args.name, "text": text})
        elif sys.stdout.isatty():
            print(output.clean(text, keep="\n\t"))
        else:
            sys.stdout.buffer.write(text.encode())
        return 0
    text = args.text if args.text is not None else _input()
    request = {"set": text, "once": args.once}
    pasted = bool(clipboards.ask(args.name, status_of(args.name), request)["pasted"])
    if args.json:
        output.print_json({"name": args.name, "characters": len(text), "pasted": pasted})
    elif args.once and not pasted:
        output.note(f"{args.name}: it was not pasted: something else took its place")
    else:
        done = "was pasted" if pasted else "can be pasted now"
        output.note(f"{args.name}: the text {done}", quiet=args.quiet)
    return 0 if pasted or not args.once else 1


def _input() -> str:
    if sys.stdin.isatty():
        raise UsageError("which text?", hint="name it, or give it by the standard input")
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise UsageError("the standard input is no text in UTF-8") from None
    if not text:
        raise UsageError("the standard input holds no text")
    return text
