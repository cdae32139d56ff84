"""Interfaces, bridges, addresses and routes: what is there, and the messages that change it."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping

from attrs import frozen

from qlaunch.network.netlink import (
    CREATE,
    EXCL,
    NESTED,
    REPLACE,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
    number,
    read_number,
    read_text,
    text,
)
from qlaunch.plan.networks.model import Address, Link, Route

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_GETNEIGH = 30
RTMGRP_LINK, RTMGRP_IPV4_ADDR, RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40
RTMGRP_IPV6_ADDR, RTMGRP_IPV6_ROUTE = 0x100, 0x400
IFF_UP = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_CARRIER = 18, 20, 33
INFO_KIND, INFO_DATA, INFO_PORT_KIND, INFO_PORT_DATA = 1, 2, 4, 5
BRIDGE_OPTIONS = {
    "forward_delay": (1, "I"),
    "stp_state": (5, "I"),
    "mcast_snooping": (23, "B"),
}
PORT_OPTIONS = {
    "state": (1, "B"),
    "hairpin": (4, "B"),
    "bpdu_guard": (5, "B"),
    "isolated": (33, "B"),
}
LINK_SCOPE = 253
_NODAD, _NOPREFIXROUTE, _PERMANENT = 0x02, 0x200, 0x80
_ONLINK = 0x4
# The attributes of a route that go along when it moves to another interface; nested ones apart.
_ROUTE_KEPT = (1, 5, 6, 7, 15, 20)
_ROUTE_KEPT_NESTED = (8, 22)
_LOCAL_TABLE, _UNICAST, _BY_KERNEL = 255, 1, 2


def _link_head(index: int = 0, flags: int = 0, mask: int = 0) -> bytes:
    return struct.pack("=BBHiII", 0, 0, 0, index, flags, mask)


# ---- what is there ------------------------------------------------------------------------------


def links(netlink: Netlink) -> dict[str, Link]:
    """Every interface, by its name."""
    found = [_link(data) for data in netlink.dump(RTM_GETLINK, _link_head())]
    return {link.name: link for link in found}


def _link(data: bytes) -> Link:
    _, _, _, index, flags, _ = struct.unpack_from("=BBHiII", data)
    said = attributes(data[16:])
    info = attributes(said.get(IFLA_LINKINFO, b""))
    kind, port_kind = read_text(info.get(INFO_KIND)), read_text(info.get(INFO_PORT_KIND))
    return Link(
        name=read_text(said[IFLA_IFNAME]),
        index=index,
        up=bool(flags & IFF_UP),
        carrier=any(said.get(IFLA_CARRIER, b"")),
        mac=said.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=read_number(said.get(IFLA_MTU)),
        master=read_number(said.get(IFLA_MASTER)),
        kind=kind,
        alias=read_text(said.get(IFLA_IFALIAS)),
        bridge=_options(BRIDGE_OPTIONS, info.get(INFO_DATA), kind == "bridge"),
        port=_options(PORT_OPTIONS, info.get(INFO_PORT_DATA), port_kind == "bridge"),
    )


def _options(
    known: Mapping[str, tuple[int, str]], data: bytes | None, fits: bool
) -> dict[str, int]:
    if data is None or not fits:
        return {}
    said = attributes(data)
    return {
        name: int(struct.unpack("=" + form, said[kind][: struct.calcsize(form)])[0])
        for name, (kind, form) in known.items()
        if kind in said
    }


@frozen(kw_only=True)
class FullAddress:
    """An address with all that is needed to put it elsewhere. Lifetimes are seconds, None for
    ever."""

    index: int
    address: str
    scope: int
    permanent: bool
    secondary: bool
    no_route: bool
    preferred: int | None
    valid: int | None


def full_addresses(netlink: Netlink) -> list[FullAddress]:
    """Every address of every interface."""
    body = struct.pack("=BBBBI", 0, 0, 0, 0, 0)
    return [_address(data) for data in netlink.dump(RTM_GETADDR, body)]


def _address(data: bytes) -> FullAddress:
    _, length, flags, scope, index = struct.unpack_from("=BBBBI", data)
    said = attributes(data[8:])
    flags = read_number(said.get(8)) or flags
    preferred, valid = struct.unpack_from("=II", said[6]) if 6 in said else (0xFFFFFFFF,) * 2
    return FullAddress(
        index=index,
        address=f"{ipaddress.ip_address(said.get(2) or said[1])}/{length}",
        scope=scope,
        permanent=bool(flags & _PERMANENT),
        secondary=bool(flags & 0x1),
        no_route=bool(flags & _NOPREFIXROUTE),
        preferred=None if preferred == 0xFFFFFFFF else preferred,
        valid=None if valid == 0xFFFFFFFF else valid,
    )


def addresses(netlink: Netlink) -> tuple[Address, ...]:
    return tuple(
        Address(index=a.index, address=a.address, link_local=a.scope == LINK_SCOPE)
        for a in full_addresses(netlink)
    )


@frozen(kw_only=True)
class FullRoute:
    """A route with all its attributes; `data` is the kernel's own message."""

    to: str
    link: int
    gateway: str | None
    table: int
    kind: int
    protocol: int
    metric: int
    flags: int
    data: bytes


def full_routes(netlink: Netlink, family: int = socket.AF_UNSPEC) -> list[FullRoute]:
    """Every route of every table."""
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
    return [route_of(data) for data in netlink.dump(RTM_GETROUTE, body)]


def route_of(data: bytes) -> FullRoute:
    """A route from the kernel's message."""
    head = struct.unpack_from("=BBBBBBBBI", data)
    family, length, table, protocol, kind, flags = (
        head[0],
        head[1],
        head[4],
        head[5],
        head[7],
        head[8],
    )
    said = attributes(data[12:])
    nothing = bytes(4 if family == socket.AF_INET else 16)
    return FullRoute(
        to=f"{ipaddress.ip_address(said.get(1, nothing))}/{length}",
        link=read_number(said.get(4)),
        gateway=str(ipaddress.ip_address(said[5])) if 5 in said else None,
        table=read_number(said.get(15)) or table,
        kind=kind,
        protocol=protocol,
        metric=read_number(said.get(6)),
        flags=flags,
        data=data,
    )


def routes(netlink: Netlink) -> tuple[Route, ...]:
    """Every route to other computers, but those of multicast and of this computer's own addresses;
    also those of several ways, by their first."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in full_routes(netlink, family):
            if not is_plain(route):
                continue
            for link, gateway in ways(route):
                found.append(Route(to=route.to, link=link, gateway=gateway))
    return tuple(found)


def is_plain(route: FullRoute) -> bool:
    """Whether it leads to other computers, and not to this one's own addresses or to many."""
    return route.kind == _UNICAST and route.table != _LOCAL_TABLE


def is_automatic(route: FullRoute) -> bool:
    """Whether the kernel itself makes it with an IPv6 address."""
    return route.protocol == _BY_KERNEL and ":" in route.to


def ways(route: FullRoute) -> Iterator[tuple[int, str | None]]:
    """Interface and gateway of each way of `route`."""
    ways = attributes(route.data[12:]).get(9, b"")
    at = 0
    while at + 8 <= len(ways):
        size, _, _, link = struct.unpack_from("=HBBi", ways, at)
        if size < 8:
            break
        said = attributes(ways[at + 8 : at + size])
        yield link, str(ipaddress.ip_address(said[5])) if 5 in said else None
        at += size + -size % 4
    if not ways:
        yield route.link, route.gateway


# States in which a neighbour has answered (NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT).
ANSWERED = 0x02 | 0x04 | 0x08 | 0x10 | 0x80


@frozen(kw_only=True)
class Neighbour:
    """An address that was resolved lately."""

    address: str
    mac: str
    index: int
    state: int


def neighbours(netlink: Netlink) -> list[Neighbour]:
    found = []
    for data in netlink.dump(RTM_GETNEIGH, struct.pack("=BBHiHBB", 0, 0, 0, 0, 0, 0, 0)):
        family, _, _, index, state, _, _ = struct.unpack_from("=BBHiHBB", data)
        said = attributes(data[12:])
        if family in (socket.AF_INET, socket.AF_INET6) and 1 in said and 2 in said:
            address = str(ipaddress.ip_address(said[1]))
            found.append(Neighbour(address=address, mac=said[2].hex(":"), index=index, state=state))
    return found


# ---- what changes it ----------------------------------------------------------------------------


def make_bridge(name: str, *, mac: str, mtu: int | None, options: Mapping[str, int]) -> Message:
    body = _link_head(flags=IFF_UP, mask=IFF_UP) + attribute(IFLA_IFNAME, text(name))
    body += attribute(IFLA_ADDRESS, _octets(mac))
    if mtu is not None:
        body += attribute(IFLA_MTU, number(mtu))
    data = _packed(BRIDGE_OPTIONS, options)
    body += nested(IFLA_LINKINFO, attribute(INFO_KIND, b"bridge"), nested(INFO_DATA, *data))
    return Message(RTM_NEWLINK, CREATE | EXCL, body, f"make the bridge {name}")


def set_alias(name: str, alias: str) -> Message:
    """By name: the kernel ignores an alias in a message that creates, and this one can follow in
    the same system call."""
    body = _link_head() + attribute(IFLA_IFNAME, text(name))
    return Message(
        RTM_NEWLINK, 0, body + attribute(IFLA_IFALIAS, alias.encode()), f"mark {name} as ours"
    )


def set_link(
    index: int,
    name: str,
    *,
    up: bool | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    alias: str | None = None,
    master: int | None = None,
) -> Message:
    flags = IFF_UP if up else 0
    body = _link_head(index, flags, IFF_UP if up is not None else 0)
    if mac is not None:
        body += attribute(IFLA_ADDRESS, _octets(mac))
    if mtu is not None:
        body += attribute(IFLA_MTU, number(mtu))
    if alias is not None:
        body += attribute(IFLA_IFALIAS, alias.encode())
    if master is not None:
        body += attribute(IFLA_MASTER, number(master))
    return Message(RTM_NEWLINK, 0, body, f"set {name}")


def set_bridge(index: int, name: str, options: Mapping[str, int]) -> Message:
    data = _packed(BRIDGE_OPTIONS, options)
    info = nested(IFLA_LINKINFO, attribute(INFO_KIND, b"bridge"), nested(INFO_DATA, *data))
    return Message(RTM_NEWLINK, 0, _link_head(index) + info, f"set the bridge {name}")


def set_port(index: int, name: str, options: Mapping[str, int]) -> Message:
    data = _packed(PORT_OPTIONS, options)
    info = nested(
        IFLA_LINKINFO, attribute(INFO_PORT_KIND, b"bridge"), nested(INFO_PORT_DATA, *data)
    )
    return Message(RTM_NEWLINK, 0, _link_head(index) + info, f"set the port {name}")


def delete_link(index: int, name: str) -> Message:
    return Message(RTM_DELLINK, 0, _link_head(index), f"delete {name}")


def set_address(
    index: int,
    address: str,
    *,
    delete: bool = False,
    no_route: bool = False,
    preferred: int | None = None,
    valid: int | None = None,
) -> Message:
    """Add `address` (with its length) to an interface or take it away; it can be used at once."""
    at = ipaddress.ip_interface(address)
    four = at.version == 4
    scope = LINK_SCOPE if at.ip.is_link_local else 0
    family = socket.AF_INET if four else socket.AF_INET6
    body = struct.pack("=BBBBI", family, at.network.prefixlen, 0, scope, index)
    body += attribute(2, at.ip.packed)
    if four:
        body += attribute(1, at.ip.packed)
    if four and at.network.prefixlen < 31:
        body += attribute(4, at.network.broadcast_address.packed)
    flags = (0 if four else _NODAD) | (_NOPREFIXROUTE if no_route else 0)
    if flags:
        body += attribute(8, number(flags))
    if valid is not None:
        soon = valid if preferred is None else preferred
        body += attribute(6, struct.pack("=IIII", soon, valid, 0, 0))
    if delete:
        return Message(RTM_DELADDR, 0, body, f"remove the address {address}")
    return Message(RTM_NEWADDR, CREATE | REPLACE, body, f"add the address {address}")


def move_route(route: FullRoute, link: int, *, delete: bool = False) -> Message:
    """`route` through the interface `link`, everything else as it was; or that one deleted."""
    head = bytearray(route.data[:12])
    head[8:12] = number(route.flags & _ONLINK)  # not the state: dead, no carrier
    said = attributes(route.data[12:])
    body = bytes(head)
    body += b"".join(attribute(kind, said[kind]) for kind in _ROUTE_KEPT if kind in said)
    for kind in _ROUTE_KEPT_NESTED:
        if kind in said:
            body += attribute(kind | NESTED, said[kind])
    body += attribute(4, number(link))
    if delete:
        return Message(RTM_DELROUTE, 0, body, f"remove the route to {route.to}")
    return Message(RTM_NEWROUTE, CREATE | REPLACE, body, f"add the route to {route.to}")


def _packed(known: Mapping[str, tuple[int, str]], options: Mapping[str, int]) -> list[bytes]:
    return [
        attribute(known[name][0], struct.pack("=" + known[name][1], value))
        for name, value in options.items()
    ]


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
