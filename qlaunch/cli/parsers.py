"""A parser per verb, built when that verb is wanted."""

from __future__ import annotations

import argparse
import importlib
import os

from qlaunch.cli.registry import VERBS, Verb
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import NoReturn

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


def build(verb: Verb, module: ModuleType) -> Parser:
    """The parser of `verb`, with the options that all verbs have."""
    parser = Parser(
        prog=f"qlaunch {verb.name}",
        allow_abbrev=False,
        add_help=False,
        formatter_class=Formatter,
    )
    parser.set_defaults(verb=verb.name)
    module.configure(parser)
    common = parser.add_argument_group("options of every command")
    common.add_argument("--json", action="store_true", help="print data for programs")
    common.add_argument("-q", "--quiet", action="store_true", help="print no progress, no notes")
    common.add_argument("-v", "--verbose", action="store_true", help="print more")
    common.add_argument("--no-color", action="store_true", help="print no colours")
    common.add_argument("-h", "--help", action="help", help="show this help and end")
    return parser


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
