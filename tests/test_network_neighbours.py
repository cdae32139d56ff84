"""Guests get through other people's firewalls, by the doors that these have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from qlaunch.errors import ConflictError
from qlaunch.network.neighbours import look_around, mend
from qlaunch.plan.networks.neighbours import Neighbour
from tests.netlab import Lab
from tests.rig import TOP, end, until

pytestmark = pytest.mark.netns

NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "none"\n'
# What Docker leaves where it has switched forwarding on itself, as iptables-nft shows it.
DOCKER = """
table ip filter {
  chain DOCKER-USER { }
  chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
}
"""
# firewalld 1.3 with a bridge in no zone of its own: what comes from there is of the zone `public`.
FIREWALLD = """
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    iifname "lo" accept
    iifname "ql-*" ZONE
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    iifname "ql-*" ZONE
    reject with icmpx admin-prohibited
  }
}
"""


@pytest.fixture
def lab(own_place: Path) -> Iterator[Lab]:
    with Lab.opened(own_place) as here:
        here.network("lab", NAT)
        here.start()
        yield here


def load(lab: Lab, rules: str) -> None:
    path = lab.place / "foreign.nft"
    path.write_text(rules, encoding="utf-8")
    lab.host.run("nft", "-f", str(path))


def around(lab: Lab) -> list[Neighbour]:
    with lab.host.inside():
        return look_around([], [])


def test_dockers_firewall_lets_guests_through_by_its_own_door(lab: Lab) -> None:
    alpha, beta = lab.guest("alpha"), lab.guest("beta")
    for guest in (alpha, beta):
        guest.lease()
    with lab.serving(lab.outside), lab.serving(beta.space):
        load(lab, DOCKER)
        assert lab.unreached(alpha.space, lab.SERVER)
        (docker,) = around(lab)
        assert docker.topic == "docker"
        with lab.host.inside():
            mend(docker)
        assert around(lab) == []
        assert lab.fetch(alpha.space, lab.SERVER) == f"hello {lab.HOST}"
        assert lab.fetch(alpha.space, beta.attached.ipv4 or "").startswith("hello")
        # It is no way around our own rules.
        lab.outside.ip(f"route add 192.168.150.0/24 via {lab.HOST}")
        assert lab.unreached(lab.outside, beta.attached.ipv4 or "")


def test_firewalld_lets_guests_through_where_it_has_our_zone(lab: Lab) -> None:
    alpha = lab.guest("alpha")
    load(lab, FIREWALLD.replace("ZONE", "reject"))
    said = alpha.space.run(
        "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "2", "-T", "1",
        "-s", lab.script, check=False,
    )  # fmt: skip
    assert "no lease, failing" in said
    assert [each.topic for each in around(lab)] == ["firewalld"]
    # What the zone with the target ACCEPT makes of it.
    lab.host.run("nft", "delete", "table", "inet", "firewalld")
    load(lab, FIREWALLD.replace("ZONE", "accept"))
    assert alpha.lease()
    with lab.serving(lab.outside):
        assert lab.fetch(alpha.space, lab.SERVER) == f"hello {lab.HOST}"


def test_a_resolver_that_has_the_port_is_named_with_the_way_out(lab: Lab) -> None:
    words = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=root"]
    with Popen(lab.host.command(*words), cwd=TOP, stderr=DEVNULL) as theirs:
        until(lambda: ":53" in lab.host.run("ss", "-ltn"), "the resolver")
        with pytest.raises(ConflictError, match=r"dnsmasq \(pid \d+\) has port 53") as caught:
            lab.up("lab")
        assert "except-interface=ql-*" in (caught.value.hint or "")
        # Nothing is left of what could not be.
        assert lab.host.link("ql-lab") is None
        assert lab.host.run("nft", "list", "ruleset") == ""
        end(theirs.pid)
    # With these two lines they get on.
    words += ["--bind-dynamic", "--except-interface=ql-*"]
    with Popen(lab.host.command(*words), cwd=TOP, stderr=DEVNULL) as theirs:
        until(lambda: ":53" in lab.host.run("ss", "-ltn"), "the resolver")
        lab.up("lab")
        assert lab.guest("alpha").lease()
        end(theirs.pid)
