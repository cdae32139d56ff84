"""`qlaunch check`."""

from __future__ import annotations

import os

from qlaunch.cli import definitions, output, talk
from qlaunch.cli.verbs.up import check_overrides
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

FAILED = 2


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find all that is wrong with a profile, and what would fail if it were started now:\n"
        "a missing disk or ISO, an image that is in use, no rights on KVM, a port that is taken.\n"
        "Nothing is changed. Without a PROFILE it is ./qlaunch.toml."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch check xp                      the profile called xp\n"
        "  qlaunch check ./*.toml --strict       in a script: warnings fail, too\n"
        "  qlaunch check xp --set cpu.count=4    with another value\n"
        "\nexit status: 0 when it could start (warnings or not), 2 when it could not"
    )
    parser.add_argument(
        "profiles", nargs="*", metavar="PROFILE", help="a profile's name, or the path of its file"
    )
    definitions.add_set(parser)
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")


def run(args: argparse.Namespace) -> int:
    check_overrides(args.set)
    words = args.profiles or talk.here()
    files = {word: paths.find_profile(word) for word in words}
    checked = [_check(word, path, args.set) for word, path in files.items()]
    if args.json:
        output.print_json({"profiles": checked})
    else:
        for each in checked:
            definitions.print_findings(each["findings"], stdout=True)
            if not args.quiet:
                print(f"{output.clean(each['profile'])}: {_summary(each)}")
    bad = any(each["errors"] or (args.strict and each["warnings"]) for each in checked)
    return FAILED if bad else 0


def _check(word: str, path: str, overrides: list[str]) -> dict[str, Any]:
    name, found = definitions.findings(path, overrides)
    levels = [finding["level"] for finding in found]
    return {
        "profile": word,
        "file": os.path.abspath(path),
        "name": name,
        "errors": levels.count("error"),
        "warnings": levels.count("warning"),
        "findings": found,
    }


def _summary(checked: dict[str, Any]) -> str:
    told = [
        definitions.counted(checked[f"{word}s"], word)
        for word in ("error", "warning")
        if checked[f"{word}s"]
    ]
    return ", ".join(told) or "good"
