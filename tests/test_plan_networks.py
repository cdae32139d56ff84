"""What is decided about networks: addresses, rules, names, and the way there."""

from __future__ import annotations

import ipaddress

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from qlaunch.errors import ConflictError
from qlaunch.plan.networks.addresses import free_subnet, guest_address, private_prefix
from qlaunch.plan.networks.decide import check_desired, settle_card
from qlaunch.plan.networks.model import Address, Desired, Kernel, Link, Route, Served
from qlaunch.plan.networks.names import config, dhcp_hosts, digest, hosts
from qlaunch.plan.networks.rules import rules
from qlaunch.plan.networks.steps import MakeBridge, SetSysctl, Step, steps
from tests.conftest import Golden
from tests.networks import (
    EMPTY,
    ISOLATED,
    LINKS,
    NAT,
    ROUTED,
    address,
    card,
    folders,
    net,
    three,
)

FOLDERS = {name: folders(name) for name in ("lab", "apart", "shop")}


def route(to: str) -> Route:
    return Route(to=to, link=2)


def words(found: tuple[Step, ...]) -> list[str]:
    return [step.about for step in found]


def settled(desired: Desired) -> Kernel:
    """A kernel in which `desired` is."""
    links = dict(LINKS)
    found: list[Address] = []
    for at, each in enumerate(desired.nets, 10):
        links[each.bridge] = Link(
            name=each.bridge, index=at, up=True, mac=each.mac, mtu=each.mtu or 1500, kind="bridge",
            alias=f"qlaunch:net:{each.name}", bridge={"stp_state": int(each.stp)},
        )  # fmt: skip
        found += [address(at, text) for text in (each.address, each.ipv6) if text]
    for one in desired.cards:
        owner = desired.net(one.network)
        if owner:
            links[one.ifname] = Link(
                name=one.ifname, index=one.index, up=True, alias=one.alias, kind="tun",
                carrier=True,
                master=links[owner.bridge].index,
                port={
                    "isolated": int(owner.apart), "bpdu_guard": int(one.filter != "none"),
                    "hairpin": 0,
                },
            )  # fmt: skip
    texts = {n.name: config(n, FOLDERS[n.name]) for n in desired.nets}
    served = [Served(network=name, config=digest(text)) for name, text in texts.items()]
    written = {n.name: digest(dhcp_hosts(n, desired) + hosts(n, desired)) for n in desired.nets}
    kernel = Kernel(
        links=links, addresses=tuple(found), routes=EMPTY.routes, sysctls=EMPTY.sysctls,
        rules=rules(desired)[1], served=tuple(served), hosts=written,
    )  # fmt: skip
    first = steps(desired, kernel, FOLDERS)
    wanted = {step.key: step.value for step in first if isinstance(step, SetSysctl)}
    return evolve(kernel, sysctls={**kernel.sysctls, **wanted})


# ---- addresses ----------------------------------------------------------------------------------


def test_auto_takes_the_first_subnet_that_overlaps_with_no_route() -> None:
    assert free_subnet([], [], None) == "192.168.150.1/24"
    assert free_subnet([route("0.0.0.0/0"), route("192.168.150.128/25")], [], None) == (
        "192.168.151.1/24"
    )
    assert free_subnet([route("192.168.0.0/16")], ["10.150.0.1/24"], None) == "10.151.0.1/24"
    assert free_subnet([route("0.0.0.0/1"), route("128.0.0.0/1")], [], None) is None


def test_auto_keeps_what_it_had_unless_somebody_took_it() -> None:
    assert free_subnet([route("192.168.150.0/24")], [], "10.7.7.1/24") == "10.7.7.1/24"
    assert free_subnet([route("10.0.0.0/8")], [], "10.7.7.1/24") == "192.168.150.1/24"


def test_a_subnet_that_is_written_down_and_in_use_is_a_conflict_that_says_where() -> None:
    with pytest.raises(ConflictError, match=r"lab\.toml:2: address: 192\.0\.2\.0/25 .*\(eth0\)"):
        net('address = "192.0.2.1/25"')


def test_a_private_prefix_is_the_networks_own_and_stays() -> None:
    one = ipaddress.IPv6Interface(private_prefix("a", "lab"))
    assert one.ip.is_private
    assert one.network.prefixlen == 64
    assert private_prefix("a", "lab") == str(one)
    assert private_prefix("b", "lab") != str(one) != private_prefix("a", "other")


@given(st.lists(st.integers(1, 250), max_size=60, unique=True))
def test_each_guest_gets_an_address_of_its_own_inside_the_range(numbers: list[int]) -> None:
    lab = net('address = "10.9.0.1/24"\n[dhcp]\nrange = "10.9.0.2-10.9.0.61"')
    taken: dict[str, str] = {}
    for number in numbers:
        mac = f"52:54:00:00:01:{number:02x}"
        found = guest_address(lab, mac, taken.values(), {})
        assert found
        assert 2 <= int(found.rpartition(".")[2]) <= 61
        assert found not in taken.values()
        taken[mac] = found
    for mac, found in taken.items():  # whoever comes back gets what it had, in any order
        others = [at for owner, at in taken.items() if owner != mac]
        assert guest_address(lab, mac, others, taken) == found


def test_a_full_range_and_what_is_taken_are_conflicts() -> None:
    lab = net('address = "10.9.0.1/24"\n[dhcp]\nrange = "10.9.0.2-10.9.0.3"')
    both = [card(1, ipv4="10.9.0.2"), card(2, ipv4="10.9.0.3")]
    with pytest.raises(ConflictError, match="all of its addresses are in use"):
        settle_card(card(3), lab, both, {})
    with pytest.raises(ConflictError, match=r"10\.9\.0\.2 is in use by m1 net0"):
        settle_card(card(3, ipv4="10.9.0.2"), lab, both, {})
    with pytest.raises(ConflictError, match="MAC address 52:54:00:00:00:01 is in use by m1"):
        settle_card(card(9, mac="52:54:00:00:00:01"), lab, both, {})
    with pytest.raises(ConflictError, match=r"10\.9\.1\.2 is no guest's address in .*lab: 10\.9"):
        settle_card(card(3, ipv4="10.9.1.2"), lab, [], {})
    busy = card(1, forwards=("tcp:0.0.0.0:80:80",))
    with pytest.raises(ConflictError, match=r"port 80 \(tcp\) already leads to m1 net0"):
        settle_card(card(3, ipv4="10.9.0.3", forwards=("tcp:192.0.2.1:80:80",)), lab, [busy], {})


def test_networks_that_overlap_or_share_a_bridge_are_a_conflict() -> None:
    with pytest.raises(ConflictError, match="lab and other overlap"):
        check_desired(Desired(nets=(net(NAT), net(NAT, "other"))))
    same = evolve(net(ISOLATED, "other"), bridge="ql-lab")
    with pytest.raises(ConflictError, match="lab and other have one bridge: ql-lab"):
        check_desired(Desired(nets=(net(NAT), same)))


# ---- texts --------------------------------------------------------------------------------------


def test_rules_of_three_networks(golden: Golden) -> None:
    golden("network/rules.nft", rules(three())[0])


@pytest.mark.parametrize("name", ["lab", "apart", "shop"])
def test_what_dnsmasq_is_told(name: str, golden: Golden) -> None:
    desired = three()
    found = desired.net(name)
    assert found
    parts = [config(found, folders(name)), "# dhcp-hosts", dhcp_hosts(found, desired)]
    golden(f"network/dnsmasq-{name}.conf", "\n".join([*parts, "# hosts", hosts(found, desired)]))


def test_the_fingerprint_is_that_of_the_rules() -> None:
    desired = three()
    assert rules(desired) == rules(three())
    assert rules(evolve(desired, cards=desired.cards[1:]))[1] != rules(desired)[1]
    assert rules(Desired())[1] == ""


# ---- the way ------------------------------------------------------------------------------------


def test_everything_is_made_where_nothing_is(golden: Golden) -> None:
    golden("network/steps.txt", "\n".join(words(steps(three(), EMPTY, FOLDERS))) + "\n")


def test_nothing_is_done_where_everything_is_as_it_should_be() -> None:
    assert words(steps(three(), settled(three()), FOLDERS)) == []


def test_everything_goes_when_nothing_is_wanted() -> None:
    kernel = evolve(settled(three()), changed_sysctls={"net/ipv4/conf/eth0/forwarding": "0"})
    assert words(steps(Desired(), kernel, FOLDERS)) == [
        "remove the firewall rules",
        "remove the bridge ql-lab",
        "remove the bridge ql-apart",
        "remove the bridge ql-shop",
        "stop dnsmasq of apart",
        "forget the network apart",
        "stop dnsmasq of lab",
        "forget the network lab",
        "stop dnsmasq of shop",
        "forget the network shop",
        "set net.ipv4.conf.eth0.forwarding = 0, as it was before",
    ]


def test_only_what_is_broken_is_mended() -> None:
    desired = Desired(nets=(net(NAT),), cards=(card(1, ipv4="192.168.150.11"),))
    good = settled(desired)
    bridge, tap = good.links["ql-lab"], good.links["qlt1"]
    broken = {
        "load the firewall rules": evolve(good, rules=""),
        "start dnsmasq for lab": evolve(good, served=()),
        "restart dnsmasq for lab": evolve(good, served=(Served(network="lab", config="old"),)),
        "write the names and reservations of lab": evolve(good, hosts={"lab": "old"}),
        "plug qlt1 (m1 net0) into ql-lab": evolve(
            good, links={**good.links, "qlt1": evolve(tap, master=0)}
        ),
        "mend the bridge ql-lab: it is down": evolve(
            good, links={**good.links, "ql-lab": evolve(bridge, up=False)}
        ),
        "mend the bridge ql-lab: spanning tree": evolve(
            good, links={**good.links, "ql-lab": evolve(bridge, bridge={"stp_state": 0})}
        ),
        "add the address 192.168.150.1/24 to ql-lab": evolve(good, addresses=good.addresses[1:]),
        "remove the address 10.0.0.1/8 from ql-lab": evolve(
            good, addresses=(*good.addresses, address(bridge.index, "10.0.0.1/8"))
        ),
    }
    for expected, kernel in broken.items():
        assert words(steps(desired, kernel, FOLDERS)) == [expected]


def test_an_interface_that_is_not_ours_is_refused_and_never_touched() -> None:
    theirs = Link(name="ql-lab", index=50, kind="bridge", alias="", up=True)
    kernel = evolve(EMPTY, links={**LINKS, "ql-lab": theirs})
    with pytest.raises(ConflictError, match="ql-lab is there already, a bridge of somebody else"):
        steps(Desired(nets=(net(NAT),)), kernel, FOLDERS)
    assert steps(Desired(), kernel, FOLDERS) == ()


def test_a_bridge_with_a_foreign_port_is_kept() -> None:
    kernel = settled(Desired(nets=(net(NAT),)))
    port = Link(name="eth7", index=70, master=kernel.links["ql-lab"].index)
    kernel = evolve(kernel, links={**kernel.links, "eth7": port})
    assert "keep the bridge ql-lab: eth7 on it is not ours" in words(steps(Desired(), kernel, {}))


def test_a_tap_whose_number_is_another_ones_is_left_alone() -> None:
    desired = Desired(nets=(net(NAT),), cards=(card(1, ipv4="192.168.150.11"),))
    kernel = settled(desired)
    other = evolve(kernel.links["qlt1"], index=999, master=0)
    assert steps(desired, evolve(kernel, links={**kernel.links, "qlt1": other}), FOLDERS) == ()


def test_a_kernel_without_forwarding_by_interface_is_told_to_listen_to_routers() -> None:
    kernel = evolve(
        EMPTY, sysctls={"net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/eth0/accept_ra": "1"}
    )
    found = words(steps(Desired(nets=(net(NAT),)), kernel, FOLDERS))
    assert found.index("set net.ipv6.conf.eth0.accept_ra = 2") < found.index(
        "set net.ipv6.conf.all.forwarding = 1"
    )
    assert not any("ip_forward" in each for each in found)


def test_any_order_of_broken_things_is_mended_by_the_same_steps() -> None:
    desired = Desired(nets=(net(NAT), net(ROUTED, "shop")))
    kernel = settled(desired)
    less = {name: link for name, link in kernel.links.items() if name != "ql-lab"}
    found = steps(desired, evolve(kernel, links=less, rules="", served=()), FOLDERS)
    assert [type(step) for step in found if isinstance(step, MakeBridge)] == [MakeBridge]
    assert [step.about for step in found][-1] == "start dnsmasq for shop"


def test_a_forward_into_an_isolated_network_takes_forwarding_from_outside() -> None:
    isolated = net(ISOLATED, "apart")
    one = card(2, "apart", ipv4="10.9.0.102")
    led = card(2, "apart", ipv4="10.9.0.102", forwards=("tcp:0.0.0.0:8080:80",))
    step = "set net.ipv4.conf.eth0.forwarding = 1"
    assert step not in words(steps(Desired(nets=(isolated,), cards=(one,)), EMPTY, FOLDERS))
    assert step in words(steps(Desired(nets=(isolated,), cards=(led,)), EMPTY, FOLDERS))
