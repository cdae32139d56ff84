"""`qlaunch media`."""

from __future__ import annotations

import os

from qlaunch.cli import output, table
from qlaunch.cli.progress import Steps, took
from qlaunch.control import client
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Insert or eject a CD or a floppy. Of a running machine it counts for this run, and with\n"
        "--persist for later ones too; of a stopped one it goes into the profile. A guest that\n"
        "uses the CD is asked to let go first. Alone: what is in which drive."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch media xp                     what is in the drives\n"
        "  qlaunch media xp sp3.iso             into the first CD drive\n"
        "  qlaunch media xp fd0 drivers.img     into this one\n"
        "  qlaunch media xp --files ~/drivers   a CD made of a folder, or of files\n"
        "  qlaunch media xp --eject --force     also when the guest holds it shut"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("words", nargs="*", metavar="FILE", help="[DRIVE] FILE, or DRIVE to eject")
    parser.add_argument(
        "--files", nargs="+", metavar="FILE", help="make a CD of a folder or of files"
    )
    parser.add_argument("--eject", action="store_true", help="take the medium out")
    parser.add_argument("--force", action="store_true", help="also when the guest holds it shut")
    parser.add_argument("--persist", action="store_true", help="write it into the profile too")


def run(args: argparse.Namespace) -> int:
    if args.files is not None:
        return _insert_files(args)
    if len(args.words) > (1 if args.eject else 2):
        raise UsageError("a drive and a file are enough", hint="qlaunch media xp cd0 sp3.iso")
    request: dict[str, Any] = {
        "name": args.name, "eject": args.eject, "force": args.force, "persist": args.persist,
    }  # fmt: skip
    if args.eject:
        request["drive"] = args.words[0] if args.words else None
    elif args.words:
        request["drive"] = args.words[0] if len(args.words) == 2 else None
        request["file"] = os.path.abspath(os.path.expanduser(args.words[-1]))
    return _ask(args, request)


def _insert_files(args: argparse.Namespace) -> int:
    from qlaunch.cli import definitions, media_files

    if args.eject or len(args.words) > 1:
        raise UsageError("--files takes files, and before it at most a drive",
                         hint="qlaunch media xp cd0 --files FOLDER")  # fmt: skip
    definitions.machine_of(args.name)
    sources = [os.path.abspath(os.path.expanduser(each)) for each in args.files]
    with media_files.made(args, sources) as path:
        request = {
            "name": args.name, "drive": args.words[0] if args.words else None, "file": path,
            "force": args.force, "persist": args.persist,
        }  # fmt: skip
        return _ask(args, request)


def _ask(args: argparse.Namespace, request: dict[str, Any]) -> int:
    answer = client.ask("media", request, progress=Steps([args.name], quiet=args.quiet))
    if args.json:
        output.print_json(answer)
    elif "drives" in answer:
        _list(args, answer["drives"])
    else:
        changed = answer["changed"]
        what = f"{changed['file']} is in" if changed["file"] else "nothing is in"
        output.note(
            f"{args.name}: {what} {changed['drive']} ({took(answer['seconds'])})", quiet=args.quiet
        )
    return 0


def _list(args: argparse.Namespace, drives: list[dict[str, Any]]) -> None:
    if not drives:
        output.note(f"{args.name} has no drive for a medium", quiet=args.quiet)
        return
    rows = [(each["drive"], each["kind"], _state(each), each["file"] or "-") for each in drives]
    print(table.table(("DRIVE", "KIND", "STATE", "FILE"), rows))
    for each in drives:
        if each["replaced"]:
            output.note(
                f"{each['file']} was replaced on the disk: insert it again to have the new one",
                quiet=args.quiet,
            )


def _state(drive: dict[str, Any]) -> str:
    if drive["open"]:
        return "open"
    if not drive["file"]:
        return "empty"
    return "in use" if drive["locked"] else "inserted"
