"""Networks and kernels for tests of what is decided about them."""

from __future__ import annotations

from typing import Any

from qlaunch.plan.networks.decide import Surroundings, decide
from qlaunch.plan.networks.model import Address, Card, Desired, Kernel, Link, Net, Route
from qlaunch.plan.networks.names import Folders
from qlaunch.profile.network_load import loads_network

COMPUTER = "0123456789abcdef"
ROUTES = (
    Route(to="0.0.0.0/0", link=2, gateway="192.0.2.1"),
    Route(to="192.0.2.0/24", link=2),
    Route(to="::/0", link=2, gateway="fe80::1"),
)
LINKS = {
    "lo": Link(name="lo", index=1, up=True),
    "eth0": Link(name="eth0", index=2, up=True, carrier=True),
}
EMPTY = Kernel(
    links=LINKS,
    routes=ROUTES,
    sysctls={
        "net/ipv4/conf/eth0/forwarding": "0",
        "net/ipv6/conf/eth0/force_forwarding": "0",
        "net/ipv6/conf/all/force_forwarding": "0",
    },
)


def net(text: str = "", name: str = "lab", **around: Any) -> Net:
    """The network that the TOML `text` says, on a computer with one uplink."""
    wish = loads_network(f"schema = 1\n{text}", f"{name}.toml")
    return decide(wish, Surroundings(computer=COMPUTER, kernel=EMPTY, **around))


def card(number: int, network: str = "lab", **more: Any) -> Card:
    """A card with the MAC address and the address `number`."""
    said: dict[str, Any] = {
        "machine": f"m{number}",
        "nic": "net0",
        "network": network,
        "mac": f"52:54:00:00:00:{number:02x}",
        "ifname": f"qlt{number}",
        "index": 100 + number,
        "hostname": f"m{number}",
    }
    return Card(**(said | more))


def folders(name: str) -> Folders:
    return Folders(
        run=f"/run/qlaunch-netd/{name}", lib=f"/var/lib/qlaunch-netd/{name}", user="nobody"
    )


def address(index: int, text: str) -> Address:
    return Address(index=index, address=text)


NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "fd00:150::1/64"\n'
ISOLATED = (
    'mode = "isolated"\naddress = "10.9.0.1/24"\nipv6 = "none"\nmtu = 9000\n[dhcp]\n'
    'range = "10.9.0.100-10.9.0.199"\n[isolation]\nguests = true\nhost = "services"\n'
    '[[reservation]]\nid = "printer"\nmac = "52:54:00:AA:00:01"\nipv4 = "10.9.0.9"\n'
)
ROUTED = (
    'mode = "routed"\naddress = "10.8.0.1/24"\nipv6 = "fd00:8::1/64"\nstp = false\n'
    'forward = ["8080:10.8.0.9:80"]\n[isolation]\nallow = ["lab"]\n[dns]\nenabled = false\n'
)


def three() -> Desired:
    """Three networks of different modes and guests of every kind of filter."""
    return Desired(
        nets=(net(NAT), net(ISOLATED, "apart"), net(ROUTED, "shop")),
        cards=(
            card(
                1,
                ipv4="192.168.150.11",
                forwards=(
                    "tcp:0.0.0.0:8022:22", "udp:192.0.2.9:53:53", "tcp:[::]:8022:22",
                    "tcp:127.0.0.1:9:9",
                ),
            ),
            card(2, "apart", ipv4="10.9.0.102", filter="mac"),
            card(3, "shop", ipv4="10.8.0.13", ipv6="fd00:8::13"),
            card(4, filter="none", ipv4="192.168.150.14"),
            card(5, "lan", hostname="", filter="clean"),
        ),
    )  # fmt: skip
