"""`qlaunch net uplink`: this computer's own address moves to a bridge, and back."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

from qlaunch.cli import definitions, output
from qlaunch.errors import ConflictError, HostError, NotFoundError, RefusedError, UsageError
from qlaunch.network.client import system_socket
from qlaunch.network.owners import owner_of
from qlaunch.network.uplink import GUARD_TIMEOUT, Uplink
from qlaunch.plan.networks.uplinks import Journal, advice
from qlaunch.units import parse_duration

if TYPE_CHECKING:
    import argparse

_CONFIRM = "Does everything still work?"


def uplink(args: argparse.Namespace) -> int:
    if os.geteuid():
        raise RefusedError("only root can do that", hint="sudo qlaunch net uplink ...")
    with contextlib.closing(Uplink(os.path.dirname(system_socket()))) as there:
        for bridge in there.recover():
            output.note(f"{bridge} was begun and not confirmed: it was put back", quiet=args.quiet)
        return _undo(there, args) if args.undo else _make(there, args)


def _make(there: Uplink, args: argparse.Namespace) -> int:
    if not args.interface:
        raise UsageError("which interface?", hint=f"qlaunch net uplink {args.bridge} eth0")
    timeout = _timeout(args.timeout)
    journal = there.check(args.bridge, args.interface)
    if not args.force:
        _check_owner(journal, args)
    if not args.yes and not definitions.may_ask():
        raise RefusedError("nobody can be asked here", hint="--yes takes a gateway's answer")
    begun = time.monotonic()
    guard = there.begin(journal, timeout)
    took = time.monotonic() - begun
    output.note(f"{args.bridge} has the addresses of {args.interface} now", quiet=args.quiet)
    left = timeout - took
    if not args.yes and definitions.ask(f"{_CONFIRM} (back in {left:.0f} s)", "yn") != "y":
        guard.put_back()
        raise RefusedError("everything is as it was before")
    if not guard.confirm():
        raise HostError(
            "that was too late: everything is as it was before",
            hint="--timeout 60s gives more time",
        )
    if args.json:
        moved = [each.address for each in journal.addresses]
        output.print_json({"bridge": args.bridge, "interface": args.interface, "moved": moved})
    hint = f"until the computer starts again, or `qlaunch net uplink {args.bridge} --undo`"
    output.note(f"it stays so {hint}", quiet=args.quiet)
    return 0


def _timeout(text: str | None) -> float:
    if text is None:
        return GUARD_TIMEOUT
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None
    if not 1 <= found <= 3600:
        raise UsageError("--timeout is one second to one hour")
    return found


def _check_owner(journal: Journal, args: argparse.Namespace) -> None:
    """Raises: RefusedError when somebody else looks after the interface; what to write there is
    printed."""
    owner = owner_of(journal.uplink, socket.if_nametoindex(journal.uplink))
    if owner is None:
        return
    text = advice(
        owner, journal.bridge, journal.uplink, [each.address for each in journal.addresses]
    )
    if not args.json:
        output.print_text(text.rstrip("\n"))
    hint = "it would undo the change; have it make the bridge (see above), or --force"
    raise RefusedError(f"{owner} looks after {journal.uplink}", hint=text if args.json else hint)


def _undo(there: Uplink, args: argparse.Namespace) -> int:
    journal = there.journal(args.bridge)
    if journal is None:
        raise NotFoundError(f"{args.bridge} is no bridge that `qlaunch net uplink` has made")
    others = there.others_on(journal)
    if others and not args.force:
        raise ConflictError(
            f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} on {args.bridge}",
            hint="--force takes it away from them",
        )
    there.put_back(journal)
    if args.json:
        output.print_json({"bridge": args.bridge, "interface": journal.uplink, "undone": True})
    output.note(f"{journal.uplink} has its addresses again", quiet=args.quiet or args.json)
    return 0
