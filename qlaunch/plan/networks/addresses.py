"""Addresses that nobody has to write down: the same ones each time, and nobody else's."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from qlaunch.plan.networks.model import Net, Route

IPv4Network = ipaddress.IPv4Network


def _pool() -> Iterator[IPv4Network]:
    """The subnets that `auto` chooses from, in their order."""
    for third in range(150, 255):
        yield IPv4Network((0xC0A80000 | third << 8, 24))
    for second in range(150, 255):
        yield IPv4Network((0x0A000000 | second << 16, 24))
    for second in range(20, 32):
        yield IPv4Network((0xAC100000 | (second - 16) << 16, 24))


def free_subnet(routes: Iterable[Route], taken: Iterable[str], kept: str | None) -> str | None:
    """This computer's address in the first subnet that overlaps with no route (but default ones)
    and none of `taken`; `kept`, the one from last time, if it still is free. None when all are."""
    used = [ipaddress.ip_network(route.to) for route in routes]
    used = [net for net in used if net.version == 4 and net.prefixlen > 0]
    used += [ipaddress.ip_interface(address).network for address in taken]
    if kept is not None and _free(ipaddress.IPv4Interface(kept).network, used):
        return kept
    for subnet in _pool():
        if _free(subnet, used):
            return f"{subnet.network_address + 1}/{subnet.prefixlen}"
    return None


def _free(subnet: IPv4Network, used: Iterable[object]) -> bool:
    return not any(isinstance(net, IPv4Network) and net.overlaps(subnet) for net in used)


def private_prefix(computer: str, name: str) -> str:
    """This computer's address in a private IPv6 prefix (RFC 4193) of the network `name`."""
    chosen = hashlib.sha256(f"{computer}\0ula\0{name}".encode()).digest()[:5]
    return f"{ipaddress.IPv6Address(bytes([0xFD]) + chosen + bytes(9) + bytes([1]))}/64"


def bridge_mac(computer: str, name: str) -> str:
    """A MAC address for the bridge of the network `name`."""
    chosen = hashlib.sha256(f"{computer}\0bridge\0{name}".encode()).digest()[:3]
    return (b"\x52\x54\x01" + chosen).hex(":")


@lru_cache(maxsize=4096)
def by_mac(prefix: ipaddress.IPv6Network, mac: str) -> str:
    """The address that a guest with `mac` makes for itself in `prefix` (EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    ident = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(prefix.network_address.packed[:8] + ident))


LINK_LOCAL = ipaddress.IPv6Network("fe80::/64")


def guest_address(
    net: Net, mac: str, taken: Collection[str], given: Mapping[str, str]
) -> str | None:
    """The IPv4 address of the guest with `mac`: the one that is kept for it, the one it had before
    (`given`), or one that its MAC chooses, the next free one if that is `taken`. None without a
    range, or when the range is full."""
    kept = {each.mac.lower(): each.ipv4 for each in net.kept if each.ipv4}
    if mac.lower() in kept:
        return kept[mac.lower()]
    if net.range is None:
        return None
    first, last = (int(ipaddress.IPv4Address(end)) for end in net.range)
    used = {*taken, *kept.values(), net.gateway}
    before = given.get(mac)
    if before and before not in used and first <= int(ipaddress.IPv4Address(before)) <= last:
        return before
    others = {address for owner, address in given.items() if owner != mac}
    size = last - first + 1
    start = int.from_bytes(hashlib.sha256(mac.encode()).digest()[:4], "big")
    order = [
        str(ipaddress.IPv4Address(first + (start + step) % size)) for step in range(min(size, 4096))
    ]
    free = [address for address in order if address not in used]
    # What another guest had before is taken last: it may come back.
    return next((address for address in free if address not in others), next(iter(free), None))
