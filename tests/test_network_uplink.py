"""A bridge over a real interface: made and undone while others talk to us, and guarded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qlaunch.network.owners import owner_of
from qlaunch.plan.networks.uplinks import advice
from tests.netlab import Lab
from tests.rig import TOP, until

pytestmark = pytest.mark.netns

OWNERS = ("NetworkManager", "systemd-networkd", "netplan", "ifupdown")
KILLED = TOP / "tests" / "netlab_killed_uplink.py"


@pytest.fixture
def lab(own_place: Path) -> Iterator[Lab]:
    """With more on `eth0` than most have: two addresses, one of them leased, and routes."""
    with Lab.opened(own_place) as here:
        here.host.ip(
            "address add 198.51.100.7/24 dev eth0 valid_lft 3000 preferred_lft 2000",
            "route replace default via 203.0.113.2 dev eth0 metric 100",
            "route add 192.0.2.0/24 via 203.0.113.2 src 203.0.113.1 mtu 1400",
            "route add 10.77.0.0/16 via 203.0.113.2 table 77",
        )
        here.outside.ip("route add 198.51.100.0/24 dev eth0")
        yield here


def command(lab: Lab, *words: str, killed: str = "") -> list[str]:
    how = [str(KILLED), killed] if killed else ["-m", "qlaunch"]
    return lab.host.command(sys.executable, *how, "net", "uplink", *words)


def uplink(lab: Lab, *words: str, killed: str = "") -> subprocess.CompletedProcess[str]:
    """`qlaunch net uplink`; whose /run it is does not matter here."""
    environment = os.environ | {"QLAUNCH_NETD": lab.socket, "PYTHONPATH": str(TOP)}
    return subprocess.run(
        command(lab, *words, "--force", killed=killed),
        env=environment, cwd=TOP, text=True, capture_output=True, timeout=50, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def facts(lab: Lab, link: str) -> dict[str, Any]:
    """Addresses and routes, without what time changes."""
    addresses = [
        (at["local"], at["prefixlen"], at["scope"])
        for each in lab.host.show("address", "show", "dev", link)
        for at in each["addr_info"]
        if at["scope"] == "global"
    ]
    routes = []
    for version in ("-4", "-6"):
        for route in lab.host.show(version, "route", "show", "table", "all"):
            if route.get("dev") == link and route.get("table") != "local":
                kept = {k: route.get(k) for k in ("dst", "gateway", "prefsrc", "metric", "table")}
                routes.append(kept)
    routes = [each for each in routes if each["dst"] not in ("ff00::/8", "multicast")]
    return {"addresses": sorted(addresses), "routes": sorted(map(str, routes))}


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """Without the link-local routes, which each interface has."""
    routes = [each for each in found["routes"] if "fe80::/64" not in each]
    return {"addresses": found["addresses"], "routes": routes}


@contextmanager
def echoes(lab: Lab, address: str) -> Iterator[list[int]]:
    """Somebody outside who talks to `address` all the time; yields how many were answered."""
    with lab.host.inside():
        here = socket.socket(lab_family(address), socket.SOCK_DGRAM)
        here.bind(("::" if ":" in address else "0.0.0.0", 7))
    with lab.outside.inside():
        there = socket.socket(lab_family(address), socket.SOCK_DGRAM)
    there.settimeout(1)
    counts, stop = [0], threading.Event()

    def serve() -> None:
        while (packet := here.recvfrom(100))[0] != b"end":
            here.sendto(*packet)

    def talk() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            there.sendto(str(number).encode(), (address, 7))
            try:
                while int(there.recv(100)) != number:
                    pass
                counts[0] += 1
            except TimeoutError:  # one on its way in that very moment may be lost
                continue
        there.sendto(b"end", (address, 7))

    threads = [threading.Thread(target=each) for each in (serve, talk)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        here.close()
        there.close()


def lab_family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.mark.parametrize("address", [Lab.HOST, Lab.HOST6])
def test_it_is_made_and_undone_while_others_talk_to_this_computer(lab: Lab, address: str) -> None:
    before = plain(facts(lab, "eth0"))
    assert len(before["addresses"]) == 3
    assert len(before["routes"]) >= 6
    with (
        lab.serving(lab.host),
        lab.stream(lab.outside, address) as alive,
        echoes(lab, address) as counts,
    ):
        until(lambda: counts[0] > 3, "the first echoes")
        done = uplink(lab, "br0", "eth0", "--yes")
        assert done.returncode == 0, done.stderr
        alive()
        assert plain(facts(lab, "br0")) == before
        assert facts(lab, "eth0")["addresses"] == []
        so_far = counts[0]
        until(lambda: counts[0] > so_far + 3, "echoes through the bridge")
        done = uplink(lab, "br0", "--undo")
        assert done.returncode == 0, done.stderr
        alive()
        assert plain(facts(lab, "eth0")) == before
        assert lab.host.link("br0") is None
        so_far = counts[0]
        until(lambda: counts[0] > so_far + 3, "echoes without it")


def test_a_lease_goes_on_running(lab: Lab) -> None:
    assert uplink(lab, "br0", "eth0", "--yes").returncode == 0
    (leased,) = [
        at
        for each in lab.host.show("address", "show", "dev", "br0")
        for at in each["addr_info"]
        if at["local"] == "198.51.100.7"
    ]
    assert 2000 < leased["valid_life_time"] <= 3000
    assert 1000 < leased["preferred_life_time"] <= 2000


def test_guests_are_where_this_computer_is(lab: Lab) -> None:
    lab.network("lan", 'mode = "uplink"\nbridge = "br0"\nuplink = "eth0"')
    assert uplink(lab, "br0", "eth0", "--yes").returncode == 0
    lab.start()
    alpha = lab.guest("alpha", "lan")
    alpha.space.ip("address add 203.0.113.50/24 dev eth0")
    with lab.serving(lab.outside), lab.serving(lab.host, 81):
        assert lab.fetch(alpha.space, lab.SERVER) == "hello 203.0.113.50"
        assert lab.fetch(alpha.space, lab.HOST, 81) == "hello 203.0.113.50"
    done = subprocess.run(
        command(lab, "br0", "--undo"), env=os.environ | {"QLAUNCH_NETD": lab.socket}, cwd=TOP,
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "qlt0 is on br0" in done.stderr) == (5, True)


# ---- the guard ----------------------------------------------------------------------------------


def unchanged(lab: Lab, before: dict[str, Any]) -> bool:
    return plain(facts(lab, "eth0")) == before and lab.host.link("br0") is None


def test_a_gateway_that_is_silent_afterwards_puts_everything_back(lab: Lab) -> None:
    before = plain(facts(lab, "eth0"))
    # It answers eth0, and nothing that comes through a bridge: as an access point, or a port that
    # lets one MAC address in.
    lab.host.run("nft", "add table bridge deaf; add chain bridge deaf in"
                 " { type filter hook prerouting priority 0; policy drop; }")  # fmt: skip
    done = uplink(lab, "br0", "eth0", "--yes")
    assert done.returncode == 1
    assert "does not answer through br0; everything is as it was before" in done.stderr
    assert unchanged(lab, before)


def test_nobody_who_confirms_puts_everything_back(lab: Lab) -> None:
    before = plain(facts(lab, "eth0"))
    outer, inner = os.openpty()
    with subprocess.Popen(
        command(lab, "br0", "eth0", "--timeout", "2s", "--force"),
        env=os.environ | {"QLAUNCH_NETD": lab.socket}, cwd=TOP,
        stdin=inner, stderr=inner, stdout=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(inner)
        until(lambda: lab.host.link("br0"), "the bridge")
        until(lambda: unchanged(lab, before), "everything to be back")
        os.write(outer, b"y\n")  # too late
        assert process.wait(30) == 1
    os.close(outer)
    assert unchanged(lab, before)
    # Who is asked and does not like it has it back at once; and nobody to ask is no yes.
    assert uplink(lab, "br0", "eth0").returncode == 6


@pytest.mark.fault
@pytest.mark.parametrize("function", ["_make", "_move", "begin"])
def test_whoever_is_killed_on_the_way_has_everything_put_back(lab: Lab, function: str) -> None:
    before = plain(facts(lab, "eth0"))
    done = uplink(lab, "br0", "eth0", "--yes", killed=function)
    assert done.returncode == -signal.SIGKILL, done.stderr
    until(lambda: unchanged(lab, before), "everything to be back")
    until(lambda: not list((lab.place / "uplinks").iterdir()), "the guard's end")


@pytest.mark.fault
def test_with_the_guard_killed_too_the_next_one_puts_it_back(lab: Lab) -> None:
    before = plain(facts(lab, "eth0"))
    assert uplink(lab, "br0", "eth0", "--yes").returncode == 0
    journal = lab.place / "uplinks" / "br0.json"
    found = json.loads(journal.read_text(encoding="utf-8"))
    assert found["confirmed"]
    # As it is while the guard waits; of guard and all there is nothing but the journal.
    journal.write_text(json.dumps(found | {"confirmed": False}), encoding="utf-8")
    done = uplink(lab, "br1", "nothing", "--yes")
    assert "br0 was begun and not confirmed: it was put back" in done.stderr
    assert "there is no interface nothing" in done.stderr
    assert unchanged(lab, before)


def test_what_cannot_be_is_refused_before_anything_is_changed(lab: Lab) -> None:
    before = plain(facts(lab, "eth0"))
    lab.host.ip("link add br7 type bridge", "link add port0 type veth peer name port1")
    lab.host.ip("link set port0 master br7")
    for words, told in (
        (("br7", "eth0"), "br7 is there already"),
        (("br0", "port0"), "port0 is a port of another interface"),
        (("br0", "lo"), "lo is no network card"),
        (("br0", "br7"), "br7 is no network card"),
        (("br0", "eth9"), "there is no interface eth9"),
    ):
        done = uplink(lab, *words, "--yes")
        assert done.returncode in (1, 5, 6)
        assert told in done.stderr
    assert unchanged(lab, before)


# ---- whose the interface is ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, text, owner",
    [
        ("run/NetworkManager/devices/2", "[device]\nmanaged=true\n", "NetworkManager"),
        ("run/NetworkManager/devices/2", "[device]\nmanaged=false\n", None),
        ("run/systemd/netif/links/2", "ADMIN_STATE=configured\n", "systemd-networkd"),
        ("run/systemd/netif/links/2", "ADMIN_STATE=unmanaged\n", None),
        ("run/network/ifstate", "lo=lo\neth0=eth0\n", "ifupdown"),
        ("proc/77/cmdline", "/sbin/dhclient\0-v\0eth0\0", "dhclient (pid 77)"),
        ("proc/77/cmdline", "/sbin/dhclient\0-v\0eth1\0", None),
        ("proc/77/cmdline", "/usr/sbin/dhcpcd\0-q\0", "dhcpcd (pid 77)"),
    ],
)
def test_the_owner_of_an_interface_is_found(
    tmp_path: Path, path: str, text: str, owner: str | None
) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    assert owner_of("eth0", 2, str(tmp_path)) == owner
    if owner == "systemd-networkd":
        (tmp_path / "run/systemd/network").mkdir()
        (tmp_path / "run/systemd/network/10-netplan-eth0.network").touch()
        assert owner_of("eth0", 2, str(tmp_path)) == "netplan"


def test_each_owner_is_told_in_its_own_words() -> None:
    found = {
        owner: advice(owner, "br0", "eth0", ["192.0.2.7/24", "2001:db8::7/64"])
        for owner in (
            "NetworkManager",
            "systemd-networkd",
            "netplan",
            "ifupdown",
            "dhclient (pid 7)",
        )
    }
    assert "nmcli connection add type bridge ifname br0" in found["NetworkManager"]
    assert "Kind=bridge" in found["systemd-networkd"]
    assert "interfaces: [eth0]" in found["netplan"]
    assert "bridge_ports eth0" in found["ifupdown"]
    assert "have it ask for br0's" in found["dhclient (pid 7)"]
    for owner in OWNERS:
        assert "192.0.2.7/24" in found[owner]
