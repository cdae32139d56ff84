"""`qlaunch supervisor`."""

from __future__ import annotations

from qlaunch.cli import output, table
from qlaunch.control import client
from qlaunch.errors import NoSupervisorError, TimedOutError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

STOP_TIMEOUT = 30.0
_ACTIONS = ("status", "stop", "restart")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look at the supervisor, stop it or restart it. It hosts all machines of a user, starts\n"
        "with the first of them and ends with the last. Machines outlive it: after a stop they\n"
        "run on, and the next supervisor takes them over. A restart is one in place: the same\n"
        "process, and who asks meanwhile waits a moment."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch supervisor status\n"
        "  qlaunch supervisor restart     after an upgrade of qlaunch; machines run on\n"
        "  qlaunch supervisor stop        for example to debug; machines run on"
    )
    parser.add_argument("action", choices=_ACTIONS, help="what to do")


def run(args: argparse.Namespace) -> int:
    if args.action == "status":
        _show(client.ask("supervisor", {"action": "status"}, start=False), args)
        return 0
    connection = client.connect()
    if connection is None and args.action == "stop":
        raise NoSupervisorError("no supervisor is running")
    if connection is not None:
        with connection:
            _end(connection, args.action)
    if args.action == "restart":
        _show(client.ask("supervisor", {"action": "status"}), args)
        return 0
    if args.json:
        output.print_json({"state": "stopped"})
    else:
        output.note("the supervisor has ended; machines run on", quiet=args.quiet)
    return 0


def _end(connection: client.Connection, action: str) -> None:
    try:
        connection.ask("supervisor", {"action": action})
    except UsageError:
        # An older one that cannot begin anew in place.
        with client.open_connection(start=False) as other:
            other.ask("supervisor", {"action": "stop"})
            _wait_for_end(other)
        return
    _wait_for_end(connection)


def _wait_for_end(connection: client.Connection) -> None:
    """The supervisor closes its connections when it ends. Raises: TimedOutError."""
    connection.socket.settimeout(STOP_TIMEOUT)
    try:
        while connection.socket.recv(4096):
            pass
    except TimeoutError:
        raise TimedOutError(f"the supervisor did not end in {STOP_TIMEOUT:.0f} s") from None
    except ConnectionResetError:
        pass


def _show(status: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        output.print_json(status)
    else:
        print(table.outline(status))
