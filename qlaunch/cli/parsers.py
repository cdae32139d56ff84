"""A parser per verb, built when that verb is wanted."""

from __future__ import annotations

import argparse
import importlib
import os

from qlaunch.cli.registry import VERBS, Verb
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import NoReturn

    Actions = dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]]

_WIDEST = 100
# argparse looks on the disk for translations of its own few words, by way of `locale`: 2 ms of each
# command, and half-translated help.
vars(argparse)["_"] = str


class Parser(argparse.ArgumentParser):
    """An argument parser that raises what is wrong instead of printing it and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"`{self.prog} --help` shows what it takes")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Knows its width: argparse would import shutil, and all compressions with it, to find out."""

    width = 0

    def __init__(self, prog: str) -> None:
        if not Formatter.width:
            Formatter.width = _terminal_width()
        super().__init__(prog, max_help_position=26, width=Formatter.width)


def _terminal_width() -> int:
    try:
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size().columns
    except (OSError, ValueError):
        columns = 80
    return max(40, min(columns, _WIDEST)) - 2


def load(verb: Verb) -> ModuleType:
    """The module of `verb`."""
    return importlib.import_module(f"qlaunch.cli.verbs.{verb.module}")


def build(verb: Verb, module: ModuleType, action: str = "") -> Parser:
    """The parser of `verb`, or of one of its actions, with the options that all verbs have."""
    parser = Parser(
        prog=f"qlaunch {verb.name} {action}".rstrip(),
        allow_abbrev=False,
        add_help=False,
        formatter_class=Formatter,
    )
    parser.set_defaults(verb=verb.name)
    actions = actions_of(module)
    if action:
        parser.set_defaults(action=action)
        actions[action][1](parser)
    else:
        module.configure(parser)
        if actions:
            _add_action(parser, actions)
    common = parser.add_argument_group("options of every command")
    common.add_argument("--json", action="store_true", help="print data for programs")
    common.add_argument("-q", "--quiet", action="store_true", help="print no progress, no notes")
    common.add_argument("-v", "--verbose", action="store_true", help="print more")
    common.add_argument("--no-color", action="store_true", help="print no colours")
    common.add_argument("-h", "--help", action="help", help="show this help and end")
    return parser


def actions_of(module: ModuleType) -> Actions:
    """The actions of a verb: by name a line of help, and what configures a parser for it. None for
    a verb without."""
    found: Actions = getattr(module, "ACTIONS", {})
    return found


def _add_action(parser: Parser, actions: Actions) -> None:
    width = max(map(len, actions))
    listed = "\n".join(f"  {name:<{width}}  {line}" for name, (line, _) in actions.items())
    parser.add_argument("action", choices=tuple(actions), metavar="ACTION", help="what to do")
    parser.description = (
        f"{parser.description}\n\nactions (`{parser.prog} ACTION --help` explains one):\n{listed}"
    )


def arguments(verb: Verb, module: ModuleType, words: list[str]) -> argparse.Namespace:
    """What `words` after the verb say. The first that is no option is the verb's action, where it
    has any, or the one after the machine's name. Raises: UsageError."""
    plain = [at for at, word in enumerate(words) if not word.startswith("-")]
    actions = actions_of(module)
    for at in plain[:2]:
        if words[at] in actions:
            return parse(build(verb, module, words[at]), words[:at] + words[at + 1 :])
    return parse(build(verb, module), words)


def parse(parser: Parser, words: list[str]) -> argparse.Namespace:
    """What `words` say. Raises: UsageError."""
    args, extra = parser.parse_known_args(words)
    if extra:
        # Names on both sides of an option: argparse takes them only in this slower mode.
        args = parser.parse_intermixed_args(words)
    return args


def every() -> Iterator[tuple[Verb, Parser]]:
    """Every verb with its parser, for what is generated: completion and the manual page."""
    for verb in VERBS.values():
        try:
            module = load(verb)
        except ModuleNotFoundError as error:
            if error.name != f"qlaunch.cli.verbs.{verb.module}":
                raise
            continue
        yield verb, build(verb, module)
