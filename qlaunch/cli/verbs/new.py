"""`qlaunch new`."""

from __future__ import annotations

import os
import shlex

from qlaunch import units
from qlaunch.cli import definitions, output
from qlaunch.errors import ConflictError, NotFoundError, QlaunchError, UsageError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from qlaunch.cli.template import Wish

_LEAST_DISK = 512


def configure(parser: argparse.ArgumentParser) -> None:
    from qlaunch.profile.model import GUESTS

    parser.description = (
        "Write a new profile, short and commented. Disks are made at the first start. Nothing\n"
        "that exists is overwritten."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch new xp --guest windows-xp --iso winxp.iso --disk 20GiB --data-disk 50GiB\n"
        "  qlaunch new web --guest linux --iso debian.iso --disk 20GiB --memory 4GiB --edit\n"
        "  qlaunch new lab --path ./lab.toml    a profile in this folder"
    )
    parser.add_argument("name", metavar="NEWNAME", help="what the machine is called")
    parser.add_argument(
        "--guest", choices=GUESTS, default="other", help="what runs inside; picks the hardware"
    )
    parser.add_argument("--iso", metavar="FILE", help="a CD image, the first start boots from it")
    parser.add_argument("--disk", metavar="SIZE", help="a disk of SIZE, such as 20GiB")
    parser.add_argument("--data-disk", metavar="SIZE", help="a second disk of SIZE")
    parser.add_argument("--memory", metavar="SIZE", help="RAM, such as 2GiB")
    parser.add_argument("--cpus", metavar="NUMBER", type=int, help="number of processors")
    parser.add_argument("--path", metavar="FILE", help="write it there, not among your profiles")
    parser.add_argument(
        "--force", action="store_true", help="replace a profile; the old one is kept as FILE.old"
    )
    parser.add_argument("--edit", action="store_true", help="open it in an editor afterwards")


def run(args: argparse.Namespace) -> int:
    from qlaunch.cli.template import template
    from qlaunch.machine import names, texts
    from qlaunch.profile.load import loads

    name = paths.check_name(args.name)
    target = names.profile_of(name)
    if args.path is not None:
        target = os.path.abspath(os.path.expanduser(args.path))
    wish = _wish(args, name, target)
    names.check_renames(name)
    if os.path.lexists(target) and not args.force:
        raise ConflictError(
            f"{target} exists already; it is not replaced",
            hint=f"`qlaunch edit {wish.call}` changes it, --force replaces it",
        )
    text = template(wish)
    loads(text, target)
    if args.force and os.path.lexists(target):
        texts.replace(f"{target}.old", texts.read(target).encode())
        texts.replace(target, text.encode())
    else:
        texts.write_new(target, text)
    _tell(args, wish, target)
    if args.edit:
        from qlaunch.cli.verbs import edit

        return edit.edit(target, quiet=args.quiet)
    return 0


def _wish(args: argparse.Namespace, name: str, target: str) -> Wish:
    from qlaunch.cli.template import Wish

    if args.data_disk and not args.disk:
        raise UsageError("--data-disk is a second disk", hint="say --disk SIZE, too")
    for option, size, least in (
        ("--disk", args.disk, _LEAST_DISK),
        ("--data-disk", args.data_disk, _LEAST_DISK),
        ("--memory", args.memory, 1 << 20),
    ):
        _check_size(option, size, least)
    if args.cpus is not None and not 1 <= args.cpus <= 1024:
        raise UsageError(f"--cpus: {args.cpus} is not a number from 1 to 1024")
    by_name = args.path is None
    return Wish(
        name=name,
        call=name if by_name else shlex.quote(_printable(os.path.relpath(target))),
        guest=args.guest,
        said_name=not by_name and os.path.basename(target) != f"{name}.toml",
        iso=_iso(args.iso) if args.iso is not None else None,
        disks=tuple(size for size in (args.disk, args.data_disk) if size),
        memory=args.memory,
        cpus=args.cpus,
    )


def _printable(path: str) -> str:
    if not path.isprintable():
        raise UsageError(f"--path: {path!r} holds control characters")
    return path if "/" in path or path.endswith(".toml") else f"./{path}"


def _check_size(option: str, size: str | None, least: int) -> None:
    if size is None:
        return
    try:
        number = units.parse_size(size)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    if number < least:
        raise UsageError(f"{option}: {size} is less than {units.format_size(least)}")


def _iso(said: str) -> str:
    """The absolute path of the CD image. Raises: NotFoundError, QlaunchError, UsageError."""
    from qlaunch.host.images import image_contents

    path = os.path.abspath(os.path.expanduser(said))
    facts = image_contents(path)
    if facts.problem is not None:
        raise QlaunchError(f"--iso: {said!r}: {facts.problem}", hint=facts.hint)
    if not facts.exists:
        raise NotFoundError(f"--iso: {said!r} is not there", hint=_beside(path))
    if facts.format != "raw":
        raise UsageError(f"--iso: {said!r} is a {facts.format} image, not a CD")
    return path


def _beside(path: str) -> str | None:
    import difflib

    try:
        listed = os.listdir(os.path.dirname(path))
    except OSError:
        return None
    close = difflib.get_close_matches(os.path.basename(path), listed, 1)
    return f"did you mean {close[0]!r}?" if close else None


def _tell(args: argparse.Namespace, wish: Wish, target: str) -> None:
    from qlaunch.cli.template import disk_ids

    data = paths.machine_data(wish.name)
    disks = [
        path
        for ident in disk_ids(wish.guest, len(wish.disks))
        if os.path.lexists(path := os.path.join(data, f"{ident}.qcow2"))
    ]
    hidden = [folder for folder in paths.profile_dirs()[1:] if args.path is None]
    hides = [path for folder in hidden if os.path.exists(path := f"{folder}/{wish.name}.toml")]
    if args.json:
        output.print_json({"name": wish.name, "file": target, "disks_found": disks, "hides": hides})
        return
    output.note(f"wrote {definitions.shown(target)}", quiet=args.quiet)
    for path in hides:
        output.note(f"it hides {path}, which has the same name", quiet=args.quiet)
    for path in disks:
        output.note(f"there is a disk already, it will be used: {path}", quiet=args.quiet)
    call = wish.call
    output.note(
        f"    look: qlaunch edit {call}   check: qlaunch check {call}   start: qlaunch up {call}",
        quiet=args.quiet,
    )
