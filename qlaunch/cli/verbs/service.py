"""`qlaunch service`."""

from __future__ import annotations

import os

from qlaunch.cli import output
from qlaunch.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

# A supervisor that takes over from another adopts its machines first.
START_TIMEOUT = 120.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Have systemd look after the supervisor: it starts with the computer (or your login), is\n"
        "started again when it dies, and guests are asked to power off before the computer goes\n"
        "down. Each machine gets a unit that can be enabled: qlaunch@NAME."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch service install\n"
        "  systemctl --user enable --now qlaunch@xp    start xp now and with the computer\n"
        "  qlaunch service status                      and what keeps it from working"
    )


def _manager(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="in your own systemd (unless root)")
    where.add_argument(
        "--system", action="store_true", help="in the computer's, for root's machines"
    )


def _install(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write qlaunch.service, qlaunch@.service and qlaunch.slice; enable and start the first. A\n"
        "supervisor that runs hands over to it; machines run on. Do it again after an upgrade."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch service install\n"
        "  qlaunch service install --stdout            only show what would be written"
    )
    _manager(parser)
    parser.add_argument("--stdout", action="store_true", help="print the units, change nothing")


def _uninstall(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Stop and remove the units. Machines that run do so further, without a service."
    )
    parser.epilog = "examples:\n  qlaunch service uninstall"
    _manager(parser)


def _status(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show the units, which machines start by themselves, and what is amiss."
    parser.epilog = "examples:\n  qlaunch service status --json"
    _manager(parser)


ACTIONS = {
    "install": ("write, enable and start the units", _install),
    "uninstall": ("stop and remove them", _uninstall),
    "status": ("show them, and what keeps them from working", _status),
}


def run(args: argparse.Namespace) -> int:
    manager = "system" if args.system or (os.geteuid() == 0 and not args.user) else "user"
    if args.system and os.geteuid() != 0:
        raise HostError("only root has machines in the computer's systemd", hint="sudo, or --user")
    return {"install": install, "uninstall": uninstall, "status": status}[args.action](
        manager, args
    )


def install(manager: str, args: argparse.Namespace) -> int:
    from qlaunch.cli import service
    from qlaunch.machine.texts import PROFILE_MODE
    from qlaunch.store import files

    units = service.units(manager)
    if args.stdout:
        if args.json:
            output.print_json({"manager": manager, "units": units})
        else:
            print("\n".join(f"# {path}\n{text}" for path, text in units.items()), end="")
        return 0
    _systemctl(manager, "is-system-running", check=False)
    for path, text in units.items():
        files.write_bytes(path, text.encode(), mode=PROFILE_MODE)
    _systemctl(manager, "daemon-reload")
    _systemctl(manager, "reset-failed", "qlaunch.service", check=False)
    _systemctl(manager, "enable", "qlaunch.service")
    _systemctl(manager, "restart", "qlaunch.service")
    if args.json:
        output.print_json({"manager": manager, "units": sorted(units)})
    for path in units:
        output.note(f"wrote {path}", quiet=args.quiet or args.json)
    which = "--user " if manager == "user" else ""
    output.note(
        f"a machine that starts with the computer: systemctl {which}enable --now qlaunch@NAME",
        quiet=args.quiet or args.json,
    )
    _warn(manager)
    return 0


def uninstall(manager: str, args: argparse.Namespace) -> int:
    from qlaunch.cli import service

    found = service.installed(manager)
    if found:
        _systemctl(manager, "disable", *service.enabled(manager), check=False)
        _systemctl(manager, "disable", "--now", "qlaunch.service", check=False)
    for path in found:
        os.unlink(path)
    if found:
        _systemctl(manager, "daemon-reload", check=False)
    if args.json:
        output.print_json({"manager": manager, "removed": found})
    else:
        told = [f"removed {path}" for path in found] or ["there was nothing to remove"]
        for line in told:
            output.note(line, quiet=args.quiet)
    return 0


def status(manager: str, args: argparse.Namespace) -> int:
    from qlaunch.cli import table
    from qlaunch.cli.checkup_systemd import service_checks, service_status
    from qlaunch.cli.definitions import wait_for
    from qlaunch.cli.verbs.doctor import print_check

    found = wait_for(service_status(manager))
    checks = wait_for(service_checks(manager))
    if args.json:
        output.print_json({**found, "checks": [check.to_dict() for check in checks]})
        return 0
    print(table.outline(found))
    for check in checks:
        print_check(check)
    return 0


def _warn(manager: str) -> None:
    """What would surprise: told on stderr."""
    from qlaunch.cli.checkup_systemd import service_checks
    from qlaunch.cli.definitions import wait_for

    for check in wait_for(service_checks(manager)):
        if check.level != "ok":
            output.note(f"warning: {check.message}")
            if check.hint:
                output.note(f"  hint: {check.hint}")


def _systemctl(manager: str, *words: str, check: bool = True) -> Any:
    """Run systemctl to its end. Raises: HostError with its own last words."""
    from qlaunch.cli.definitions import wait_for
    from qlaunch.host.systemd import systemctl
    from qlaunch.host.tool import failure

    if words in (("disable",), ("stop",)):
        return None  # nothing to do it with
    said = wait_for(systemctl(manager, *words, timeout=START_TIMEOUT))
    if "Failed to connect" in said.stderr or said.stdout.strip() == "offline":
        hint = "`qlaunch service install --stdout` prints the units; `qlaunch doctor` says more"
        raise HostError(f"no systemd ({manager}) answers: {said.last_words}", hint=hint)
    if check and said.status:
        raise failure(f"systemctl {' '.join(words)}", said)
    return said
