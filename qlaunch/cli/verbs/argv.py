"""`qlaunch argv`."""

from __future__ import annotations

import os
import shlex

from qlaunch.cli import definitions, output
from qlaunch.cli.verbs.up import check_overrides
from qlaunch.errors import NotFoundError, QlaunchError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from qlaunch.plan.model import Creation, Plan


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print QEMU's command line, a line per option, ready to be pasted into a shell. Nothing\n"
        "is started. Images and sockets stand there by their paths; qlaunch itself opens them and\n"
        "gives QEMU descriptors. Of a machine that runs it is what was started, not the profile."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch argv xp                           what runs, or what a start would run\n"
        "  qlaunch argv xp --next                    what the next start would run\n"
        "  qlaunch argv xp --set machine.accel=tcg   with another value\n"
        "  qlaunch argv xp --one-line | sh           without qlaunch"
    )
    parser.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file's path")
    definitions.add_set(parser)
    parser.add_argument("--next", action="store_true", help="the next start, also while it runs")
    parser.add_argument("--one-line", action="store_true", help="print it on one line")


def run(args: argparse.Namespace) -> int:
    from qlaunch.argv import command_line

    check_overrides(args.set)
    plan = None if args.next or args.set else _running_plan(args.profile)
    found: list[dict[str, Any]] = []
    running = plan is not None
    if plan is None:
        result = definitions.prepared(paths.find_profile(args.profile), args.set)
        plan = result.resolution.plan
        found = [finding.to_dict() for finding in result.resolution.findings]
    options = command_line(plan)
    if args.json:
        output.print_json(
            {
                "name": plan.name,
                "running": running,
                "argv": [word for option in options for word in option],
                "options": [list(option) for option in options],
                "findings": found,
            }
        )
        return 0
    if not args.quiet:
        definitions.print_findings(found)
    lines = [shlex.join(option) for option in options]
    print((" " if args.one_line else " \\\n  ").join(lines))
    _tell(plan, args, running=running)
    return 0


def _running_plan(word: str) -> Plan | None:
    """The plan with which the machine that `word` means was started, when it runs."""
    from qlaunch.machine.held import running_pid
    from qlaunch.store import machines

    try:
        name = definitions.machine_of(word).name
        if running_pid(name) is None:
            return None
    except NotFoundError:
        raise
    except QlaunchError:
        return None
    return machines.load_plan(name)


def _tell(plan: Plan, args: argparse.Namespace, *, running: bool) -> None:
    """What the command line alone cannot do."""
    from qlaunch.argv import cables

    if running:
        output.note(f"{plan.name} runs with this; `--next` shows the next start", quiet=args.quiet)
    for creation in plan.creations():
        if not os.path.exists(creation.path):
            output.note(f"it needs an image first: {_making(creation)}", quiet=args.quiet)
    if plan.tpm:
        output.note(f"it needs a swtpm first, with its state in {plan.tpm}", quiet=args.quiet)
    for nic in plan.nics:
        if nic.backend == "passt":
            command = shlex.join(cables.passt_by_hand(nic))
            output.note(f"it needs a passt first: {command}", quiet=args.quiet)
        elif nic.attachment is not None:
            network, name = nic.attachment.network, (nic.netdev or {}).get("ifname")
            output.note(
                f"{nic.id} needs a TAP {name} on the network {network}; qlaunch itself gets one"
                " from the network service",
                quiet=args.quiet,
            )
    if not running and not os.path.isdir(plan.places.runtime):
        command = shlex.join(("mkdir", "-p", "-m", "700", plan.places.runtime))
        output.note(f"its sockets need a folder first: {command}", quiet=args.quiet)
    output.note(
        "it waits for `cont` on the monitor before its first instruction (-S)",
        quiet=args.quiet or running,
    )


def _making(creation: Creation) -> str:
    """The command that makes an image as a start would."""
    folder = os.path.dirname(creation.path)
    words = ["qemu-img", "create", "-f", creation.format]
    if creation.template:
        words = ["qemu-img", "convert", "-O", creation.format, creation.template, creation.path]
        return f"{shlex.join(('mkdir', '-p', folder))} && {shlex.join(words)}"
    if creation.backing:
        words += ["-b", creation.backing, "-F", creation.backing_format or "raw"]
    words += [creation.path] + ([str(creation.size)] if creation.size else [])
    return f"{shlex.join(('mkdir', '-p', folder))} && {shlex.join(words)}"
