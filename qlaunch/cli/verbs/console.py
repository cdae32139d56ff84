"""`qlaunch console`."""

from __future__ import annotations

import os
import sys

from qlaunch.cli import output, talk
from qlaunch.errors import BusyError, NotFoundError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

LOG_BLOCK = 1 << 16


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Use the machine's serial console. Ctrl-] leaves it, the machine runs on; it can be\n"
        "entered again, and what was printed meanwhile is shown then. Input may come from a pipe.\n"
        "Any number may look at it; the first of them types, and the next when that one has left."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch console demo                     until Ctrl-]\n"
        "  qlaunch console demo --log               everything it printed\n"
        "  echo reboot | qlaunch console demo --once   say it, show the answer, leave"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("--serial", metavar="ID", help="which one, when there are several")
    parser.add_argument("--take", action="store_true", help="type, though somebody else does")
    parser.add_argument("--read-only", action="store_true", help="only look")
    parser.add_argument("--log", action="store_true", help="print what was saved of it, and end")
    parser.add_argument(
        "--once",
        action="store_true",
        help="leave when the input has ended and the guest is silent",
    )


def run(args: argparse.Namespace) -> int:
    paths.check_name(args.name)
    if args.log:
        return _print_log(args.name, args.serial or "serial0")
    from qlaunch.cli import terminal

    with talk.open_machine(args.name) as connection:
        request = {
            "name": args.name,
            "serial": args.serial,
            "take": args.take,
            "read_only": args.read_only,
        }
        reply = connection.ask("console", request)
        is_tty = sys.stdin.isatty()
        where = f"{reply['serial']} of {args.name}"
        if not (args.read_only or reply.get("types", True)):
            _other_types(where, is_tty=is_tty, quiet=args.quiet)
        if is_tty:
            output.note(f"connected to {where}; leave with Ctrl-]", quiet=args.quiet)
        left = terminal.talk(connection.socket, connection.rest(), once=args.once)
    if is_tty and not args.quiet:
        print(file=sys.stderr)  # a guest's output seldom ends with a line feed
    output.note(f"left {where}" if left else f"{where} has ended", quiet=args.quiet)
    return 0


def _other_types(where: str, *, is_tty: bool, quiet: bool) -> None:
    """Say that somebody else types. Raises: BusyError for input that would be lost."""
    hint = "--take takes it over, --read-only is content with looking"
    if not is_tty:
        raise BusyError(f"somebody else types at {where}", hint=hint)
    output.note(f"somebody else types at {where}; you look on ({hint})", quiet=quiet)


def _print_log(name: str, serial: str) -> int:
    path = os.path.join(paths.machine_state(name), f"console-{paths.check_name(serial)}.log")
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed by the with below
    except FileNotFoundError:
        missing = talk.not_running(name)
        if isinstance(missing, NotFoundError):
            raise missing from None
        raise NotFoundError(f"{name} has no saved console {serial!r}") from None
    with file:
        while block := file.read(LOG_BLOCK):
            if sys.stdout.isatty():
                print(output.clean(block.decode(errors="replace"), keep="\n\t"), end="")
            else:
                sys.stdout.buffer.write(block)
    return 0
