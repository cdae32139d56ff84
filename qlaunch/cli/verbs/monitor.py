"""`qlaunch qmp` and `qlaunch hmp`: QEMU's own words, past qlaunch."""

from __future__ import annotations

import json

from qlaunch.cli import output, talk
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the machine")
    if parser.get_default("verb") == "qmp":
        parser.description = (
            "Send any QMP command to QEMU and print what it answers. Arguments are one JSON\n"
            "object, or KEY=VALUE words; a VALUE that is JSON (3, true, [1,2]) is taken as such."
        )
        parser.epilog = (
            "examples:\n"
            "  qlaunch qmp xp query-block\n"
            "  qlaunch qmp xp set_link name=net0 up=false\n"
            '  qlaunch qmp xp human-monitor-command \'{"command-line": "info mtree"}\''
        )
        parser.add_argument("command", metavar="COMMAND", help="for example query-status")
        parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="JSON or KEY=VALUE")
    else:
        parser.description = "Send a line to QEMU's human monitor and print what it answers."
        parser.epilog = "examples:\n  qlaunch hmp xp info qtree\n  qlaunch hmp xp 'info block -v'"
        parser.add_argument("line", nargs="+", metavar="WORD", help="the line, such as info qtree")


def run(args: argparse.Namespace) -> int:
    if args.verb == "hmp":
        reply = talk.ask_machine("hmp", args.name, {"line": " ".join(args.line)})
        if args.json:
            output.print_json(reply)
        elif text := reply["text"].replace("\r", "").rstrip("\n"):
            output.print_text(text)
        return 0
    request = {"command": args.command, "arguments": parse_arguments(args.arguments)}
    reply = talk.ask_machine("qmp", args.name, request)
    output.print_json(reply["return"], pretty=not args.json)
    return 0


def parse_arguments(words: list[str]) -> dict[str, Any]:
    """The arguments that `words` say: one JSON object, or `key=value` each. Raises: UsageError."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            parsed = json.loads(words[0])
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the arguments are not JSON: {error}") from None
        if isinstance(parsed, dict):
            return parsed
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"{word!r} is not KEY=VALUE", hint="or give one JSON object")
        arguments[key] = _value(value)
    return arguments


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
