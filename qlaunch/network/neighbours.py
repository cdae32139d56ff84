"""Who else is on this computer that our networks have to get on with; and the doors they have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from qlaunch.errors import HostError
from qlaunch.host.ports import port_holder
from qlaunch.network import nft
from qlaunch.network.look import look_at_links
from qlaunch.network.netlink import Netlink
from qlaunch.plan.networks import neighbours as plan
from qlaunch.plan.networks.model import Net
from qlaunch.plan.networks.neighbours import Neighbour
from qlaunch.store import files

_ZONES = (plan.ZONE_FILE, "/usr/lib/firewalld/zones/qlaunch.xml")
_UFW = "/etc/ufw/ufw.conf"
_LEGACY = "/proc/net/ip_tables_names"
RELOAD_TIMEOUT = 30.0


def look_around(nets: list[Net], ours: list[int]) -> list[Neighbour]:
    """Everybody in the way of `nets`; `ours` are the processes of our own dnsmasqs.

    Firewalls are seen by root alone. Raises: HostError.
    """
    with Netlink() as netlink:
        found = list(plan.overlaps(nets, look_at_links(netlink)))
    found += [
        plan.resolver(net, holder)
        for net in nets
        if net.managed and net.dns and (holder := _resolver(net, ours))
    ]
    if os.geteuid() == 0:
        bridges = [net.bridge for net in nets if net.managed]
        zone = any(map(os.path.exists, _ZONES))
        found += plan.firewalls(ruleset(), zone=zone, ufw=_has_ufw(), bridges=bridges)
        found += _legacy()
    return found


def ruleset() -> dict[str, Any]:
    """All rules of this computer as nft's JSON. Raises: HostError."""
    found: dict[str, Any] = json.loads(nft.run("list ruleset", as_json=True) or "{}")
    return found


def _resolver(net: Net, ours: list[int]) -> str | None:
    """Who answers names at the network's address and is none of ours."""
    holder = port_holder(53, net.gateway or "0.0.0.0")
    if holder is None or any(f"(pid {pid})" in holder for pid in ours):
        return None
    return holder


def _has_ufw() -> bool:
    try:
        with open(_UFW, encoding="utf-8") as file:
            return any(line.strip().lower() == "enabled=yes" for line in file)
    except (OSError, UnicodeDecodeError):
        return False


def _legacy() -> list[Neighbour]:
    """iptables of the old kind, whose rules nftables does not show."""
    try:
        with open(_LEGACY, encoding="ascii") as file:
            tables = file.read().split()
    except OSError:
        return []
    if "filter" not in tables:
        return []
    hint = (
        'iptables-legacy -S FORWARD; iptables-legacy -I FORWARD -i "ql-+" -j ACCEPT lets us through'
    )
    message = "iptables of the old kind has rules that are not seen here"
    return [Neighbour(topic="firewall", message=message, hint=hint)]


def mend(neighbour: Neighbour) -> str:
    """Open the door that `neighbour` has; says what was done. Raises: HostError."""
    if neighbour.mend == "docker":
        for family, is_open in plan.docker_doors(ruleset()).items():
            if not is_open:
                nft.run(plan.docker_rules(family))
        return f"Docker lets {plan.OURS} through, by {plan.DOCKER_DOOR}"
    if neighbour.mend == "firewalld":
        files.write_bytes(plan.ZONE_FILE, plan.ZONE.encode(), mode=0o644)
        _reload_firewalld()
        return f"firewalld has the zone {plan.ZONE_FILE}"
    raise HostError(neighbour.message, hint=neighbour.hint)


def _reload_firewalld() -> None:
    program = shutil.which("firewall-cmd")
    if program is None:
        return
    words = [program, "--reload"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=RELOAD_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"firewalld does not reload: {error}") from error
    if done.returncode:
        raise HostError(f"firewalld does not reload: {done.stderr.strip()}")
