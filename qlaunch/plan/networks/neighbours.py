"""Others on this computer that stand in the way of our networks: firewalls, resolvers, networks.

An accept of ours overrules no drop of theirs, so each has to be asked at its own door.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from attrs import frozen

from qlaunch.plan.networks.model import Kernel, Net

OURS = "ql-*"
DOCKER, DOCKER_DOOR = "docker", "DOCKER-USER"
FIREWALLD = "firewalld"
ZONE_FILE = "/etc/firewalld/zones/qlaunch.xml"
ZONE = """\
<?xml version="1.0" encoding="utf-8"?>
<zone target="ACCEPT">
  <short>qlaunch</short>
  <description>Bridges of qlaunch, whose own nftables table decides.</description>
  <interface name="ql-+"/>
  <forward/>
</zone>
"""


@frozen(kw_only=True)
class Neighbour:
    """Somebody in the way: `mend` is set where we know a proper door, `hint` is what a person can
    do."""

    topic: str
    message: str
    hint: str
    mend: Literal["docker", "firewalld", ""] = ""


@frozen(kw_only=True)
class Chain:
    """A chain of somebody else's that packets run into by themselves."""

    family: str
    table: str
    name: str
    hook: str
    drops: bool


def foreign_chains(listed: Mapping[str, Any]) -> list[Chain]:
    """The base chains of others in `nft --json list ruleset` that drop what nobody accepts."""
    items = [each for each in listed.get("nftables", ()) if isinstance(each, dict)]
    last: dict[tuple[Any, ...], list[Any]] = {}
    for rule in (each["rule"] for each in items if "rule" in each):
        last[rule["family"], rule["table"], rule["chain"]] = rule.get("expr") or []
    found = []
    for chain in (each["chain"] for each in items if "chain" in each):
        place = chain["family"], chain["table"], chain["name"]
        if chain.get("hook") in ("input", "forward") and chain["table"] != "qlaunch":
            drops = chain.get("policy") == "drop" or _refuses(last.get(place, []))
            found.append(Chain(family=place[0], table=place[1], name=place[2],
                               hook=chain["hook"], drops=drops))  # fmt: skip
    return [chain for chain in found if chain.drops]


def _refuses(expressions: Iterable[Any]) -> bool:
    """Whether a chain's last rule takes everything that came so far: it has no condition."""
    words = {key for each in expressions if isinstance(each, dict) for key in each}
    return bool(words & {"drop", "reject"}) and "match" not in words and "xt" not in words


def docker_doors(listed: Mapping[str, Any]) -> dict[str, bool]:
    """Docker's door by family (`ip`, `ip6`), and whether it is open to us."""
    doors: dict[str, bool] = {}
    for each in listed.get("nftables", ()):
        chain, rule = each.get("chain"), each.get("rule")
        if chain and chain["name"] == DOCKER_DOOR:
            doors.setdefault(chain["family"], False)
        if rule and rule["chain"] == DOCKER_DOOR and rule.get("comment") == "qlaunch":
            doors[rule["family"]] = True
    return doors


def docker_rules(family: str) -> str:
    """What opens Docker's door: for nft, one transaction."""
    return "".join(
        f'insert rule {family} filter {DOCKER_DOOR} {way} "{OURS}" counter accept'
        ' comment "qlaunch"\n'
        for way in ("iifname", "oifname")
    )


def firewalls(
    listed: Mapping[str, Any], *, zone: bool, ufw: bool, bridges: Collection[str]
) -> Iterator[Neighbour]:
    """The firewalls of others that are in the way of the networks on `bridges`. `zone` says whether
    firewalld knows our zone, `ufw` whether ufw is switched on."""
    chains, doors = foreign_chains(listed), docker_doors(listed)
    tables = {each["table"]["name"] for each in listed.get("nftables", ()) if "table" in each}
    for family, is_open in sorted(doors.items()):
        if not is_open and any(c.family == family and c.hook == "forward" for c in chains):
            yield Neighbour(
                topic=DOCKER,
                message=f"Docker drops what guests forward ({family} FORWARD has the policy drop)",
                hint="; ".join(f"nft '{line}'" for line in docker_rules(family).splitlines()),
                mend="docker",
            )
    if FIREWALLD in tables and not zone:
        yield Neighbour(
            topic=FIREWALLD,
            message="firewalld does not know our bridges: guests get no address and no name",
            hint=f"a zone in {ZONE_FILE} for the interface ql-+, then firewall-cmd --reload",
            mend="firewalld",
        )
    names = sorted(bridges) or ["ql-default"]
    if ufw:
        lines = [f"ufw allow in on {name}; ufw route allow in on {name}" for name in names]
        if any(chain.name in ("INPUT", "FORWARD") for chain in chains):
            yield Neighbour(
                topic="ufw",
                message="ufw drops what guests ask of this computer, and what they forward",
                hint="; ".join(lines),
            )
        return
    for chain in chains:
        if chain.table == FIREWALLD or (chain.hook == "forward" and chain.family in doors):
            continue
        yield Neighbour(
            topic="firewall",
            message=f"the chain {chain.family} {chain.table} {chain.name} drops what it does not"
            " know, guests' packets as well",
            hint=f"nft insert rule {chain.family} {chain.table} {chain.name}"
            f" 'iifname \"{OURS}\" accept'; and in its configuration",
        )


def overlaps(nets: Iterable[Net], kernel: Kernel) -> Iterator[Neighbour]:
    """Networks of ours whose subnet is somebody else's as well, libvirt's for one."""
    for net in nets:
        if net.net4 is None:
            continue
        own = kernel.links.get(net.bridge)
        for route in kernel.routes:
            there = ipaddress.ip_network(route.to)
            if own is not None and route.link == own.index:
                continue
            if there.version == 4 and there.prefixlen and net.net4.overlaps(there):
                link = kernel.by_index(route.link)
                who = link.name if link else "another interface"
                yield Neighbour(
                    topic="subnet",
                    message=f"the network {net.name} and {who} have one subnet: {there}",
                    hint=f'address = "auto" takes a free one: qlaunch net edit {net.name}',
                )


def resolver(net: Net, holder: str) -> Neighbour:
    """`holder` has the port on which guests of `net` ask for names."""
    return Neighbour(
        topic="dns",
        message=f"{holder} has port 53 of {net.gateway}: the network {net.name} answers no names",
        hint="a dnsmasq of the system leaves our bridges alone with the lines `bind-dynamic` and"
        " `except-interface=ql-*` in /etc/dnsmasq.d/qlaunch.conf",
    )
