"""A network with every decision made, the cards that are plugged into it, and what the kernel has.

All of it is plain data: it is kept in small files and printed by `qlaunch net`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Literal

from attrs import field, frozen

from qlaunch.plan.forwards import Forward
from qlaunch.plan.model import Filter
from qlaunch.profile.network import MANAGED

NET_ALIAS = "qlaunch:net:"
CARD_ALIAS = "qlaunch:nic:"

Mode = Literal["nat", "routed", "isolated", "open", "bridge", "uplink"]
HostAccess = Literal["full", "services", "none"]


# Asked for with each card of a network; making one takes as long as all else that a rule is.
@cache
def _four(address: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Interface(address).network


@cache
def _six(address: str) -> ipaddress.IPv6Network:
    return ipaddress.IPv6Interface(address).network


@frozen(kw_only=True)
class Kept:
    """An address that a network keeps for a MAC address."""

    name: str
    mac: str
    ipv4: str | None = None
    ipv6: str | None = None


@frozen(kw_only=True)
class Net:
    """A network, complete. Addresses are this computer's own, with the length of the prefix."""

    name: str
    mode: Mode = "nat"
    title: str = ""
    file: str = ""
    bridge: str
    uplink: str | None = None
    mac: str = ""
    mtu: int | None = None
    stp: bool = True
    autostart: bool = False
    address: str | None = None
    ipv6: str | None = None
    range: tuple[str, str] | None = None
    lease: int = 3600
    dns: bool = True
    domain: str = "vm"
    dns_forward: bool = True
    servers: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    apart: bool = False
    allow: tuple[str, ...] = ()
    host: HostAccess = "full"
    kept: tuple[Kept, ...] = ()
    forwards: tuple[str, ...] = ()

    @property
    def managed(self) -> bool:
        """Whether the bridge is one that qlaunch makes, with an address of its own."""
        return self.mode in MANAGED

    @property
    def ruled(self) -> bool:
        """Whether packets from and to its bridge go through our rules."""
        return self.managed and self.mode != "open"

    @property
    def net4(self) -> ipaddress.IPv4Network | None:
        return _four(self.address) if self.address else None

    @property
    def net6(self) -> ipaddress.IPv6Network | None:
        return _six(self.ipv6) if self.ipv6 else None

    @property
    def gateway(self) -> str | None:
        """This computer's IPv4 address in it, without the prefix."""
        return self.address.partition("/")[0] if self.address else None

    @property
    def gateway6(self) -> str | None:
        return self.ipv6.partition("/")[0] if self.ipv6 else None

    @property
    def serves(self) -> bool:
        """Whether it has a dnsmasq: one gives addresses, answers names or both."""
        return self.managed and bool(self.address or self.ipv6) and (self.dns or bool(self.range))


@frozen(kw_only=True)
class Card:
    """A guest's network card that is plugged in; `ifname` and `index` are its TAP's."""

    user: int = 0
    machine: str
    nic: str
    network: str
    mac: str
    ifname: str
    index: int = 0
    ipv4: str | None = None
    ipv6: str | None = None
    filter: Filter = "clean"
    forwards: tuple[str, ...] = ()
    hostname: str = ""
    link: Literal["up", "down"] = "up"

    @property
    def alias(self) -> str:
        """The mark on its TAP."""
        return f"{CARD_ALIAS}{self.machine}:{self.nic}"

    @property
    def outer_forwards(self) -> tuple[Forward, ...]:
        """Those of its forwards that are the kernel's work."""
        found = (Forward.parse(text) for text in self.forwards)
        return tuple(forward for forward in found if not forward.loopback)


@frozen(kw_only=True)
class Desired:
    """What should be: the networks that are wanted, and the cards in them."""

    nets: tuple[Net, ...] = ()
    cards: tuple[Card, ...] = ()

    def net(self, name: str) -> Net | None:
        return next((net for net in self.nets if net.name == name), None)

    def cards_of(self, net: Net) -> Iterator[Card]:
        return (card for card in self.cards if card.network == net.name)


@frozen(kw_only=True)
class Link:
    """An interface as the kernel has it. `bridge` and `port` are options by the kernel's names."""

    name: str
    index: int
    up: bool = False
    carrier: bool = False
    mac: str = ""
    mtu: int = 1500
    master: int = 0
    kind: str = ""
    alias: str = ""
    bridge: Mapping[str, int] = field(factory=dict)
    port: Mapping[str, int] = field(factory=dict)


@frozen(kw_only=True)
class Address:
    """An address of an interface, with the length of its prefix."""

    index: int
    address: str
    link_local: bool = False


@frozen(kw_only=True)
class Route:
    """A route: `to` as a network, through the interface with the index `link`."""

    to: str
    link: int
    gateway: str | None = None


@frozen(kw_only=True)
class Served:
    """The dnsmasq of a network that runs: the configuration it was started with."""

    network: str
    config: str


@frozen(kw_only=True)
class Kernel:
    """Everything that is now, as far as it matters."""

    links: Mapping[str, Link] = field(factory=dict)
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    sysctls: Mapping[str, str] = field(factory=dict)
    changed_sysctls: Mapping[str, str] = field(factory=dict)
    rules: str = ""
    served: tuple[Served, ...] = ()
    hosts: Mapping[str, str] = field(factory=dict)
    filters_bridged: bool = False

    def by_index(self, index: int) -> Link | None:
        return next((link for link in self.links.values() if link.index == index), None)

    def net_bridges(self) -> Iterator[tuple[str, Link]]:
        """The bridges with our mark, and the names of their networks."""
        for link in self.links.values():
            if link.alias.startswith(NET_ALIAS) and link.kind == "bridge":
                yield link.alias[len(NET_ALIAS) :], link
