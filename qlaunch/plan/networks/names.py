"""What dnsmasq is told: its configuration, and the files that it reads again on SIGHUP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from attrs import frozen

from qlaunch.plan.networks.model import Desired, Net


@frozen(kw_only=True)
class Folders:
    """Where a network's files are: `run` is gone after a reboot, `lib` stays. `user` is whom
    dnsmasq becomes; `resolver` is asked for other names where /etc/resolv.conf is of no use."""

    run: str
    lib: str
    user: str | None = None
    resolver: str | None = None


def config(net: Net, folders: Folders) -> str:
    """The configuration of the dnsmasq of `net`, a line for each option."""
    return "\n".join(_config(net, folders)) + "\n"


def digest(text: str) -> str:
    """A short name for `text`, other texts have others."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _config(net: Net, folders: Folders) -> Iterator[str]:
    yield from (
        "# written by qlaunch; changes are lost",
        f"interface={net.bridge}",
        "except-interface=lo",
        "bind-dynamic",
        "no-hosts",
        f"addn-hosts={folders.run}/hosts",
        f"dhcp-hostsfile={folders.run}/dhcp-hosts",
        f"pid-file={folders.run}/pid",
        f"dhcp-leasefile={folders.lib}/leases",
        f"log-facility={folders.run}/log",
        "dhcp-authoritative",
        "dhcp-no-override",
        "no-ping",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
    )
    if folders.user:
        yield f"user={folders.user}"
    yield from _names(net, folders.resolver) if net.dns else ("port=0",)
    yield from _dhcp4(net)
    yield from _dhcp6(net)


def _names(net: Net, resolver: str | None) -> Iterator[str]:
    yield from (
        f"domain={net.domain}",
        f"local=/{net.domain}/",
        "expand-hosts",
        "dhcp-fqdn",
        "domain-needed",
        "bogus-priv",
        "cache-size=1000",
    )
    servers = net.servers or ((resolver,) if resolver and net.dns_forward else ())
    if servers or not net.dns_forward:
        yield "no-resolv"
    yield from (f"server={server}" for server in servers if net.dns_forward)
    own = [at for at in (net.gateway, net.gateway6) if at]
    yield f"host-record=host.{net.domain},gateway.{net.domain},{','.join(own)}"


def _dhcp4(net: Net) -> Iterator[str]:
    if net.range is None or net.net4 is None:
        return
    first, last = net.range
    yield f"dhcp-range={first},{last},{net.net4.netmask},{net.lease}"
    yield f"dhcp-lease-max={net.net4.num_addresses}"
    if net.mode == "isolated":
        yield "dhcp-option=option:router"  # no default route to where nothing is
    if not net.dns:
        yield "dhcp-option=option:dns-server" + "".join(f",{s}" for s in net.servers if "." in s)
    if net.mtu:
        yield f"dhcp-option=option:mtu,{net.mtu}"


def _dhcp6(net: Net) -> Iterator[str]:
    prefix = net.net6
    if prefix is None:
        return
    first, last = prefix.network_address + 0x1000, prefix.network_address + 0xFFFF
    yield "enable-ra"
    yield f"dhcp-range={first},{last},slaac,ra-names,64,{net.lease}"
    if net.mode == "isolated":
        yield f"ra-param={net.bridge},0,0"  # a prefix, but no default route
    elif net.mtu:
        yield f"ra-param={net.bridge},mtu:{net.mtu},600,1800"


def dhcp_hosts(net: Net, desired: Desired) -> str:
    """The addresses that are kept, as dnsmasq's dhcp-hostsfile has them."""
    lines = {}
    for kept in net.kept:
        lines[kept.mac] = _host_line(kept.mac, kept.ipv4, kept.ipv6, kept.name)
    for card in desired.cards_of(net):
        lines[card.mac] = _host_line(card.mac, card.ipv4, card.ipv6, card.hostname)
    return "".join(f"{line}\n" for line in sorted(lines.values()))


def _host_line(mac: str, ipv4: str | None, ipv6: str | None, name: str) -> str:
    words = [mac, ipv4, f"[{ipv6}]" if ipv6 else None, name]
    return ",".join(word for word in words if word)


def hosts(net: Net, desired: Desired) -> str:
    """Names and addresses, as dnsmasq's addn-hosts has them."""
    lines = {f"{at} {name}" for name, at in net.names}
    for kept in net.kept:
        lines.update(f"{at} {kept.name}" for at in (kept.ipv4, kept.ipv6) if at)
    for card in desired.cards_of(net):
        if card.hostname:
            lines.update(f"{at} {card.hostname}" for at in (card.ipv4, card.ipv6) if at)
    return "".join(f"{line}\n" for line in sorted(lines))
