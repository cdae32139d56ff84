"""`qlaunch clone`."""

from __future__ import annotations

import sys

from qlaunch.cli import definitions, output

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Copy a profile, its disks, UEFI variables and TPM under a new name. The copy depends on\n"
        "nothing of the original (but with --linked) and has a UUID and MAC addresses of its own.\n"
        "Snapshots are not copied. Interrupted, it leaves nothing behind."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch clone xp xp2                 both can run at once afterwards\n"
        "  qlaunch clone ./lab.toml lab-copy    from a file\n"
        "  qlaunch clone xp xp2 --snapshot sp3  the disks of a snapshot; xp may run\n"
        "  qlaunch clone xp xp2 --snapshot sp3 --linked   in a moment: xp2 stands on xp's layers"
    )
    parser.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file's path")
    parser.add_argument("new", metavar="NEWNAME", help="the name of the copy")
    parser.add_argument("--snapshot", metavar="SNAPSHOT", help="copy the disks of this moment")
    parser.add_argument(
        "--linked", action="store_true", help="stand on the snapshot instead of copying it"
    )


class Percent:
    """How far a copy is, on stderr: one line that moves on a terminal, else a line per quarter."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._moves = sys.stderr.isatty()
        self._told = ("", -1)

    def __call__(self, ident: str, percent: float) -> None:
        step = int(percent) if self._moves else int(percent) // 25 * 25
        if self._quiet or (ident, step) == self._told:
            return
        if self._moves and self._told[0] not in ("", ident):
            print(file=sys.stderr)
        self._told = (ident, step)
        end = "" if self._moves else "\n"
        start = "\r" if self._moves else ""
        print(f"{start}{output.clean(ident)}: {step:3d} %", end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the moving line."""
        if self._moves and self._told[0]:
            print(file=sys.stderr)
        self._told = ("", -1)


def run(args: argparse.Namespace) -> int:
    from qlaunch.machine.clone import clone

    machine = definitions.machine_of(args.profile)
    percent = Percent(quiet=args.quiet)
    try:
        made = definitions.wait_for(
            clone(machine, args.new, percent, snapshot=args.snapshot, linked=args.linked)
        )
    finally:
        percent.end()
    if args.json:
        output.print_json({"name": args.new, "file": made.profile, "files": list(made.files)})
    else:
        output.note(
            f"{args.new} is a copy of {machine.name}: {definitions.shown(made.profile)}\n".rstrip(),
            quiet=args.quiet,
        )
        output.note(f"    start: qlaunch up {args.new}", quiet=args.quiet)
    return 0
