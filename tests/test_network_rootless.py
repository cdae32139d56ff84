"""Networks of somebody who is not root: the same service in namespaces, pasta for the way out."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netlab import Lab
from tests.netlab_own import Own
from tests.netspace import as_user
from tests.rig import PROFILE, TOP, end, is_alive, until

pytestmark = pytest.mark.netns

NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "fd00:150::1/64"\n'


@pytest.fixture
def own(own_place: Path) -> Iterator[Own]:
    with Lab.opened(own_place) as lab:
        somebody = Own.make(lab)
        somebody.network("lab", NAT)
        yield somebody


def test_a_user_has_a_network_of_its_own(own: Own) -> None:
    lab = own.lab
    before = {link["ifname"] for link in lab.host.show("link", "show")}
    answer = own.qlaunch("net", "up", "lab")["networks"][0]
    assert (answer["service"], answer["network"]["address"]) == ("rootless", "192.168.150.1/24")
    listed = {each["name"]: each for each in own.qlaunch("net", "list")["networks"]}
    assert (listed["lab"]["service"], listed["lab"]["state"]) == ("rootless", "up")
    alpha, beta = own.guest("alpha"), own.guest("beta")
    assert alpha.lease() == alpha.attached.ipv4
    assert beta.lease() == beta.attached.ipv4
    alpha.address6()
    assert alpha.resolve("beta.vm", "192.168.150.1") == beta.attached.ipv4
    assert alpha.pings(beta.attached.ipv4 or "")
    with lab.serving(lab.outside), lab.serving(beta.space):
        assert lab.fetch(alpha.space, lab.SERVER) == f"hello {lab.HOST}"
        assert lab.fetch(alpha.space, lab.SERVER6) == f"hello {lab.HOST6}"
        with as_user(own.uid):  # a connection into the network, made there
            at = beta.attached
            made = asyncio.run(own.service.dial(at.ifname, at.ipv4 or "", 80))
        with made:
            made.settimeout(10)
            assert made.recv(100) == b"hello 192.168.150.1"
    # Of all this the computer itself has nothing.
    assert {link["ifname"] for link in lab.host.show("link", "show")} == before
    assert lab.host.run("nft", "list", "ruleset") == ""
    assert own.log() == ""


def test_names_of_the_outside_are_asked_of_this_computers_resolver(own: Own) -> None:
    lab = own.lab
    servers = [
        line.split()[1]
        for line in Path("/etc/resolv.conf").read_text(encoding="utf-8").splitlines()
        if line.startswith("nameserver")
    ]
    if not servers or ":" in servers[0] or servers[0].startswith("127."):
        pytest.skip("[users] the first resolver of this computer is none of the outside's")
    lab.outside.ip(f"address add {servers[0]}/32 dev lo")
    words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
    ]
    words += ["--bind-interfaces", f"--listen-address={servers[0]}", "--user=root"]
    words += ["--pid-file=", "--address=/outside.test/192.0.2.77"]
    server = subprocess.Popen(lab.outside.command(*words), cwd=TOP)
    try:
        own.qlaunch("net", "up", "lab")
        alpha = own.guest("alpha")
        alpha.lease()
        until(
            lambda: alpha.resolve("www.outside.test", "192.168.150.1") == "192.0.2.77",
            "an answer from the outside",
        )
    finally:
        server.kill()
        server.wait()


def test_an_isolated_network_has_no_way_out_without_root_either(own: Own) -> None:
    own.network("quiet", 'mode = "isolated"\naddress = "10.9.0.1/24"\nipv6 = "none"')
    own.qlaunch("net", "up", "quiet")
    alpha = own.guest("alpha", "quiet")
    alpha.lease()
    alpha.space.ip("route add default via 10.9.0.1")
    with own.lab.serving(own.lab.outside):
        assert own.lab.unreached(alpha.space, own.lab.SERVER)


@pytest.mark.parametrize("mode", ["routed", "open"])
def test_other_modes_reach_the_outside_behind_the_user(own: Own, mode: str) -> None:
    own.network(mode, f'mode = "{mode}"\naddress = "10.6.0.1/24"\nipv6 = "none"')
    own.qlaunch("net", "up", mode)
    alpha = own.guest("alpha", mode)
    alpha.lease()
    with own.lab.serving(own.lab.outside):
        assert own.lab.fetch(alpha.space, own.lab.SERVER) == f"hello {own.lab.HOST}"


@pytest.mark.fault
@pytest.mark.parametrize("piece", ["keeper", "service", "pasta"])
def test_a_piece_that_is_killed_is_replaced(own: Own, piece: str) -> None:
    lab = own.lab
    own.qlaunch("net", "up", "lab")
    alpha, beta = own.guest("alpha"), own.guest("beta")
    for guest in (alpha, beta):
        guest.lease()
    holder = own.piece("holder")
    with lab.serving(beta.space), lab.stream(alpha.space, beta.attached.ipv4 or "") as alive:
        pid = own.piece(piece)
        end(pid)
        alive()
        if piece == "pasta":
            until(lambda: own.piece("pasta") != pid and is_alive(own.piece("pasta")), "another")
        else:
            until(lambda: "up" in str(own.qlaunch("net", "up", "lab")), "the service")
        assert own.piece("holder") == holder
        assert {each["machine"] for each in own.ask("nics")["nics"]} == {"alpha", "beta"}
        alive()
        with lab.serving(lab.outside):
            until(lambda: "hello" in lab.fetch(alpha.space, lab.SERVER), "the outside")


def test_nothing_is_left_when_nobody_needs_it(own: Own) -> None:
    words = own.command("qlaunch.network.rootless", "--ends", "0.5")
    with subprocess.Popen(words, env=own.environment, cwd=TOP) as keeper:
        until((own.folder / "socket").exists, "the service")
        alpha = own.guest("alpha")
        assert alpha.lease()
        alpha.close()  # its network was made for it, and goes with it
        assert keeper.wait(30) == 0
    own.gone()
    # One that was asked for by name stays, until it is taken down or the service is ended.
    own.qlaunch("net", "up", "lab")
    service = own.piece("service")
    end(service, signal.SIGTERM)
    own.gone()


def test_several_who_start_it_at_once_have_one(own: Own) -> None:
    words = own.command("qlaunch", "--json", "net", "up", "lab")
    clients = [
        subprocess.Popen(words, env=own.environment, cwd=TOP, stdout=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert [client.wait(50) for client in clients] == [0] * 4
    assert len([line for line in own.processes() if line.startswith("sleep")]) == 1
    other = Own.make(own.lab, 23456)
    other.network("lab", NAT)
    other.qlaunch("net", "up", "lab")  # two users, the same addresses: neither sees the other's
    one, two = own.guest("one"), other.guest("two")
    assert one.lease()
    assert two.lease()
    assert not one.pings(two.attached.ipv4 or "") or one.attached.ipv4 == two.attached.ipv4


@pytest.mark.qemu
def test_a_machine_takes_the_best_network_that_there_is(own: Own) -> None:
    lab = own.lab
    own.write(
        "profiles", "demo", PROFILE + '[[nic]]\nid = "net0"\nmodel = "e1000"\nbackend = "auto"\n'
    )

    def started() -> str:
        own.qlaunch("up", "demo")
        try:
            row = own.qlaunch("ps")["machines"][0]
            return str(row["network"])
        finally:
            own.qlaunch("kill", "demo")

    assert "rootless" in started()
    lab.network("default", NAT)
    lab.rules(f'[[allow]]\nid = "all"\nusers = ["{own.uid}"]')
    lab.start()
    assert "netd" in started()
    assert lab.host.link("ql-default")
