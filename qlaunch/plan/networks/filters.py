"""The filter of each card: what its guest may send, whatever it claims to be.

All of it is looked at where a frame enters the bridge, before anybody else has seen it. `clean`
knows the IPv4 address from the first packet on, because qlaunch itself gives it. Of IPv6 a guest
may choose any address in the prefix that is nobody else's: guests of today make up new ones
every day.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from qlaunch.plan.networks.addresses import LINK_LOCAL, by_mac
from qlaunch.plan.networks.model import Card, Desired, Net
from qlaunch.plan.networks.words import MARK, a_chain, a_set, quoted


def bridge_table(desired: Desired) -> Iterator[str]:
    """The lines of the table of the bridge family."""
    filtered = [card for card in desired.cards if card.filter != "none"]
    clean = [card for card in filtered if card.filter == "clean"]
    exact = [card for card in clean if card.ipv4]
    yield "table bridge qlaunch {"
    yield f"  chain {MARK} {{ }}"
    yield a_set("ql_ports", "ifname", [quoted(card.ifname) for card in filtered])
    yield a_set("ql_clean", "ifname", [quoted(card.ifname) for card in clean])
    yield a_set("ql_exact", "ifname", [quoted(card.ifname) for card in exact])
    yield a_set(
        "ql_mac", "ifname . ether_addr", [f"{quoted(c.ifname)} . {c.mac}" for c in filtered]
    )
    yield a_set("ql_ip4", "ifname . ipv4_addr", [f"{quoted(c.ifname)} . {c.ipv4}" for c in exact])
    own = [f"{quoted(card.ifname)} . {at}" for card in clean for at in own6(card, desired)]
    yield a_set("ql_own6", "ifname . ipv6_addr", own)
    yield a_set("ql_taken6", "ipv6_addr", sorted(taken6(desired)))
    hook = "type filter hook prerouting priority dstnat; policy accept"
    yield a_chain("prerouting", ["iifname @ql_ports jump ql_port"], hook)
    yield a_chain("ql_port", _PORT)
    yield a_chain("ql_clean_port", _CLEAN)
    yield a_chain("ql_arp", _ARP)
    yield a_chain("ql_four", _FOUR)
    yield a_chain("ql_six", [*_SIX, *_prefixes(desired, clean), "drop"])
    yield a_chain("ql_advert", [*_adverts(desired, clean), "drop"])
    echoes = [
        f"iifname {quoted(card.ifname)} oifname {quoted(card.ifname)}"
        " ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop"
        for card in desired.cards
        if card.outer_forwards
    ]
    # A port that may send back out of itself (see `hairpin`) does not repeat the guest's own calls.
    hook = "type filter hook forward priority filter; policy accept"
    yield a_chain("forward", echoes, hook)
    yield "}"


_PORT = (
    "iifname . ether saddr != @ql_mac drop",
    'ether daddr 01:80:c2:00:00:00 drop comment "no spanning tree from a guest"',
    'udp sport 67 drop comment "no DHCP server in a guest"',
    "udp sport 547 drop",
    'icmpv6 type nd-router-advert drop comment "no router in a guest"',
    "iifname @ql_clean jump ql_clean_port",
)
_CLEAN = (
    "ether type arp goto ql_arp",
    "ether type ip goto ql_four",
    "ether type ip6 goto ql_six",
    'ether type 0x8035 accept comment "RARP: QEMU says where the guest is now"',
    "drop",
)
_ARP = (
    "iifname . arp saddr ether != @ql_mac drop",
    'arp saddr ip 0.0.0.0 accept comment "is this address free?"',
    "iifname != @ql_exact accept",
    "iifname . arp saddr ip @ql_ip4 accept",
    "drop",
)
_FOUR = (
    "iifname != @ql_exact accept",
    "iifname . ip saddr @ql_ip4 accept",
    "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
    "drop",
)
_SIX = (
    "icmpv6 type nd-neighbor-advert jump ql_advert",
    "ip6 saddr :: icmpv6 type"
    " { nd-neighbor-solicit, mld-listener-report, mld2-listener-report, nd-router-solicit } accept",
    "iifname . ip6 saddr @ql_own6 accept",
    "ip6 saddr @ql_taken6 drop",
)


def _prefixes(desired: Desired, clean: Iterable[Card]) -> Iterator[str]:
    """From which prefixes each card may choose an address."""
    for card in clean:
        net = desired.net(card.network)
        at = f"iifname {quoted(card.ifname)}"
        if net is not None and net.managed:
            listed = [str(LINK_LOCAL), *([str(net.net6)] if net.net6 else [])]
            yield f"{at} ip6 saddr {{ {', '.join(listed)} }} accept"
        else:  # a bridge of others: nobody knows its prefixes
            yield f"{at} ip6 saddr != ::/128 accept"


def _adverts(desired: Desired, clean: Iterable[Card]) -> Iterator[str]:
    """Which addresses each card may advertise: nft has no word for the target, which lies 40 + 8
    bytes behind the beginning of the IPv6 header."""
    taken = sorted(taken6(desired))
    for card in clean:
        mine = ", ".join(_number(at) for at in own6(card, desired))
        yield f"iifname {quoted(card.ifname)} @nh,384,128 {{ {mine} }} return"
    if taken:
        yield f"@nh,384,128 {{ {', '.join(_number(at) for at in taken)} }} drop"
    for card in clean:
        net = desired.net(card.network)
        at = f"iifname {quoted(card.ifname)}"
        if net is not None and net.managed:
            known = [LINK_LOCAL, *([net.net6] if net.net6 else [])]
            halves = ", ".join(f"0x{each.network_address.packed[:8].hex()}" for each in known)
            yield f"{at} @nh,384,64 {{ {halves} }} return"
        else:
            yield f"{at} return"


def own6(card: Card, desired: Desired) -> list[str]:
    """The IPv6 addresses that belong to `card`, by its MAC address or because they were given."""
    net = desired.net(card.network)
    return sorted({*_by_mac(card.mac, net), *([card.ipv6] if card.ipv6 else [])})


def _by_mac(mac: str, net: Net | None) -> Iterator[str]:
    yield by_mac(LINK_LOCAL, mac)
    if net is not None and net.net6:
        yield by_mac(net.net6, mac)


def taken6(desired: Desired) -> set[str]:
    """The IPv6 addresses that only their owners may use."""
    found = {at for card in desired.cards for at in own6(card, desired)}
    for net in desired.nets:
        if net.managed:
            found.update(_by_mac(net.mac, net))
            found.update(each.ipv6 for each in net.kept if each.ipv6)
            if net.gateway6:
                found.add(net.gateway6)
    return found


def _number(address: str) -> str:
    return f"0x{ipaddress.IPv6Address(address).packed.hex()}"
