"""Networks as a computer has them: real bridges, dnsmasq, nftables, and guests that use them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlaunch.errors import ConflictError
from tests.netlab import Lab

pytestmark = pytest.mark.netns

NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "fd00:150::1/64"\n'


@pytest.fixture
def lab(own_place: Path) -> Iterator[Lab]:
    with Lab.opened(own_place) as here:
        yield here


def test_a_nat_network_gives_addresses_names_and_the_outside(lab: Lab) -> None:
    lab.network("lab", NAT + '[dns]\nnames = ["printer=192.168.150.9"]\nservers = ["203.0.113.2"]')
    lab.start()
    alpha, beta = lab.guest("alpha"), lab.guest("beta", ipv4="192.168.150.77")
    bridge = lab.host.link("ql-lab")
    assert bridge
    assert bridge["linkinfo"]["info_data"]["stp_state"] == 1
    assert bridge["ifalias"] == "qlaunch:net:lab"
    # Addresses are known before the guests ask, and they get those.
    assert alpha.lease() == alpha.attached.ipv4
    assert beta.lease() == beta.attached.ipv4 == "192.168.150.77"
    assert alpha.address6() == alpha.attached.ipv6
    leases = {each["machine"]: each["address"] for each in lab.ask("leases")["leases"]}
    assert leases == {"alpha": alpha.attached.ipv4, "beta": "192.168.150.77"}
    # Names, of guests, of this computer and of the file.
    gateway = "192.168.150.1"
    assert alpha.resolve("beta.vm", gateway) == "192.168.150.77"
    assert alpha.resolve("beta.vm", "fd00:150::1") == "192.168.150.77"
    assert alpha.resolve("host.vm", gateway) == gateway
    assert alpha.resolve("printer.vm", gateway) == "192.168.150.9"
    assert alpha.resolve("nobody.vm", gateway) is None
    # Guests reach each other, this computer, and the outside behind this computer's address.
    with lab.serving(lab.outside), lab.serving(beta.space, 81), lab.serving(lab.host, 82):
        assert lab.fetch(alpha.space, lab.SERVER) == f"hello {lab.HOST}"
        beta.address6()
        assert lab.fetch(alpha.space, lab.SERVER6) == f"hello {lab.HOST6}"
        assert lab.fetch(alpha.space, "192.168.150.77", 81) == f"hello {alpha.attached.ipv4}"
        assert lab.fetch(alpha.space, gateway, 82) == f"hello {alpha.attached.ipv4}"
        assert lab.fetch(lab.host, "192.168.150.77", 81) == f"hello {gateway}"
        # Nobody outside reaches them, also who knows the way.
        lab.outside.ip(f"route add 192.168.150.0/24 via {lab.HOST}")
        assert lab.unreached(lab.outside, "192.168.150.77", 81)
    assert alpha.pings(lab.SERVER)
    known = asyncio.run(lab.service.addresses("alpha", "net0"))
    assert known[alpha.attached.ipv4 or ""] == ("reservation", "lease", "learnt", "neighbour")
    assert known[alpha.attached.ipv6 or ""][:2] == ("reservation", "learnt")
    # What was learnt stays when the rules are changed.
    lab.guest("gamma")
    again = asyncio.run(lab.service.addresses("alpha", "net0"))
    assert "learnt" in again[alpha.attached.ipv4 or ""]
    assert lab.log() == ""


def test_forwards_lead_in_from_everywhere(lab: Lab) -> None:
    lab.network("lab", NAT)
    lab.start()
    forwards = ("tcp:0.0.0.0:8080:80", f"tcp:{lab.HOST}:8081:80", "tcp:[::]:8080:80")
    alpha = lab.guest("alpha", forwards=forwards)
    beta = lab.guest("beta")
    for guest in (alpha, beta):
        guest.lease()
        guest.address6()
    with lab.serving(alpha.space):
        assert lab.fetch(lab.outside, lab.HOST, 8080) == f"hello {lab.SERVER}"
        assert lab.fetch(lab.outside, lab.HOST, 8081) == f"hello {lab.SERVER}"
        assert lab.fetch(lab.outside, lab.HOST6, 8080) == f"hello {lab.SERVER6}"
        assert "hello" in lab.fetch(lab.host, lab.HOST, 8080)
        assert "hello" in lab.fetch(beta.space, lab.HOST, 8080)
        assert "hello" in lab.fetch(alpha.space, lab.HOST, 8080)  # its own: hairpin
        assert lab.unreached(lab.outside, lab.HOST, 8082)
        # While it runs, too.
        lab.ask("change", machine="alpha", nic="net0", forwards=["tcp:0.0.0.0:8082:80"])
        assert lab.fetch(lab.outside, lab.HOST, 8082) == f"hello {lab.SERVER}"
        assert lab.unreached(lab.outside, lab.HOST, 8080)
    with pytest.raises(ConflictError, match=r"port 8082 .tcp. already leads to alpha net0"):
        lab.attach("gamma", "lab", forwards=("tcp:0.0.0.0:8082:80",))
    with (
        lab.serving(lab.host, 8083),
        pytest.raises(ConflictError, match=r"port 8083 .tcp. is in use by python.* \(pid \d+\)"),
    ):
        lab.attach("gamma", "lab", forwards=("tcp:0.0.0.0:8083:80",))


def test_networks_are_kept_apart_unless_they_are_let(lab: Lab) -> None:
    lab.network("one", 'address = "10.1.0.1/24"\nipv6 = "fd00:1::1/64"')
    lab.network("two", 'address = "10.2.0.1/24"\nipv6 = "none"')
    lab.start()
    one, two = lab.guest("one", "one"), lab.guest("two", "two")
    other = lab.guest("other", "two")
    for guest in (one, two, other):
        guest.lease()
    with lab.serving(two.space):
        at = two.attached.ipv4 or ""
        assert lab.unreached(one.space, at)
        assert lab.fetch(other.space, at) == f"hello {other.attached.ipv4}"
        lab.network("one", 'address = "10.1.0.1/24"\n[isolation]\nallow = ["two"]')
        lab.up("one")
        assert "hello" in lab.fetch(one.space, at)
        lab.network("two", 'address = "10.2.0.1/24"\nipv6 = "none"\n[isolation]\nguests = true')
        lab.up("two")
        assert lab.unreached(other.space, at)


def test_an_isolated_network_has_no_way_out(lab: Lab) -> None:
    lab.network(
        "lab",
        'mode = "isolated"\naddress = "10.9.0.1/24"\nipv6 = "fd00:9::1/64"\n'
        '[isolation]\nhost = "services"',
    )
    lab.start()
    alpha, beta = lab.guest("alpha"), lab.guest("beta", forwards=("tcp:0.0.0.0:8080:80",))
    for guest in (alpha, beta):
        guest.lease()
        guest.address6()
    for version in ("-4", "-6"):
        routes = alpha.space.show(version, "route", "show", "default")
        assert routes == []
    alpha.space.ip("route add default via 10.9.0.1")
    assert alpha.resolve("beta.vm", "10.9.0.1") == beta.attached.ipv4
    with lab.serving(lab.outside), lab.serving(lab.host, 81), lab.serving(beta.space):
        assert lab.unreached(alpha.space, lab.SERVER)
        assert lab.unreached(alpha.space, "10.9.0.1", 81)
        assert "hello" in lab.fetch(alpha.space, beta.attached.ipv4 or "")
        # A forward leads in, though the guest has no way out.
        assert "hello" in lab.fetch(lab.outside, lab.HOST, 8080)
    assert alpha.pings("10.9.0.1")


def test_a_routed_network_keeps_the_addresses_of_its_guests(lab: Lab) -> None:
    lab.network("lab", 'mode = "routed"\naddress = "10.8.0.1/24"\nipv6 = "fd00:8::1/64"')
    lab.start()
    alpha = lab.guest("alpha")
    address, address6 = alpha.lease(), alpha.address6()
    lab.outside.ip(f"route add 10.8.0.0/24 via {lab.HOST}")
    lab.outside.ip(f"-6 route add fd00:8::/64 via {lab.HOST6}")
    with lab.serving(lab.outside), lab.serving(alpha.space):
        assert lab.fetch(alpha.space, lab.SERVER) == f"hello {address}"
        assert lab.fetch(alpha.space, lab.SERVER6) == f"hello {address6}"
        assert lab.fetch(lab.outside, address) == f"hello {lab.SERVER}"
        assert lab.fetch(lab.outside, address6) == f"hello {lab.SERVER6}"


def test_an_open_network_has_no_rule_of_ours(lab: Lab) -> None:
    lab.network("lab", 'mode = "open"\naddress = "10.7.0.1/24"\nipv6 = "none"\nstp = false')
    lab.start()
    alpha = lab.guest("alpha")
    address = alpha.lease()
    lab.outside.ip(f"route add 10.7.0.0/24 via {lab.HOST}")
    with lab.serving(lab.outside), lab.serving(alpha.space):
        assert lab.fetch(alpha.space, lab.SERVER) == f"hello {address}"
        assert lab.fetch(lab.outside, address) == f"hello {lab.SERVER}"
    bridge = lab.host.link("ql-lab")
    assert bridge
    assert bridge["linkinfo"]["info_data"]["stp_state"] == 0


def test_a_bridge_of_somebody_else_is_used_and_left_alone(lab: Lab) -> None:
    lab.network("lan", 'mode = "bridge"\nbridge = "br0"')
    lab.host.ip(
        "link add br0 type bridge",
        "link add port0 address 52:54:00:aa:00:01 type veth peer name port1",
        "link set port0 master br0",
        "link set br0 up",
    )
    before = lab.host.link("br0")
    assert before
    lab.start()
    one, two = lab.guest("one", "lan"), lab.guest("two", "lan")
    one.space.ip("address add 10.5.0.1/24 dev eth0")
    two.space.ip("address add 10.5.0.2/24 dev eth0")
    one.space.ip("address add 2001:db8:5::1/64 dev eth0 nodad")
    two.space.ip("address add 2001:db8:5::2/64 dev eth0 nodad")
    assert one.pings("10.5.0.2")
    assert one.pings("2001:db8:5::2")
    # Nobody gave them these addresses, and this computer has none there: they were seen.
    for guest, addresses in ((one, ["10.5.0.1", "2001:db8:5::1"]), (two, ["10.5.0.2"])):
        known = asyncio.run(lab.service.addresses(guest.name, "net0"))
        assert set(addresses) <= set(known)
        assert all("learnt" in known[each] for each in addresses)
    after = lab.host.link("br0")
    assert after
    assert after["address"] == before["address"]
    lab.ask("down", network="lan", force=True)
    for guest in (one, two):
        guest.close()
    assert lab.host.link("br0")


def test_the_default_network_takes_a_subnet_that_is_free(lab: Lab) -> None:
    lab.host.ip(
        "link add virbr0 type bridge",
        "address add 192.168.150.1/23 dev virbr0",
        "link set virbr0 up",
    )
    lab.network("lab", 'title = "whatever is free"')
    lab.start()
    assert lab.up("lab")["address"] == "192.168.152.1/24"
    lab.network("other", 'address = "192.168.151.1/24"')
    with pytest.raises(ConflictError, match=r"151.0/24 is in use: .*150.0/23 .virbr0"):
        lab.up("other")
    # It is kept, whatever becomes free.
    lab.ask("down", network="lab")
    lab.host.ip("link delete virbr0")
    assert lab.up("lab")["address"] == "192.168.152.1/24"
