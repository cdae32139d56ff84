"""`qlaunch run`."""

from __future__ import annotations

from qlaunch.cli import talk
from qlaunch.cli.verbs.up import check_overrides
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run one machine in the foreground, with a supervisor of its own: for containers, cluster\n"
        "agents and debugging. Ctrl-C or SIGTERM shuts it down gracefully.\n"
        "A service manager (NOTIFY_SOCKET) is told when it runs. The exit status says how it\n"
        "ended: 0 the guest powered off or was stopped, 1 it panicked or QEMU failed.\n"
        "Without a PROFILE it is ./qlaunch.toml."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch run xp                          until it ends, or Ctrl-C\n"
        "  qlaunch run ./ci.toml --set memory.size=1GiB"
    )
    parser.add_argument("profile", nargs="?", metavar="PROFILE", help="a name or a file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another value (repeatable)"
    )


def run(args: argparse.Namespace) -> int:
    check_overrides(args.set)
    profile = paths.find_profile(args.profile or talk.here()[0])
    from qlaunch.supervisor.foreground import run_foreground

    return run_foreground(profile, args.set)
