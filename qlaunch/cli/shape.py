"""The parsers as plain data, for what is generated from them: completion and the manual page."""

from __future__ import annotations

import argparse

from qlaunch.cli import parsers
from qlaunch.cli.registry import Verb

# What an argument completes to, by its metavar; anything else completes to nothing.
COMPLETED = ("NAME", "NETWORK", "PROFILE", "IMAGE", "FILE", "FOLDER")
_MANY = ("*", "+")


class Argument:
    """An option or a positional argument."""

    __slots__ = ("choices", "flags", "help", "kind", "many", "optional", "takes_value")

    def __init__(self, action: argparse.Action) -> None:
        self.flags = tuple(action.option_strings)
        self.takes_value = action.nargs != 0
        self.choices = tuple(str(choice) for choice in action.choices or ())
        metavar = action.metavar if isinstance(action.metavar, str) else None
        self.kind = metavar or ("{" + ",".join(self.choices) + "}" if self.choices else action.dest)
        self.many = action.nargs in _MANY or isinstance(action, argparse._AppendAction)
        self.optional = action.nargs in ("?", "*")
        self.help = (action.help or "") % {
            "default": action.default,
            "prog": "qlaunch",
            "choices": ", ".join(self.choices),
        }

    @property
    def completed(self) -> str:
        """NAME, NETWORK, PROFILE, IMAGE, FILE, FOLDER, the choices after a `@`, or nothing."""
        if self.choices:
            return "@" + " ".join(self.choices)
        return self.kind if self.kind in COMPLETED else ""

    @property
    def synopsis(self) -> str:
        """`NAME`, `[FILE]`, `KEYS ...`."""
        word = f"{self.kind} ..." if self.many else self.kind
        return f"[{word}]" if self.optional else word


class Shape:
    """What one verb takes, or one action of it. `name` is `disk`, or `disk attach`; `actions` are
    the shapes of a verb's actions."""

    __slots__ = (
        "actions", "arguments", "description", "epilog", "help", "name", "options", "shared",
        "verb",
    )  # fmt: skip

    def __init__(
        self, verb: Verb, parser: parsers.Parser, *, action: str = "", help_line: str = ""
    ) -> None:
        visible = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        common = {id(action) for action in parser._action_groups[-1]._group_actions}
        self.verb = verb
        self.name = f"{verb.name} {action}".rstrip()
        self.help = help_line or verb.help
        self.actions: list[Shape] = []
        self.description = parser.description or ""
        self.epilog = parser.epilog or ""
        self.arguments = [Argument(each) for each in visible if not each.option_strings]
        flagged = [each for each in visible if each.option_strings]
        self.options = [Argument(each) for each in flagged if id(each) not in common]
        self.shared = [Argument(each) for each in flagged if id(each) in common]


def shapes() -> list[Shape]:
    """Every verb, in the order of the table."""
    return [_shape(verb, parser) for verb, parser in parsers.every()]


def _shape(verb: Verb, parser: parsers.Parser) -> Shape:
    shape = Shape(verb, parser)
    module = parsers.load(verb)
    for action, (line, _) in parsers.actions_of(module).items():
        built = parsers.build(verb, module, action)
        shape.actions.append(Shape(verb, built, action=action, help_line=line))
    return shape
