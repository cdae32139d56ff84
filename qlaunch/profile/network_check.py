"""What a network's keys have to do with each other, as far as the file alone can tell."""

from __future__ import annotations

import ipaddress
from typing import Any

from qlaunch.profile.findings import Findings, shown
from qlaunch.profile.network import AUTO, MANAGED, NONE, Network
from qlaunch.profile.tree import Node

LEAST_IPV6_MTU = 1280
_DECIDED = ("address", "ipv6", "stp", "forward", "dhcp", "dns", "isolation", "reservation")


def check_network(network: Network, tree: Node, findings: Findings) -> None:
    """Put into `findings` what does not fit together in `network`, which `tree` says."""
    _Check(network, tree, findings).all()


class _Check:
    def __init__(self, network: Network, tree: Node, findings: Findings) -> None:
        self._network = network
        self._tree = tree
        self._findings = findings
        self._subnet4: ipaddress.IPv4Network | None = None
        self._own4: ipaddress.IPv4Address | None = None
        self._subnet6: ipaddress.IPv6Network | None = None

    def all(self) -> None:
        self._mode()
        self._addresses()
        self._range()
        self._mtu()
        self._reservations()
        self._numbers()

    def _say(self, name: str, message: str, hint: str | None = None) -> None:
        self._findings.add(self._node(name), name, message, hint)

    def _node(self, name: str) -> Node:
        """The node that says `name`, or the nearest one above it."""
        node = self._tree
        for step in name.replace("[", ".").replace("]", "").split("."):
            value: Any = node.value
            if isinstance(value, dict) and step in value:
                node = value[step]
            elif isinstance(value, list):
                node = next((n for at, n in enumerate(value) if _is(n, at, step)), node)
        return node

    def _mode(self) -> None:
        network, mode = self._network, self._network.mode or "nat"
        if mode in ("bridge", "uplink") and not network.bridge:
            self._say("bridge", f"is missing: `{mode}` needs it", 'write bridge = "br0"')
        if mode == "uplink" and not network.uplink:
            self._say("uplink", "is missing: `uplink` needs it", 'write uplink = "eth0"')
        if mode != "uplink" and network.uplink:
            self._say("uplink", f"has no meaning where mode is {mode!r}", 'write mode = "uplink"')
        if mode not in MANAGED:
            for key in _DECIDED:
                if key in self._tree.value:
                    hint = f"leave it out, or choose another mode than {mode!r}"
                    self._say(key, "is not qlaunch's to decide on this bridge", hint)

    def _addresses(self) -> None:
        network = self._network
        if network.address not in (None, AUTO, NONE):
            found = _read(ipaddress.IPv4Interface, network.address)
            if found is None or not 8 <= found.network.prefixlen <= 30:
                self._say(
                    "address", f"{shown(network.address)} is no address of a subnet of guests"
                )
            elif found.ip in (found.network.network_address, found.network.broadcast_address):
                hint = f'write address = "{found.network.network_address + 1}/'
                hint += f'{found.network.prefixlen}"'
                self._say("address", f"{found.ip} is the subnet's own or broadcast address", hint)
            else:
                self._subnet4, self._own4 = found.network, found.ip
        if network.ipv6 not in (None, AUTO, NONE):
            six = _read(ipaddress.IPv6Interface, network.ipv6)
            if six is None or six.network.prefixlen != 64:
                hint = 'write ipv6 = "fd00:150::1/64"'
                self._say("ipv6", f"{shown(network.ipv6)} is no address with a /64", hint)
            elif six.ip == six.network.network_address:
                hint = f'write ipv6 = "{six.ip + 1}/64"'
                self._say("ipv6", f"{six.ip} is the prefix itself", hint)
            else:
                self._subnet6 = six.network

    def _range(self) -> None:
        said = self._network.dhcp.range
        if said is None:
            return
        ends = [_read(ipaddress.IPv4Address, part.strip()) for part in said.split("-")]
        first, last = ends[0], ends[-1]
        if first is None or last is None:
            self._say("dhcp.range", f"{shown(said)} is no range of IPv4 addresses")
        elif last < first:
            self._say("dhcp.range", "ends before it begins", f'write range = "{last}-{first}"')
        elif self._subnet4 is None:
            hint = f'write address = "{first - 1 if int(first) else first}/24"'
            self._say("dhcp.range", "needs an address that is written down", hint)
        elif first not in self._subnet4 or last not in self._subnet4:
            self._say("dhcp.range", f"{shown(said)} is not inside {self._subnet4}")

    def _mtu(self) -> None:
        network = self._network
        if network.mtu is not None and network.mtu < LEAST_IPV6_MTU and network.ipv6 != NONE:
            hint = f'write ipv6 = "none", or at least {LEAST_IPV6_MTU}'
            self._say("mtu", f"IPv6 needs packets of {LEAST_IPV6_MTU} bytes", hint)

    def _reservations(self) -> None:
        macs: dict[str, str] = {}
        addresses: dict[str, str] = {}
        for at, each in enumerate(self._network.reservation):
            name = f"reservation.{each.id}" if each.id else f"reservation[{at}]"
            if each.mac and (first := macs.setdefault(each.mac.lower(), name)) != name:
                self._say(f"{name}.mac", f"{each.mac} is already that of {first}")
            if each.ipv4 is not None:
                self._inside(f"{name}.ipv4", each.ipv4)
                if (first := addresses.setdefault(each.ipv4, name)) != name:
                    self._say(f"{name}.ipv4", f"{each.ipv4} is already that of {first}")
            if each.ipv6 is not None:
                self._inside(f"{name}.ipv6", each.ipv6)

    def _inside(self, name: str, address: str) -> None:
        """See that `address` is one of a guest in this network."""
        found = _read(ipaddress.ip_address, address)
        if found is None:
            self._say(name, f"{shown(address)} is no IP address")
            return
        subnet = self._subnet4 if found.version == 4 else self._subnet6
        key = "address" if found.version == 4 else "ipv6"
        if subnet is None:
            self._say(name, f"needs a network whose {key} is written down")
        elif found not in subnet or found == self._own4:
            self._say(name, f"{found} is no guest's address in {subnet}")

    def _numbers(self) -> None:
        """Addresses whose pattern lets more through than there is."""
        for at, said in enumerate(self._network.dns.servers):
            if _read(ipaddress.ip_address, said) is None:
                self._say(f"dns.servers[{at}]", f"{shown(said)} is no IP address")
        for at, said in enumerate(self._network.dns.names):
            if _read(ipaddress.ip_address, said.partition("=")[2]) is None:
                self._say(f"dns.names[{at}]", f"{shown(said)} has no IP address after the =")
        for at, said in enumerate(self._network.forward):
            target = said.rpartition(":")[0]
            address = target[target.rfind("[") + 1 : -1] if target.endswith("]") else target
            address = address if target.endswith("]") else address.rpartition(":")[2]
            self._inside(f"forward[{at}]", address)


def _read(kind: Any, text: str) -> Any:
    """`text` as an address of `kind`; None when it is none."""
    try:
        return kind(text)
    except ValueError:
        return None


def _is(node: Node, at: int, step: str) -> bool:
    """Whether `node` is the item number or id `step` of its list."""
    if step == str(at):
        return True
    said = node.value.get("id") if isinstance(node.value, dict) else None
    return said is not None and said.value == step
