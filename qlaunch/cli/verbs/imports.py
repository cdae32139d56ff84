"""`qlaunch import`."""

from __future__ import annotations

import os
import sys

from qlaunch.cli import definitions, output
from qlaunch.errors import ConflictError, NotFoundError, ProfileError, QlaunchError, UsageError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import Any

    from qlaunch.libvirt.domain import Imported
    from qlaunch.libvirt.report import Entry

_MAX_LINES = 8
_HEADS = {
    "mended": "read as it was meant",
    "not needed": "not needed here",
    "different here": "different here",
    "not supported": "NOT SUPPORTED",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Turn a domain of libvirt into a profile, as a person would have written it. A report\n"
        "tells of every element that has no effect here, and why. Nothing that exists is\n"
        "overwritten, and no libvirt is needed."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch import xp.xml                    a profile called as the domain is\n"
        "  qlaunch import xp.xml --name xp2         called xp2\n"
        "  qlaunch import xp.xml --stdout --quiet   look at it first\n"
        "  virsh dumpxml xp | qlaunch import -      from libvirt itself"
    )
    parser.add_argument("file", metavar="FILE", help="libvirt's XML; - is standard input")
    parser.add_argument("--name", help="what the machine is called, instead of the domain's name")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-o", "--output", metavar="FILE", help="write it there")
    target.add_argument("--stdout", action="store_true", help="print it, and write nothing")
    parser.add_argument(
        "--strict", action="store_true", help="what is not supported is an error; nothing is made"
    )


def run(args: argparse.Namespace) -> int:
    shown, data = _read(args.file)
    made = _imported(args, shown, data)
    if args.strict and made.unsupported:
        raise _refused(shown, made.unsupported)
    target = None if args.stdout else _target(args, made.name)
    if target is not None:
        _write(made, target)
    if args.json:
        output.print_json(_plain(shown, made, target))
        return 0
    if target is None:
        output.print_text(made.text.rstrip("\n"))
    if not args.quiet:
        _tell(shown, made, target)
    return 0


def _read(word: str) -> tuple[str, bytes]:
    """What messages call the file, and its bytes: a little more than may be, if it is too large."""
    from qlaunch.libvirt.xml import MAX_BYTES

    try:
        if word == "-":
            return "stdin", sys.stdin.buffer.read(MAX_BYTES + 1)
        with open(os.path.expanduser(word), "rb") as file:
            return word, file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{word} is not there", hint="virsh dumpxml NAME > NAME.xml") from None
    except OSError as error:
        raise QlaunchError(f"{word} cannot be read: {error.strerror}") from error


def _imported(args: argparse.Namespace, shown: str, data: bytes) -> Imported:
    from qlaunch.libvirt.domain import import_domain
    from qlaunch.libvirt.xml import read

    name = paths.check_name(args.name) if args.name else None
    stem: str | None = ""
    if args.stdout:
        stem = None
    elif args.output:
        stem = os.path.basename(args.output).removesuffix(".toml") or None
    return import_domain(read(data, shown), shown, called=name, stem=stem)


def _target(args: argparse.Namespace, name: str) -> str:
    from qlaunch.machine.names import profile_of

    target: str
    if args.output:
        target = os.path.abspath(os.path.expanduser(args.output))
        if os.path.isdir(target):
            raise UsageError(f"-o {args.output}: is a folder", hint="say a file: xp.toml")
    else:
        target = profile_of(paths.check_name(name))
    if os.path.lexists(target):
        raise ConflictError(
            f"{target} exists already; it is not replaced", hint="--name NAME gives it another name"
        )
    return target


def _write(made: Imported, target: str) -> None:
    from qlaunch.machine import texts
    from qlaunch.profile.load import loads

    loads(made.text, target)
    texts.write_new(target, made.text)


def _refused(shown: str, lost: Iterable[Entry]) -> ProfileError:
    errors = [
        ProfileError(f"{shown}:{entry.line}: {entry.what}", f"not supported: {entry.message}")
        for entry in lost
    ]
    first, *others = errors
    return ProfileError(first.where, first.text, more=tuple(others))


def _plain(shown: str, made: Imported, target: str | None) -> dict[str, Any]:
    return {
        "from": shown,
        "name": made.name,
        "file": target,
        "profile": made.text,
        "networks": list(made.networks),
        "report": [entry.to_dict() for entry in made.report],
    }


def _tell(shown: str, made: Imported, target: str | None) -> None:
    """The report, one line for what is said in many places, and what to do next."""
    color = output.colored(sys.stderr)
    for group, head in _HEADS.items():
        found: dict[tuple[str, str], list[int]] = {}
        for entry in made.report:
            if entry.group == group:
                found.setdefault((entry.what, entry.message), []).append(entry.line)
        if found:
            count = output.paint(f"{head}:", output.BOLD, on=color)
            print(count, file=sys.stderr)
        for (what, message), lines in found.items():
            print(f"  {_where(shown, lines)}: {output.clean(what)}: {output.clean(message)}",
                  file=sys.stderr)  # fmt: skip
    for network in made.networks:
        output.note(f"it is plugged into the network {network}: `qlaunch import` reads those, too")
    if target is not None:
        output.note(f"wrote {definitions.shown(target)}")
        name = made.name
        output.note(f"    check: qlaunch check {name}   start: qlaunch up {name}")


def _where(shown: str, lines: list[int]) -> str:
    """`xp.xml:12`, and the other lines that say the same."""
    more = ", ".join(str(line) for line in lines[1:_MAX_LINES])
    rest = ", ..." if len(lines) > _MAX_LINES else ""
    return output.clean(f"{shown}:{lines[0]}") + (f", {more}{rest}" if more else "")
