"""A network file -> a network with all its values."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import cast

from attrs import evolve, frozen

from qlaunch.errors import ConflictError, ProfileError
from qlaunch.plan.forwards import ANY4, canonical
from qlaunch.plan.networks.addresses import (
    bridge_mac,
    free_subnet,
    guest_address,
    private_prefix,
)
from qlaunch.plan.networks.model import Card, Desired, HostAccess, Kept, Kernel, Mode, Net
from qlaunch.profile.network import AUTO, MANAGED, NONE, Network


@frozen(kw_only=True)
class Surroundings:
    """What a decision depends on besides the file: this computer's id, what the kernel has, the
    addresses of other networks, and the one this network had last time."""

    computer: str
    kernel: Kernel = Kernel()
    taken: tuple[str, ...] = ()
    kept: str | None = None


def decide(wish: Network, around: Surroundings) -> Net:
    """`wish` with every value.

    Raises: ConflictError when its subnet is in use, ProfileError when no subnet is left.
    """
    mode = wish.mode or "nat"
    bridge = wish.bridge or f"ql-{wish.name}"[:15]
    net = Net(
        name=wish.name,
        mode=cast("Mode", mode),
        title=wish.title or "",
        file=wish.file,
        bridge=bridge,
        uplink=wish.uplink,
        mtu=wish.mtu,
        autostart=bool(wish.autostart),
    )
    if mode not in MANAGED:
        return evolve(net, stp=False, dns=False)
    address = _address(wish, around, bridge)
    said = wish.dns.forward
    return evolve(
        net,
        mac=bridge_mac(around.computer, wish.name),
        stp=wish.stp is not False,
        address=address,
        ipv6=_ipv6(wish, around.computer),
        range=_range(wish, address),
        lease=int(wish.dhcp.lease or 3600),
        dns=wish.dns.enabled is not False,
        domain=wish.dns.domain or "vm",
        dns_forward=mode != "isolated" if said is None else said,
        servers=wish.dns.servers,
        names=tuple((name, at) for name, _, at in (n.partition("=") for n in wish.dns.names)),
        apart=bool(wish.isolation.guests),
        allow=wish.isolation.allow,
        host=cast("HostAccess", wish.isolation.host or "full"),
        kept=tuple(
            Kept(name=each.id, mac=(each.mac or "").lower(), ipv4=each.ipv4, ipv6=each.ipv6)
            for each in wish.reservation
        ),
        forwards=canonical(wish.forward, ANY4),
    )


def _address(wish: Network, around: Surroundings, bridge: str) -> str | None:
    if wish.address == NONE:
        return None
    own = around.kernel.links.get(bridge)
    routes = [r for r in around.kernel.routes if own is None or r.link != own.index]
    if wish.address in (None, AUTO):
        found = free_subnet(routes, around.taken, around.kept)
        if found is None:
            hint = 'write address = "10.99.0.1/24", or what suits your network'
            raise ProfileError(wish.where("address"), "no subnet is free for `auto`", hint=hint)
        return found
    address = str(ipaddress.IPv4Interface(wish.address))
    subnet = ipaddress.IPv4Interface(address).network
    for route in routes:
        there = ipaddress.ip_network(route.to)
        if there.version == 4 and there.prefixlen and subnet.overlaps(there):
            link = around.kernel.by_index(route.link)
            where = f" ({link.name})" if link else ""
            raise ConflictError(
                f"{wish.where('address')}: {subnet} is in use: {there}{where}",
                hint='address = "auto" takes a subnet that is free',
            )
    return address


def _ipv6(wish: Network, computer: str) -> str | None:
    if wish.ipv6 == NONE:
        return None
    if wish.ipv6 in (None, AUTO):
        return private_prefix(computer, wish.name)
    return str(ipaddress.IPv6Interface(wish.ipv6))


def _range(wish: Network, address: str | None) -> tuple[str, str] | None:
    if address is None or wish.dhcp.enabled is False:
        return None
    if wish.dhcp.range:
        first, _, last = (part.strip() for part in wish.dhcp.range.partition("-"))
        return first, last
    own = ipaddress.IPv4Interface(address)
    subnet = own.network
    first_host, last_host = subnet.network_address + 1, subnet.broadcast_address - 1
    if first_host == own.ip:
        first_host += 1
    return str(first_host), str(last_host)


def settle_card(card: Card, net: Net, others: Iterable[Card], given: Mapping[str, str]) -> Card:
    """`card` with the addresses that it gets in `net`.

    Raises: ConflictError when something of it is another card's.
    """
    beside = [other for other in others if other.ifname != card.ifname]
    _check_taken(card, beside)
    ipv4 = card.ipv4
    if net.managed:
        taken = {other.ipv4 for other in beside if other.network == net.name and other.ipv4}
        ipv4 = card.ipv4 or guest_address(net, card.mac, taken, given)
        if ipv4 is None and net.range:
            raise ConflictError(f"network {net.name}: all of its addresses are in use")
        _check_inside(card, net)
    kept6 = next((each.ipv6 for each in net.kept if each.mac == card.mac and each.ipv6), None)
    return evolve(card, ipv4=ipv4, ipv6=card.ipv6 or kept6)


def _check_taken(card: Card, others: Iterable[Card]) -> None:
    for other in others:
        who = f"{other.machine} {other.nic}"
        if other.mac == card.mac and other.network == card.network:
            raise ConflictError(
                f"the MAC address {card.mac} is in use by {who}",
                hint="give one of the two another `mac`",
            )
        same = other.network == card.network and card.ipv4 and other.ipv4 == card.ipv4
        if same:
            raise ConflictError(f"the address {card.ipv4} is in use by {who}")
        for mine in card.outer_forwards:
            for theirs in other.outer_forwards:
                if mine.clashes(theirs):
                    raise ConflictError(f"port {mine.port} ({mine.proto}) already leads to {who}")


def _check_inside(card: Card, net: Net) -> None:
    for said, subnet, own in (
        (card.ipv4, net.net4, net.gateway),
        (card.ipv6, net.net6, net.gateway6),
    ):
        if said is None:
            continue
        at = ipaddress.ip_address(said)
        if subnet is None or at not in subnet or said == own or at == subnet.network_address:
            where = f": {subnet}" if subnet else ""
            raise ConflictError(f"{said} is no guest's address in the network {net.name}{where}")


def check_desired(desired: Desired) -> None:
    """See that the networks can be there side by side. Raises: ConflictError."""
    bridges: dict[str, str] = {}
    for at, net in enumerate(desired.nets):
        if net.managed or net.mode == "uplink":
            first = bridges.setdefault(net.bridge, net.name)
            if first != net.name:
                raise ConflictError(
                    f"the networks {first} and {net.name} have one bridge: {net.bridge}"
                )
        for other in desired.nets[:at]:
            for mine, theirs in ((net.net4, other.net4), (net.net6, other.net6)):
                if mine and theirs and mine.overlaps(theirs):
                    raise ConflictError(f"the networks {other.name} and {net.name} overlap: {mine}")
