"""Network files: what they may say, and how their mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaunch.errors import NotFoundError, ProfileError, QlaunchError
from qlaunch.profile.network import Network
from qlaunch.profile.network_load import load_network, loads_network

SHIPPED = Path(__file__).parent.parent / "networks"


def mistakes(text: str, name: str = "lab") -> list[str]:
    with pytest.raises(ProfileError) as caught:
        loads_network(f"schema = 1\n{text}", f"{name}.toml")
    return [f"{error} ({error.hint})" for error in (caught.value, *caught.value.more)]


def test_the_shipped_network_says_five_lines() -> None:
    network = load_network(SHIPPED / "default.toml")
    assert (network.name, network.mode, network.address, network.ipv6) == (
        "default", "nat", "auto", "auto",
    )  # fmt: skip
    lines = (SHIPPED / "default.toml").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 5


def test_everything_can_be_said_and_knows_its_place() -> None:
    text = """schema = 1
mode = "routed"
bridge = "ql-x"
autostart = true
address = "192.168.150.1/24"
ipv6 = "fd00:150::1/64"
mtu = 9000
stp = false
forward = ["8080:192.168.150.10:80", "udp:192.0.2.1:53:192.168.150.10:53",
           "[2001:db8::1]:80:[fd00:150::9]:80"]
[dhcp]
range = "192.168.150.100 - 192.168.150.199"
lease = "12h"
[dns]
domain = "lab.example.org"
servers = ["192.0.2.53", "2001:db8::53"]
names = ["printer=192.168.150.9"]
[isolation]
guests = true
allow = ["default"]
host = "services"
[[reservation]]
id = "printer"
mac = "52:54:00:00:00:09"
ipv4 = "192.168.150.9"
ipv6 = "fd00:150::9"
"""
    network = loads_network(text, "x.toml")
    assert network.dhcp.lease == 12 * 3600
    assert network.reservation[0].ipv4 == "192.168.150.9"
    assert network.where("dns.domain") == "x.toml:15: dns.domain"
    assert network.where("reservation.printer.mac") == "x.toml:24: reservation.printer.mac"


@pytest.mark.parametrize(
    "text, expected",
    [
        ('mode = "natt"', "lab.toml:2: mode: 'natt' is not one of nat, routed, isolated, open,"),
        ('mdoe = "nat"', "lab.toml:2: mdoe: there is no such key (did you mean 'mode'?)"),
        ("[dhcpp]", "lab.toml:2: dhcpp: there is no such table (did you mean 'dhcp'?)"),
        ('range = "1.1.1.1-2.2.2.2"', "'range' is a key of [dhcp]"),
        ('address = "192.168.150.0/24"', 'write address = "192.168.150.1/24"'),
        ('address = "192.168.150.300/24"', "'192.168.150.300/24' is no address of a subnet"),
        ('address = "10.0.0.1/32"', "'10.0.0.1/32' is no address of a subnet of guests"),
        ('ipv6 = "fd00::1/48"', "lab.toml:2: ipv6: 'fd00::1/48' is no address with a /64"),
        ('ipv6 = "fd00::/64"', 'write ipv6 = "fd00::1/64"'),
        ("mtu = 1000", "lab.toml:2: mtu: IPv6 needs packets of 1280 bytes"),
        ('mode = "bridge"', 'bridge: is missing: `bridge` needs it (write bridge = "br0")'),
        ('mode = "uplink"\nbridge = "br0"', "uplink: is missing"),
        ('uplink = "eth0"', "lab.toml:2: uplink: has no meaning where mode is 'nat'"),
        ('mode = "bridge"\nbridge = "br0"\nstp = true', "lab.toml:4: stp: is not qlaunch's"),
        ('bridge = "a-name-of-sixteen"', "is not the name of an interface"),
        ('[dhcp]\nrange = "10.0.0.9-10.0.0.2"', 'write range = "10.0.0.2-10.0.0.9"'),
        (
            '[dhcp]\nrange = "10.0.0.2-10.0.0.9"',
            'written down (write address = "10',
        ),
        ('address = "10.0.0.1/24"\n[dhcp]\nrange = "10.0.1.2-10.0.1.9"', "not inside 10.0.0.0/24"),
        ('[dns]\nservers = ["1.2.3"]', "lab.toml:3: dns.servers[0]: '1.2.3' is no IP address"),
        ('[dns]\nnames = ["a=1.2.3"]', "dns.names[0]: 'a=1.2.3' has no IP address after the ="),
        ('[[reservation]]\nid = "a"', "lab.toml:2: reservation.a.mac: is missing"),
        ('[[reservation]]\nid = "a"\nmac = "01:00:00:00:00:00"', "is not a unicast MAC address"),
        ('forward = ["80:80"]', "lab.toml:2: forward[0]: '80:80' is not a forward such as"),
        ('forward = ["80:10.0.0.9:80"]', "needs a network whose address is written down"),
        ('address = "10.0.0.1/24"\nforward = ["80:10.0.1.9:80"]', "no guest's address in 10.0.0.0"),
    ],
)
def test_a_mistake_is_told_with_file_line_key_and_a_way_out(text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(expected in each for each in found), found


def test_two_reservations_do_not_share_a_mac_or_an_address() -> None:
    item = '[[reservation]]\nid = "{}"\nmac = "52:54:00:00:00:{}"\nipv4 = "10.0.0.{}"\n'
    top = 'address = "10.0.0.1/24"\n'
    assert "reservation.b.mac: 52:54:00:00:00:01 is already that of reservation.a" in " ".join(
        mistakes(top + item.format("a", "01", 5) + item.format("b", "01", 6))
    )
    assert "reservation.b.ipv4: 10.0.0.5 is already that of reservation.a" in " ".join(
        mistakes(top + item.format("a", "01", 5) + item.format("b", "02", 5))
    )


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    assert len(mistakes('mode = "x"\nmtu = 1\n[dns]\ndomian = "vm"\n[isolation]\nhost = "no"')) == 4


def test_a_file_needs_its_schema_and_a_name_that_can_be_an_interface() -> None:
    with pytest.raises(ProfileError, match=r"lab\.toml:1: schema: is missing"):
        loads_network('mode = "nat"', "lab.toml")
    with pytest.raises(ProfileError, match="reads schema 1, the file says 2"):
        loads_network("schema = 2", "lab.toml")
    assert "no name for a network" in mistakes("", "My Lab")[0]


def test_a_network_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_network(tmp_path / "lab.toml")


_LINES = st.sampled_from(
    [
        'mode = "nat"', 'mode = "bridge"', 'bridge = "br0"', 'address = "none"', 'address = 5',
        'address = "10.1.2.3/8"', 'ipv6 = "::/64"', 'ipv6 = "::1/64"', "mtu = 68", "[dhcp]",
        'range = "1.1.1.1-1.1.1.1"', "[dns]", 'names = ["a=:::"]', "[isolation]", "guests = 1",
        "[[reservation]]", 'id = "a"', 'mac = "52:54:00:00:00:01"', 'ipv4 = "999.1.1.1"',
        'ipv6 = "1:2"', 'forward = ["1:1.1.1.1:1"]', 'forward = ["1:[::1]:1"]', "dns = 3",
        "x = [[]]",
    ]
)  # fmt: skip


@given(st.lists(_LINES, max_size=12))
def test_any_file_is_a_network_or_a_list_of_mistakes(lines: list[str]) -> None:
    try:
        network = loads_network("\n".join(["schema = 1", *lines]), "lab.toml")
    except QlaunchError:
        return
    assert isinstance(network, Network)
