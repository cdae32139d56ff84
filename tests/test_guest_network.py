"""A Linux guest on a network of qlaunch: address, names, out, in, and a second card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlaunch.network.client import SOCKET_VARIABLE
from tests.guest.machine import TEST_LIMIT, Guest, Home
from tests.netlab import Lab
from tests.rig import until

pytestmark = [pytest.mark.guest, pytest.mark.netns, pytest.mark.timeout(TEST_LIMIT)]

NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "fd00:150::1/64"\n'
CARD = '[[nic]]\nid = "net0"\nmodel = "{model}"\nnetwork = "lab"\nforward = ["0.0.0.0:8080:80"]\n'
SECOND = ("--network", "lab", "--model", "virtio", "--json")
SERVE = "while nc -l -p 80 -e echo inside; do :; done >/dev/null 2>&1 &"


@pytest.fixture
def lab(own_place: Path, guest_home: Home) -> Iterator[Lab]:
    with Lab.opened(own_place) as here:
        here.network("lab", NAT)
        here.start()
        guest_home.environment[SOCKET_VARIABLE] = here.socket
        yield here


# rtl8139 is what Windows XP has a driver for: the kernel must finish checksums for it.
@pytest.mark.parametrize("model", ["virtio", "rtl8139"])
def test_a_guest_is_on_the_network(
    lab: Lab, guest_home: Home, guest_initrd: Path, model: str
) -> None:
    beta = lab.guest("beta")
    beta.lease()
    with Guest(guest_home, guest_initrd, CARD.format(model=model), words="net=1") as guest:
        guest.boot()
        (nic,) = (each for each in lab.ask("nics")["nics"] if each["machine"] == guest.name)
        eth = "/sys/class/net/eth0"
        assert guest.run(f"cat {eth}/address") == nic["mac"]
        assert f"inet {nic['ipv4']}/24" in guest.run("ip -4 address show eth0")
        leases = {each["machine"]: each["address"] for each in lab.ask("leases")["leases"]}
        assert leases[guest.name] == nic["ipv4"]
        # By its name, both ways; out, and in.
        said = guest.run("nslookup beta.vm 192.168.150.1")
        assert str(beta.attached.ipv4) in said
        assert beta.resolve(f"{guest.name}.vm", "192.168.150.1") == nic["ipv4"]
        guest.run("ping -c 1 -W 10 192.168.150.1")
        guest.run(f"ping -c 1 -W 10 {beta.attached.ipv4}")
        with lab.serving(lab.outside):
            assert guest.run(f"nc {lab.SERVER} 80 </dev/null") == f"hello {lab.HOST}"
        guest.run(SERVE)
        until(lambda: lab.fetch(lab.outside, lab.HOST, 8080) == "inside\n", "the guest's answer")
        until(lambda: lab.fetch(beta.space, nic["ipv4"]) == "inside\n", "its answer to beta")
        # Another card, while it runs; of the machine's end nothing stays on the bridge.
        made = json.loads(guest.qlaunch("nic", "attach", *SECOND).out)
        until(lambda: "eth1" in guest.run("ls /sys/class/net"), "the second card")
        guest.run("ip link set eth1 up; udhcpc -q -n -i eth1 -s /bin/udhcpc-script", limit=60)
        known = {each["nic"]: each["ipv4"] for each in lab.ask("nics")["nics"]}
        assert f"inet {known['net1']}/24" in guest.run("ip -4 address show eth1")
        guest.qlaunch("nic", "detach", "net1")
        until(lambda: "eth1" not in guest.run("ls /sys/class/net"), "the second card to go")
        assert made["nic"] == "net1"
    until(lambda: len(lab.ask("nics")["nics"]) == 1, "the cards to be forgotten")
    lab.settled()
