"""`qlaunch net doctor`: whether networks can be made here, and who is in their way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qlaunch.cli import networks, output
from qlaunch.cli.check_lines import FAIL, OK, WARN, Check
from qlaunch.cli.definitions import wait_for
from qlaunch.cli.verbs.doctor import print_check
from qlaunch.errors import QlaunchError, RefusedError
from qlaunch.network import client, neighbours, nft
from qlaunch.network.possible import rootless_problem
from qlaunch.plan.networks.decide import Surroundings, decide
from qlaunch.plan.networks.model import Net
from qlaunch.profile.network_load import load_network

if TYPE_CHECKING:
    import argparse

    from qlaunch.network.client import Service

_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
_PROGRAMS = (
    ("dnsmasq", "dnsmasq-base", "gives guests addresses and names"),
    ("pasta", "passt", "networks without root reach the outside"),
)


def doctor(args: argparse.Namespace) -> int:
    if args.mend and os.geteuid():
        raise RefusedError(
            "only root can open doors of others", hint="sudo qlaunch net doctor --mend"
        )
    found = [*_programs(), *_services(), *_neighbours(mend=args.mend)]
    if args.json:
        failed = any(check.level == FAIL for check in found)
        output.print_json({"ok": not failed, "checks": [check.to_dict() for check in found]})
        return int(failed)
    for check in found:
        if not (args.quiet and check.level == OK):
            print_check(check)
    return int(any(check.level == FAIL for check in found))


def _programs() -> Iterator[Check]:
    for program, package, use in _PROGRAMS:
        path = shutil.which(program, path=_PATH)
        if path:
            yield Check(level=OK, topic=program, message=f"{path}: {use}")
        else:
            message = f"{program} is not installed: {use}, by it"
            yield Check(level=WARN, topic=program, message=message, hint=f"apt install {package}")
    if nft.is_there():
        yield Check(level=OK, topic="nftables", message="nftables: the firewall of networks")
    else:
        message = "nftables is not installed: no network can be made"
        yield Check(level=FAIL, topic="nftables", message=message, hint="apt install nftables")
    if os.path.exists("/dev/net/tun"):
        yield Check(level=OK, topic="tun", message="/dev/net/tun: cards get their cables")
    else:
        message = "there is no /dev/net/tun: no card can be plugged in"
        yield Check(level=FAIL, topic="tun", message=message, hint="modprobe tun")


def _services() -> Iterator[Check]:
    found = {service.kind: service for service in wait_for(networks.answering())}
    if "netd" in found:
        allowed = ", ".join(found["netd"].allowed)
        message = f"root's network service answers; you may use: {allowed}"
        yield Check(level=OK, topic="netd", message=message)
        yield from _broken(found["netd"])
    else:
        level = FAIL if os.geteuid() == 0 else WARN
        message = "root's network service does not answer, or lets you use nothing"
        yield Check(level=level, topic="netd", message=message, hint=networks.NO_SERVICE)
    if os.geteuid() == 0:
        return
    problem = None if "rootless" in found else wait_for(rootless_problem())
    if problem is None:
        running = "runs" if "rootless" in found else "is started when a machine needs it"
        yield Check(
            level=OK, topic="rootless", message=f"networks without root: your own {running}"
        )
    else:
        message = f"networks without root cannot be had: {problem}"
        yield Check(level=WARN, topic="rootless", message=message, hint=networks.NO_SERVICE)
    if "rootless" in found:
        yield from _broken(found["rootless"])


def _broken(service: Service) -> Iterator[Check]:
    """Networks that cannot be, and what is to be mended."""
    for state in wait_for(service.ask("networks"))["networks"]:
        if state["problem"]:
            message = f"the network {state['name']}: {state['problem']}"
            hint = f"qlaunch net edit {state['name']}"
            yield Check(level=WARN, topic="network", message=message, hint=hint)
    try:
        steps = wait_for(service.ask("plan"))["steps"]
    except QlaunchError:  # root's is not for everybody's eyes
        return
    for step in steps:
        message = f"to be mended: {step['about']}"
        yield Check(level=WARN, topic="network", message=message, hint="see the service's log")


# ---- others on this computer --------------------------------------------------------------------


def _neighbours(*, mend: bool) -> Iterator[Check]:
    nets, ours = wait_for(_nets())
    found = neighbours.look_around(nets, ours)
    for each in found:
        if mend and each.mend:
            yield Check(level=OK, topic=each.topic, message=neighbours.mend(each))
            continue
        how = "sudo qlaunch net doctor --mend, or: " if each.mend else ""
        yield Check(level=WARN, topic=each.topic, message=each.message, hint=f"{how}{each.hint}")
    if os.geteuid():
        hint = "sudo qlaunch net doctor"
        message = "firewalls of others: only root sees them"
        yield Check(level=OK, topic="firewall", message=message, hint=hint)
    elif not found:
        yield Check(level=OK, topic="neighbours", message="nobody is in the way of the networks")


async def _nets() -> tuple[list[Net], list[int]]:
    """The networks of root's service, those that are not there by their files; and its dnsmasqs."""
    from qlaunch import records

    nets: dict[str, Net] = {}
    pids: list[int] = []
    service = await client.probe("netd", client.system_socket())
    if service is not None and os.geteuid() == 0:
        for state in (await service.ask("networks"))["networks"]:
            if not state["problem"]:
                answer = await service.ask("show", {"network": state["name"]})
                nets[state["name"]] = records.from_plain(Net, answer["network"])
                pids += [answer["dns"]] if answer.get("dns") else []
        return list(nets.values()), pids
    for name, path in networks.own_files().items():
        try:
            wish = load_network(path)
            if wish.address not in (None, "auto"):  # the others take what is free
                nets[name] = decide(wish, Surroundings(computer=""))
        except QlaunchError:
            continue
    return list(nets.values()), pids
