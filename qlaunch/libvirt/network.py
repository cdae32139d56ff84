"""A network of libvirt as a network file of qlaunch's."""

from __future__ import annotations

import ipaddress
import re

from qlaunch.libvirt import words
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.imported import Imported
from qlaunch.libvirt.report import Entry, Report
from qlaunch.libvirt.text import text_of
from qlaunch.libvirt.wish import Wish
from qlaunch.libvirt.xml import Document
from qlaunch.profile.network import MANAGED, NETWORK_NAME, Network

_MODES = {"nat": "nat", "route": "routed", "open": "open", "bridge": "bridge"}
_PLAIN: dict[str, object] = {"mode": "nat", "stp": True, "dns.enabled": True, "dns.domain": "vm"}


def import_network(document: Document, shown: str, *, called: str | None = None) -> Imported:
    """The network in `document`; `called` is a name instead of its own."""
    report = Report()
    wish = Wish(report, cls=Network)
    for mended in document.mended:
        report.entries.append(Entry("mended", mended.line, "file", mended.message))
    root = document.root
    said = root.within("name").words()
    name = called or re.sub(r"[^a-z0-9_-]", "-", said.lower())[:15].strip("-_") or "imported"
    if said and name != said:
        wish.say(root.within("name"), "title", said)
    mode = _mode(root, wish)
    _bridge(root, wish, mode)
    if mode in MANAGED:
        _addresses(root, wish)
        _names(root, wish)
    _rest(root, wish, mode)
    report.leftovers(root)
    for table, keys in wish.tables.items():
        for key in [key for key in keys if keys[key] == _PLAIN.get(f"{table}.{key}".lstrip("."))]:
            del keys[key]
    entries = tuple(report.ordered())
    return Imported(name=name, text=text_of(wish, shown, entries), report=entries, kind="network")


def is_name(name: str) -> bool:
    return bool(re.fullmatch(NETWORK_NAME, name))


def _mode(root: Element, wish: Wish) -> str:
    forward = root.first("forward")
    if forward is None:
        wish.say(root, "mode", "isolated")
        return "isolated"
    said = forward.attribute("mode") or "nat"
    mode = _MODES.get(said)
    if mode is None:
        what = f"there are no networks of the mode {said[:40]!r}: it is isolated"
        wish.report.unsupported(forward, what, attribute="mode")
        mode = "isolated"
    if mode == "bridge" and root.first("bridge") is None:
        what = (
            'guests on an interface itself are not possible; mode = "uplink" makes a bridge of it'
        )
        wish.report.unsupported(forward, what)
        mode = "isolated"
    wish.say(forward, "mode", mode)
    for nat in forward.each("nat"):
        wish.report.different(nat, "the kernel chooses addresses and ports")
    if forward.attribute("dev") or forward.first("interface"):
        what = "guests reach the outside the way that this computer does"
        forward.within("interface").take()
        wish.report.different(forward, what, attribute="dev")
    return mode


def _bridge(root: Element, wish: Wish, mode: str) -> None:
    bridge = root.within("bridge")
    name = bridge.attribute("name")
    if name and mode == "bridge":
        wish.say(bridge, "bridge", name)
    elif name and name.startswith("virbr"):
        what = "the bridge is called ql-NAME, so that both can be there"
        wish.report.different(bridge, what, attribute="name")
    elif name:
        wish.say(bridge, "bridge", name)
    if mode in MANAGED and bridge.attribute("stp"):
        wish.say(bridge, "stp", bridge.is_on("stp"))
    bridge.attribute("stp")
    if bridge.attribute("delay") not in ("", "0"):
        wish.report.different(bridge, "the bridge forwards at once", attribute="delay")
    if bridge.attribute("macTableManager"):
        wish.report.unneeded(bridge, "the kernel's choice", attribute="macTableManager")
    size = words.number(root.within("mtu").attribute("size"))
    if size is not None:
        wish.say(root.within("mtu"), "mtu", size)


def _addresses(root: Element, wish: Wish) -> None:
    found: set[int] = set()
    for address in root.each("ip"):
        try:
            own = ipaddress.ip_interface(
                f"{address.attribute('address')}/"
                f"{address.attribute('prefix') or address.attribute('netmask') or '24'}"
            )
        except ValueError:
            wish.report.unsupported(address, "is no address")
            continue
        address.attribute("family")
        address.attribute("localPtr")
        for name in ("prefix", "netmask"):
            address.attribute(name)
        if own.version in found:
            wish.report.unsupported(address, "a network has one address of each version")
            continue
        found.add(own.version)
        wish.say(address, "address" if own.version == 4 else "ipv6", str(own))
        _dhcp(address, own.version, wish)
    for version, key in ((4, "address"), (6, "ipv6")):
        if version not in found:
            wish.say(root, key, "none")
    if not any(child.tag == "ip" and child.first("dhcp") for child in root.children):
        wish.say(root, "dhcp.enabled", value=False)


def _dhcp(address: Element, version: int, wish: Wish) -> None:
    dhcp = address.first("dhcp")
    if dhcp is None:
        return
    ranges = list(dhcp.each("range"))
    for number, each in enumerate(ranges):
        first, last = each.attribute("start"), each.attribute("end")
        if version == 6:
            wish.report.different(each, "addresses of guests come from the whole prefix")
        elif number:
            wish.report.unsupported(each, "a network has one range")
        else:
            wish.say(each, "dhcp.range", f"{first}-{last}")
            lease = each.first("lease")
            if lease is not None:
                _lease(lease, wish)
    for host in dhcp.each("host"):
        mac, name = host.attribute("mac"), host.attribute("name")
        if not mac:
            wish.report.unsupported(host, "an address is kept for a MAC address")
            continue
        item = wish.item("reservation", name or f"host{len(wish.items.get('reservation', ()))}")
        wish.put(host, "reservation", item, "mac", mac.lower())
        wish.put(host, "reservation", item, f"ipv{version}", host.attribute("ip"))
        host.attribute("id")
    boot = dhcp.first("bootp")
    if boot is not None:
        wish.report.unsupported(boot, "there is no boot server in a network")


def _lease(lease: Element, wish: Wish) -> None:
    scales = {"seconds": 1, "minutes": 60, "hours": 3600}
    scale = scales.get(lease.attribute("unit") or "minutes")
    expiry = words.number(lease.attribute("expiry"))
    if expiry and scale:
        wish.say(lease, "dhcp.lease", float(expiry * scale))


def _names(root: Element, wish: Wish) -> None:
    domain = root.within("domain")
    if domain.attribute("name"):
        wish.say(domain, "dns.domain", domain.attribute("name"))
    if domain.attribute("localOnly") == "no":
        what = "names that end so are the network's own"
        wish.report.different(domain, what, attribute="localOnly")
    dns = root.first("dns")
    if dns is None:
        return
    if dns.attribute("enable") == "no":
        wish.say(dns, "dns.enabled", value=False)
    servers = []
    for forwarder in dns.each("forwarder"):
        if forwarder.attribute("domain"):
            what = "resolvers are asked for all names"
            wish.report.different(forwarder, what, attribute="domain")
        if forwarder.attribute("addr"):
            servers.append(forwarder.attribute("addr"))
    if servers:
        wish.say(dns, "dns.servers", tuple(servers[:256]))
    names = [
        f"{name.words()}={host.attribute('ip')}"
        for host in dns.each("host")
        for name in host.each("hostname")
    ]
    if names:
        wish.say(dns, "dns.names", tuple(names[:256]))
    dns.attribute("forwardPlainNames")


def _rest(root: Element, wish: Wish, mode: str) -> None:
    if root.within("port").attribute("isolated") == "yes" and mode in MANAGED:
        wish.say(root.within("port"), "isolation.guests", value=True)
    for tag, why in (
        ("uuid", "networks are known by their names"),
        ("mac", "the bridge's address is made from its name"),
        ("metadata", "notes of other programs"),
    ):
        element = root.first(tag)
        if element is not None:
            wish.report.unneeded(element, why)
    for name in ("connections", "ipv6", "trustGuestRxFilters"):
        if root.attribute(name):
            wish.report.unneeded(root, "the kernel's choice", attribute=name)
