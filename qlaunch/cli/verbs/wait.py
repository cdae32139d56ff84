"""`qlaunch wait`."""

from __future__ import annotations

from qlaunch.cli import output, talk
from qlaunch.cli.verbs.power import duration
from qlaunch.errors import PhaseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


class Waits(tuple[str, ...]):
    """The words that completion offers; those that need one more are right, too."""

    __slots__ = ()

    def __contains__(self, word: object) -> bool:
        return super().__contains__(word) or str(word).startswith(("serial:", "port:"))


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Wait until a machine is stopped, or until what --for says, and print that:\n"
        "  running          it runs (who waits may come before who starts it)\n"
        "  agent            the guest agent answers\n"
        "  ssh              the guest's SSH server greets\n"
        "  serial:'login:'  the guest has written this to its first serial port\n"
        "  port:80          something in the guest takes connections on this TCP port\n"
        "Ports are reached by a forward of a [[nic]] or by the address that it has on a network."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch wait xp                           until it has ended\n"
        "  qlaunch wait xp --for running --timeout 30s\n"
        "  qlaunch wait deb --for serial:'login:' --timeout 2min"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument(
        "--for",
        dest="state",
        choices=Waits(("running", "stopped", "agent", "ssh")),
        default="stopped",
        metavar="WHAT",
        help="what to wait for; stopped when not said",
    )
    parser.add_argument(
        "--timeout", type=duration, metavar="TIME", help="give up after this time, such as 90s"
    )


def run(args: argparse.Namespace) -> int:
    request = {"for": args.state, "timeout": args.timeout}
    try:
        result: dict[str, Any] = talk.ask_machine("wait", args.name, request)
    except PhaseError:
        if args.state != "stopped":
            raise
        result = {"state": "stopped"}
    if args.json:
        output.print_json({"name": args.name, **result})
    else:
        output.print_text(result["state"])
    return 0
