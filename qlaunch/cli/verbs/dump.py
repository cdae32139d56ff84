"""`qlaunch dump`."""

from __future__ import annotations

import os

from qlaunch.cli import output, talk
from qlaunch.cli.progress import Steps, took
from qlaunch.units import short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

FORMATS = ("kdump-zlib", "kdump-lzo", "kdump-snappy", "elf", "win-dmp")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the guest's memory to a new file for a crash analysis. The guest stands still\n"
        "until it is written and goes on then. The file holds all that the guest knew: only you\n"
        "can read it. To go back to a moment, take a snapshot instead."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch dump deb core\n"
        "  crash vmlinux core                        a Linux guest, in kdump format\n"
        "  qlaunch dump win memory.dmp --format win-dmp     Windows with its vmcoreinfo driver"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("file", metavar="FILE", help="the file; nothing is replaced")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="kdump-zlib, ...")


def run(args: argparse.Namespace) -> int:
    request = {"file": os.path.abspath(os.path.expanduser(args.file)), "format": args.format}
    steps = Steps([args.name], quiet=args.quiet)
    answer = talk.ask_machine("dump", args.name, request, steps)
    if args.json:
        output.print_json(answer)
    else:
        size = short_size(answer["size"])
        output.note(
            f"{args.name}: its memory is in {args.file} ({size}, {took(answer['seconds'])})",
            quiet=args.quiet,
        )
    return 0
