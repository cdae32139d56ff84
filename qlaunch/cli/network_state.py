"""`qlaunch net list | show | up | down | plan | leases`: what a network service is asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qlaunch.cli import networks, output
from qlaunch.cli.definitions import counted, wait_for
from qlaunch.cli.table import outline, table
from qlaunch.errors import HostError, QlaunchError

if TYPE_CHECKING:
    import argparse

_HEADER = ("NETWORK", "STATE", "MODE", "BRIDGE", "ADDRESS", "NICS", "SERVICE", "TITLE")
_COLORS = {"up": output.GREEN, "broken": output.RED}


def list_networks(args: argparse.Namespace) -> int:
    import sys

    found = [each.plain() for each in wait_for(networks.known_networks())]
    if args.json:
        output.print_json({"networks": found})
        return 0
    rows = [
        (each["name"], each["state"], each["mode"], each["bridge"], each["ipv4"] or "-",
         each["nics"], each["service"] or "-", each["title"])
        for each in found
    ]  # fmt: skip
    print(table(_HEADER, rows, _COLORS if output.colored(sys.stdout) else None))
    for each in found:
        if each["problem"]:
            output.note(f"{each['name']}: {each['problem']}", quiet=args.quiet)
    return 0


def show(args: argparse.Namespace) -> int:
    found = wait_for(_shown(args.network))
    if args.json:
        output.print_json(found)
        return 0
    plain = {key: each for key, each in found.items() if key != "network"}
    net = found.get("network") or {}
    plain["network"] = {
        key: net[key]
        for key in ("range", "domain", "dns", "host", "allow", "forwards", "kept", "mac", "mtu")
        if net.get(key) not in (None, "", [])
    }
    print(outline(plain))
    return 0


async def _shown(name: str) -> dict[str, Any]:
    """Raises: NotFoundError."""
    networks.check_name(name)
    known = await networks.known_networks()
    first = next((each for each in known if each.name == name), None)
    if first is None:
        raise networks.unknown(name, [each.name for each in known])
    if first.service is None or first.state["problem"]:
        return {"service": first.plain()["service"], "state": first.state}
    answer = await first.service.ask("show", {"network": name})
    leases = (await first.service.ask("leases", {"network": name}))["leases"]
    return {"service": first.service.kind, **answer, "leases": leases}


# ---- up and down --------------------------------------------------------------------------------


def up(args: argparse.Namespace) -> int:
    return _each(args, "up", {})


def down(args: argparse.Namespace) -> int:
    return _each(args, "down", {"force": args.force})


def _each(args: argparse.Namespace, verb: str, about: dict[str, Any]) -> int:
    """One network after the other; what is wrong with one stops no other."""
    answers, status = [], 0
    for name in dict.fromkeys(args.network):
        try:
            answer = wait_for(_asked(name, verb, about))
        except QlaunchError as error:
            if len(args.network) == 1:
                raise
            status = status or error.exit_status
            answers.append({"name": name, "error": error.to_dict()})
            if not args.json:
                output.complain(error, name=name)
            continue
        answers.append({"name": name, **answer})
        if not args.json:
            _tell(name, verb, answer, args)
    if args.json:
        output.print_json({"networks": answers})
    return status


async def _asked(name: str, verb: str, about: dict[str, Any]) -> dict[str, Any]:
    service = await networks.service_of(name, start=verb == "up")
    return {"service": service.kind, **await service.ask(verb, {"network": name, **about})}


def _tell(name: str, verb: str, answer: dict[str, Any], args: argparse.Namespace) -> None:
    if args.verbose:
        for step in answer["steps"]:
            output.note(f"  {step}", quiet=args.quiet)
    done = counted(len(answer["steps"]), "step") if answer["steps"] else "nothing to do"
    at = (answer.get("network") or {}).get("address")
    where = f" on {at}" if at else ""
    output.note(f"{name} is {verb}{where} ({done})", quiet=args.quiet)


# ---- looking ------------------------------------------------------------------------------------


def plan(args: argparse.Namespace) -> int:
    steps = wait_for(_planned(args.network))
    if args.json:
        output.print_json({"steps": steps})
        return 0
    for step in steps:
        print(output.clean(step["about"]))
    if not steps:
        output.note("there is nothing to do", quiet=args.quiet)
    return 0


async def _planned(name: str | None) -> list[dict[str, Any]]:
    if name is not None:
        service = await networks.service_of(name, start=True)
        steps = await service.ask("plan", {"network": name})
        return list(steps["steps"])
    services = await networks.answering()
    if not services:
        raise HostError("no network service runs", hint=networks.NO_SERVICE)
    found: list[dict[str, Any]] = []
    for service in services:
        try:
            found += (await service.ask("plan"))["steps"]
        except QlaunchError:  # root's is not for everybody's eyes
            if service is services[-1]:
                raise
    return found


def leases(args: argparse.Namespace) -> int:
    found = wait_for(_leased(args.network))
    if args.json:
        output.print_json({"leases": found})
        return 0
    rows = [
        (each["network"], each["address"], each["mac"], each["hostname"] or "-",
         f"{each['machine']} {each['nic']}".strip() or "-", _until(each["expires"]))
        for each in found
    ]  # fmt: skip
    print(table(("NETWORK", "ADDRESS", "MAC", "NAME", "MACHINE", "UNTIL"), rows))
    return 0


async def _leased(name: str | None) -> list[dict[str, Any]]:
    if name is not None:
        service = await networks.service_of(name)
        return list((await service.ask("leases", {"network": name}))["leases"])
    found: list[dict[str, Any]] = []
    for service in await networks.answering():
        found += (await service.ask("leases"))["leases"]
    return found


def _until(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment)) if moment else "for ever"
