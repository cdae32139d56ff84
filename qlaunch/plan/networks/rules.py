"""The whole firewall of qlaunch as one nftables transaction: two tables, replaced at once.

A running stream does not notice: address translation lives in conntrack. The fingerprint of the
rules is the name of an empty chain, so that it comes and goes with them. Names may be no keyword of
nft's, so ours have prefixes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qlaunch.plan.forwards import ANY4, ANY6, Forward
from qlaunch.plan.networks.addresses import by_mac
from qlaunch.plan.networks.filters import bridge_table
from qlaunch.plan.networks.model import Desired, Net
from qlaunch.plan.networks.names import digest
from qlaunch.plan.networks.words import MARK, a_chain, a_set, quoted

TABLES = ("inet qlaunch", "bridge qlaunch")
FINGERPRINT = "fp_"
# What addresses guests use, learnt from what they send and kept over every change of the rules: the
# only way to know them on a bridge whose DHCP is somebody else's. After the filter: nothing forged.
LEARNT = "bridge qlaunch_learnt"
LEARNT_SETS = ("ql_seen4", "ql_seen6")
_MOST_LEARNT, _LEARNT_FOR = 65535, "1h"
LEARNING = "".join(
    f"add {line}\n"
    for line in (
        f"table {LEARNT}",
        *(
            f"set {LEARNT} {name} {{ type ifname . ether_addr . {kind};"
            f" flags dynamic, timeout; timeout {_LEARNT_FOR}; size {_MOST_LEARNT}; }}"
            for name, kind in zip(LEARNT_SETS, ("ipv4_addr", "ipv6_addr"), strict=True)
        ),
        f"chain {LEARNT} learn {{ type filter hook prerouting priority -200; }}",
    )
) + "".join(
    f"{line}\n"
    for line in (
        f"flush chain {LEARNT} learn",
        f'add rule {LEARNT} learn iifname "qlt*" ether type arp arp saddr ip != 0.0.0.0'
        " update @ql_seen4 { iifname . ether saddr . arp saddr ip }",
        f'add rule {LEARNT} learn iifname "qlt*" icmpv6 type nd-neighbor-solicit'
        " ip6 saddr != { ::, fe80::/10, ff00::/8 }"
        " update @ql_seen6 { iifname . ether saddr . ip6 saddr }",
        f'add rule {LEARNT} learn iifname "qlt*" icmpv6 type nd-neighbor-advert'
        " ip6 saddr != { ::, fe80::/10, ff00::/8 }"
        " update @ql_seen6 { iifname . ether saddr . ip6 saddr }",
    )
)
_ICMP6 = (
    "nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, echo-request,"
    " mld-listener-report, mld2-listener-report, mld-listener-done"
)


def rules(desired: Desired) -> tuple[str, str]:
    """The transaction that makes the rules of `desired`, and their fingerprint; the fingerprint is
    empty where no rule is needed."""
    # Added before deleted: no error where there is none, and no moment without rules.
    clear = "".join(f"add table {table}\ndelete table {table}\n" for table in TABLES)
    if not any(net.managed for net in desired.nets) and not desired.cards:
        return f"{clear}add table {LEARNT}\ndelete table {LEARNT}\n", ""
    body = "\n".join([*_inet_table(desired), *bridge_table(desired)]) + "\n"
    mark = digest(body)
    return clear + LEARNING + body.replace(MARK, f"{FINGERPRINT}{mark}"), mark


def _inet_table(desired: Desired) -> Iterator[str]:
    nets = [net for net in desired.nets if net.ruled]
    bridges = {net.name: net.bridge for net in nets}
    pairs = [
        f"{quoted(net.bridge)} . {quoted(bridges[other])}"
        for net in nets
        for other in net.allow
        if other in bridges
    ]
    outbound = [quoted(net.bridge) for net in nets if net.mode in ("nat", "routed")]
    routed = [quoted(net.bridge) for net in nets if net.mode == "routed"]
    yield "table inet qlaunch {"
    yield f"  chain {MARK} {{ }}"
    yield a_set("ql_bridges", "ifname", [quoted(net.bridge) for net in nets])
    yield a_set("ql_outbound", "ifname", outbound)
    yield a_set("ql_routed", "ifname", routed)
    yield a_set("ql_allowed", "ifname . ifname", pairs)
    yield from _forward_maps(desired)
    yield a_chain("ql_dnat", _dnat())
    hook = "type nat hook prerouting priority dstnat; policy accept"
    yield a_chain("prerouting", ["meta l4proto { tcp, udp } jump ql_dnat"], hook)
    # nft 1.0.6 refuses the name `dstnat` for the output hook.
    hook = "type nat hook output priority -100; policy accept"
    yield a_chain("output", ["meta l4proto { tcp, udp } jump ql_dnat"], hook)
    hook = "type nat hook postrouting priority srcnat; policy accept"
    managed = [net for net in desired.nets if net.managed]
    yield a_chain("postrouting", [line for net in managed for line in _masquerade(net)], hook)
    hook = "type filter hook forward priority filter; policy accept"
    jumps = ["iifname @ql_bridges jump ql_from_guest", "oifname @ql_bridges jump ql_to_guest"]
    yield a_chain("forward", jumps, hook)
    yield a_chain("ql_from_guest", _from_guest(nets))
    yield a_chain("ql_to_guest", _to_guest())
    hook = "type filter hook input priority filter; policy accept"
    yield a_chain("input", ["iifname @ql_bridges jump ql_to_host"], hook)
    yield a_chain("ql_to_host", _to_host(nets))
    yield "}"


_STATES = "ct state vmap { established : accept, related : accept, invalid : drop }"


def _from_guest(nets: Iterable[Net]) -> Iterator[str]:
    nets = list(nets)
    yield _STATES
    for net in nets:  # whatever the filter of a card says, nobody sends as somebody elsewhere
        at = f"iifname {quoted(net.bridge)}"
        yield f"{at} ip saddr != {net.net4} drop" if net.net4 else f"{at} meta nfproto ipv4 drop"
        yield f"{at} ip6 saddr != {net.net6} drop" if net.net6 else f"{at} meta nfproto ipv6 drop"
    yield "ct status dnat accept"
    yield "iifname . oifname @ql_allowed accept"
    yield "iifname @ql_outbound oifname != @ql_bridges accept"
    for net in nets:  # br_netfilter shows us what a bridge forwards, too
        yield f"iifname {quoted(net.bridge)} oifname {quoted(net.bridge)} accept"
    yield "reject with icmpx admin-prohibited"


def _to_guest() -> Iterator[str]:
    yield _STATES
    yield "ct status dnat accept"
    yield "iifname . oifname @ql_allowed accept"
    yield "oifname @ql_routed accept"
    yield "reject with icmpx admin-prohibited"


def _to_host(nets: Iterable[Net]) -> Iterator[str]:
    yield _STATES
    for net in nets:
        if net.host == "full":
            continue
        at = f"iifname {quoted(net.bridge)}"
        yield f"{at} udp dport {{ 67, 547 }} accept"
        if net.host == "services":
            yield f"{at} udp dport 53 accept"
            yield f"{at} tcp dport 53 accept"
            yield f"{at} icmp type echo-request accept"
        yield f"{at} icmpv6 type {{ {_ICMP6} }} accept"
        yield f"{at} reject with icmpx admin-prohibited"


def _masquerade(net: Net) -> Iterator[str]:
    to = f"oifname {quoted(net.bridge)} ct status dnat masquerade"
    for word, subnet, local in (
        ("ip", net.net4, "{ 224.0.0.0/24, 255.255.255.255 }"),
        ("ip6", net.net6, "ff02::/16"),
    ):
        if subnet is None:
            continue
        if net.mode == "nat":
            away = f"{word} saddr {subnet} {word} daddr != {subnet}"
            yield f"{word} saddr {subnet} {word} daddr {local} return"
            yield f"{away} meta l4proto {{ tcp, udp }} masquerade to :1024-65535"
            yield f"{away} masquerade"
        # A guest that uses a forward of its own network: the answer must come back through here.
        yield f"{word} saddr {subnet} {word} daddr {subnet} {to}"
        if net.mode == "isolated":  # its guests have no route to whoever asks
            yield f"{word} daddr {subnet} {to}"


def _dnat() -> Iterator[str]:
    key = "meta l4proto . th dport map"
    for word, number, loopback in (("ip", 4, "127.0.0.0/8"), ("ip6", 6, "::1")):
        to = f"dnat {word} addr . port to"
        yield f"meta nfproto ipv{number} {to} {word} daddr . {key} @ql_one{number}"
        ours = f"meta nfproto ipv{number} fib daddr type local {word} daddr != {loopback}"
        yield f"{ours} {to} {key} @ql_any{number}"


def _forward_maps(desired: Desired) -> Iterator[str]:
    found = list(all_forwards(desired))
    for number, any_address, kind in ((4, ANY4, "ipv4_addr"), (6, ANY6, "ipv6_addr")):
        mine = [forward for forward in found if forward.version == number]
        to = f"{kind} . inet_service"
        wild = [f"{_key(each)} : {_to(each)}" for each in mine if each.address == any_address]
        one = [
            f"{each.address} . {_key(each)} : {_to(each)}"
            for each in mine
            if each.address != any_address
        ]
        key = "inet_proto . inet_service"
        yield a_set(f"ql_any{number}", f"{key} : {to}", wild, "map")
        yield a_set(f"ql_one{number}", f"{kind} . {key} : {to}", one, "map")


def _key(forward: Forward) -> str:
    return f"{forward.proto} . {forward.port}"


def _to(forward: Forward) -> str:
    return f"{forward.target} . {forward.to_port}"


def all_forwards(desired: Desired) -> Iterator[Forward]:
    """Every forward that the kernel carries out, each with its target."""
    seen: set[tuple[str, str, int]] = set()
    for forward in _every(desired):
        place = (forward.proto, forward.address, forward.port)
        if place not in seen:  # nft refuses the whole transaction for one that is there twice
            seen.add(place)
            yield forward


def _every(desired: Desired) -> Iterator[Forward]:
    for net in desired.nets:
        if not net.managed:
            continue
        yield from (Forward.parse(text, ANY4) for text in net.forwards)
        for card in desired.cards_of(net):
            six = card.ipv6 or (by_mac(net.net6, card.mac) if net.net6 else None)
            for each in card.outer_forwards:
                target = card.ipv4 if each.version == 4 else six
                if target:
                    yield Forward(each.proto, each.address, each.port, each.to_port, target)
