"""What `qlaunch import` does with one file: read, turn, write, tell."""

from __future__ import annotations

import os
import sys

from qlaunch.cli import output
from qlaunch.errors import (
    ConflictError,
    HostError,
    NotFoundError,
    ProfileError,
    QlaunchError,
    UsageError,
)
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import Any

    from qlaunch.libvirt.imported import Imported
    from qlaunch.libvirt.report import Entry

# Where libvirt keeps what is defined: of root's daemon, and of a user's session.
FOLDERS = ("/etc/libvirt/qemu", "~/.config/libvirt/qemu")
_MAX_LINES = 8
_HEADS = {
    "mended": "read as it was meant",
    "not needed": "not needed here",
    "different here": "different here",
    "not supported": "NOT SUPPORTED",
}


def defined(names: list[str]) -> list[str]:
    """The files of libvirt's networks and domains; of all, or of those called `names`.

    Raises: NotFoundError, HostError.
    """
    found: dict[str, list[str]] = {}
    for folder in map(os.path.expanduser, FOLDERS):
        for place in (os.path.join(folder, "networks"), folder):
            try:
                listed = sorted(os.listdir(place))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise HostError(
                    f"{place} cannot be read: {error.strerror}",
                    hint="`virsh dumpxml NAME | qlaunch import -` asks libvirt itself",
                ) from error
            for name in listed:
                if name.endswith(".xml"):
                    found.setdefault(name[:-4], []).append(os.path.join(place, name))
    for name in names:
        if name not in found:
            raise NotFoundError(
                f"libvirt has nothing called {name!r}",
                hint=f"there are {', '.join(sorted(found)) or 'none'}",
            )
    if not found:
        raise NotFoundError(
            "libvirt has nothing defined here", hint=f"looked in {' and '.join(FOLDERS)}"
        )
    return [file for name, files in found.items() if not names or name in names for file in files]


def one(args: argparse.Namespace, file: str) -> dict[str, Any]:
    """Import `file`; what `--json` says of it.

    Raises: ProfileError, ConflictError, NotFoundError, HostError.
    """
    shown, data = _read(file)
    made = _imported(args, shown, data)
    if args.strict and made.unsupported:
        raise _refused(shown, made.unsupported)
    printed = args.stdout or made.kind in ("snapshot", "part")
    target = None if printed and not args.output else _target(args, made)
    if target is not None:
        _write(made, target)
    if not args.json:
        if target is None:
            output.print_text(made.text.rstrip("\n"))
        if not args.quiet:
            _tell(shown, made, target)
            _tell_autostart(file, made)
    return {
        "from": shown,
        "kind": made.kind,
        "name": made.name,
        "file": target,
        "text": made.text,
        "networks": list(made.networks),
        "report": [entry.to_dict() for entry in made.report],
    }


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
    from qlaunch.libvirt.pieces import import_any
    from qlaunch.libvirt.xml import read

    name = paths.check_name(args.name) if args.name else None
    stem: str | None = ""
    if args.stdout:
        stem = None
    elif args.output:
        stem = os.path.basename(args.output).removesuffix(".toml") or None
    return import_any(read(data, shown), shown, called=name, stem=stem)


def _target(args: argparse.Namespace, made: Imported) -> str:
    from qlaunch.machine.names import profile_of

    target: str
    if args.output:
        target = os.path.abspath(os.path.expanduser(args.output))
        if os.path.isdir(target):
            raise UsageError(f"-o {args.output}: is a folder", hint="say a file: xp.toml")
    elif made.kind == "network":
        folder = paths.network_dirs(system=os.getuid() == 0)[0]
        target = os.path.join(folder, f"{made.name}.toml")
    else:
        target = profile_of(paths.check_name(made.name))
    if os.path.lexists(target):
        raise ConflictError(
            f"{target} exists already; it is not replaced", hint="--name NAME gives it another name"
        )
    return target


def _write(made: Imported, target: str) -> None:
    from qlaunch.machine import texts
    from qlaunch.profile.load import loads
    from qlaunch.profile.network_load import loads_network

    if made.kind == "machine":
        loads(made.text, target)
    elif made.kind == "network":
        loads_network(made.text, target)
    texts.write_new(target, made.text)


def _refused(shown: str, lost: Iterable[Entry]) -> ProfileError:
    errors = [
        ProfileError(f"{shown}:{entry.line}: {entry.what}", f"not supported: {entry.message}")
        for entry in lost
    ]
    first, *others = errors
    return ProfileError(first.where, first.text, more=tuple(others))


def _tell(shown: str, made: Imported, target: str | None) -> None:
    """The report, one line for what is said in many places, and what to do next."""
    color = output.colored(sys.stderr)
    for group, head in _HEADS.items():
        found: dict[tuple[str, str], list[int]] = {}
        for entry in made.report:
            if entry.group == group:
                found.setdefault((entry.what, entry.message), []).append(entry.line)
        if found:
            print(output.paint(f"{head}:", output.BOLD, on=color), file=sys.stderr)
        for (what, message), lines in found.items():
            words = f"{_where(shown, lines)}: {output.clean(what)}: {output.clean(message)}"
            print(f"  {words}", file=sys.stderr)
    for network in made.networks:
        output.note(f"it is plugged into the network {network}: `qlaunch import` reads those, too")
    if target is None:
        return
    output.note(f"wrote {target}")
    name = made.name
    if made.kind == "network":
        output.note(f"    look: qlaunch net show {name}   make it: qlaunch net up {name}")
    else:
        output.note(f"    check: qlaunch check {name}   start: qlaunch up {name}")


def _tell_autostart(file: str, made: Imported) -> None:
    """What libvirt did with it by itself: a link beside the file says so."""
    folder, name = os.path.split(file)
    if not os.path.lexists(os.path.join(folder, "autostart", name)):
        return
    what = f"qlaunch autostart {made.name} on"
    if made.kind == "network":
        what = f"autostart = true (qlaunch net edit {made.name})"
    output.note(f"libvirt starts it with the computer; here that is: {what}")


def _where(shown: str, lines: list[int]) -> str:
    """`xp.xml:12`, and the other lines that say the same."""
    more = ", ".join(str(line) for line in lines[1:_MAX_LINES])
    rest = ", ..." if len(lines) > _MAX_LINES else ""
    return output.clean(f"{shown}:{lines[0]}") + (f", {more}{rest}" if more else "")
