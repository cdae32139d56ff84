"""Cards of real machines on a real network: plugged in, changed, moved, reached."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import ConflictError, NotFoundError, QlaunchError, RefusedError, TimedOutError
from qlaunch.host.ports import port_holder
from qlaunch.network import client
from tests.netlab import Lab
from tests.netlab_own import Own
from tests.prerequisites import both_qemus
from tests.rig import PROFILE, Rig, nothing_left, until, write_profile
from tests.test_nic_cables import card, nic
from tests.test_nic_plug import attach, change, devices, saved

pytestmark = [pytest.mark.qemu, pytest.mark.netns]

NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "none"\n'
OTHER = 'mode = "isolated"\naddress = "192.168.151.1/24"\nipv6 = "none"\n'


@pytest.fixture
def lab(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The network service of a computer, which our supervisor asks."""
    with Lab.opened(own_place) as here:
        here.network("lab", NAT)
        here.network("apart", OTHER)
        monkeypatch.setenv(client.SOCKET_VARIABLE, here.socket)
        here.start()
        yield here


def cards(lab: Lab) -> list[dict[str, Any]]:
    """What the service has plugged in."""
    found: list[dict[str, Any]] = lab.ask("nics")["nics"]
    return found


@both_qemus
def test_a_card_comes_to_a_network_and_goes(lab: Lab, rig: Rig, qemu_binary: str) -> None:
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    made = attach(rig, network="lab", model="virtio", queues=2, ipv4="192.168.150.9")
    assert (made["backend"], made["network"], made["queues"]) == ("netd", "lab", 2)
    (there,) = cards(lab)
    assert (there["machine"], there["nic"], there["ipv4"]) == ("demo", "net0", "192.168.150.9")
    link = lab.host.link(there["ifname"])
    assert link
    assert link["master"] == "ql-lab"
    assert rig.row()["network"] == ["lab (netd)"]
    with pytest.raises(TimedOutError):
        rig.ask("nic-detach", name="demo", nic="net0", timeout=0)
    rig.ask("reset", name="demo")
    until(lambda: saved() == [], "the card to leave the plan")
    until(lambda: cards(lab) == [], "the network to forget it")
    assert lab.host.link(there["ifname"]) is None
    # Without the service nothing is left half done.
    lab.stop()
    with pytest.raises(QlaunchError, match="no network service answers"):
        attach(rig, network="lab", model="e1000")
    assert devices(rig) & {"net0-dev"} == set()
    rig.kill()
    assert nothing_left() == []


def test_what_the_network_refuses_leaves_nothing(lab: Lab, rig: Rig) -> None:
    rig.up()
    attach(rig, network="lab", model="e1000", ipv4="192.168.150.9")
    before = devices(rig)
    with pytest.raises(ConflictError, match=r"192.168.150.9"):
        attach(rig, network="lab", model="e1000", ipv4="192.168.150.9")
    with pytest.raises(NotFoundError, match="nowhere"):
        attach(rig, network="nowhere", model="e1000")
    assert devices(rig) == before
    assert len(cards(lab)) == 1
    assert attach(rig, network="lab", model="e1000")["nic"] == "net1"


def test_filter_forwards_and_doors_change_while_it_runs(lab: Lab, rig: Rig, free_port: int) -> None:
    write_profile("demo", card('network = "lab"'))
    rig.up()
    change(rig, filter="mac", forward=[f"{free_port}:22", "0.0.0.0:8080:80"])
    (there,) = cards(lab)
    assert (there["filter"], there["forwards"]) == ("mac", ["tcp:0.0.0.0:8080:80"])
    assert "python" in (port_holder(free_port, "127.0.0.1") or "")  # a door of the supervisor
    assert [each["by"] for each in rig.ask("forward", name="demo")["forwards"]] == [
        "supervisor", "network",
    ]  # fmt: skip
    # What the network cannot have is undone here, too.
    with lab.serving(lab.host, 8081, "0.0.0.0"), pytest.raises(ConflictError, match="8081"):
        change(rig, filter="none", forward=["0.0.0.0:8081:80"], link="down")
    (there,) = cards(lab)
    assert (there["filter"], there["forwards"]) == ("mac", ["tcp:0.0.0.0:8080:80"])
    assert port_holder(free_port, "127.0.0.1")
    assert (nic(rig)["filter"], nic(rig)["link"]) == ("mac", "up")
    rig.kill_supervisor()
    assert nic(rig)["forward"] == [f"tcp:127.0.0.1:{free_port}:22", "tcp:0.0.0.0:8080:80"]
    until(lambda: port_holder(free_port, "127.0.0.1"), "the door of the next supervisor")
    change(rig, forward=[])
    assert port_holder(free_port, "127.0.0.1") is None
    assert cards(lab)[0]["forwards"] == []


@both_qemus
def test_a_card_moves_to_another_network(lab: Lab, rig: Rig, qemu_binary: str) -> None:
    path = Path(write_profile("demo", card('network = "lab"\nipv4 = "192.168.150.9"')))
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    (before,) = cards(lab)
    done = change(rig, network="apart", persist=True)
    assert (done["network"], done["persistent"]) == ("apart", True)
    (there,) = cards(lab)
    assert (there["network"], there["ifname"]) == ("apart", before["ifname"])
    assert there["ipv4"].startswith("192.168.151.")
    link = lab.host.link(there["ifname"])
    assert link
    assert link["master"] == "ql-apart"
    said = path.read_text(encoding="utf-8")
    assert 'network = "apart"' in said
    assert "192.168.150.9" not in said
    with pytest.raises(NotFoundError, match="nowhere"):
        change(rig, network="nowhere")
    assert cards(lab) == [there]
    assert nic(rig)["network"] == "apart"
    rig.kill_supervisor()
    assert nic(rig)["network"] == "apart"
    rig.kill()
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    assert cards(lab)[0]["ipv4"] == there["ipv4"]  # it keeps it


def test_a_card_that_is_on_no_network_cannot_move(lab: Lab, rig: Rig) -> None:
    write_profile("demo", card())
    rig.up()
    with pytest.raises(RefusedError, match="plugged into user, not into a network") as caught:
        change(rig, network="lab")
    assert "nic attach demo --network lab" in str(caught.value.hint)


def test_where_a_guest_is_known_from(lab: Lab, rig: Rig) -> None:
    cables = card('backend = "none"', "net1") + card("", "net2")
    write_profile("demo", card('network = "lab"\nipv4 = "192.168.150.9"') + cables)
    rig.up()
    one, two, three = rig.ask("ip", name="demo")["nics"]
    assert one["direct"]
    assert one["addresses"] == [
        {"address": "192.168.150.9", "version": 4, "sources": ["reservation"]}
    ]
    assert two["addresses"] == []
    assert [each["sources"] for each in three["addresses"]] == [["user network"]]
    # Who has a lease and has answered is known from there, too.
    guest = lab.guest("alpha")
    address = guest.lease()
    with lab.serving(guest.space):
        assert "hello" in lab.fetch(lab.host, address)
    seen = {each["machine"]: each["seen"] for each in cards(lab)}
    assert seen == {"demo": [], "alpha": [address]}
    lab.stop()
    answer = rig.ask("ip", name="demo")["nics"][0]
    assert answer["addresses"] == []
    assert "does not answer" in answer["problem"]


def test_without_root_too(own_place: Path, free_port: int) -> None:
    with Lab.opened(own_place) as lab:
        own = Own.make(lab)
        own.network("lab", NAT)
        own.network("apart", OTHER)
        own.write("profiles", "demo", PROFILE + card('network = "lab"'))
        own.qlaunch("up", "demo")
        try:
            made = own.qlaunch("nic", "attach", "demo", "--network", "lab", "--model", "e1000")
            assert (made["nic"], made["backend"]) == ("net1", "rootless")
            known = own.qlaunch("ip", "demo")["nics"]
            assert [nic["direct"] for nic in known] == [False, False]
            assert {at["sources"][0] for nic in known for at in nic["addresses"]} == {"reservation"}
            # Nobody outside the namespace reaches it, so the supervisor is the door.
            done = own.qlaunch("forward", "demo", f"{free_port}:80", f"0.0.0.0:{free_port + 1}:80")
            assert [each["by"] for each in done["added"]] == ["supervisor", "supervisor"]
            with lab.host.inside(), socket.create_connection(("127.0.0.1", free_port), 10):
                pass
            assert own.qlaunch("nic", "set", "demo", "net1", "network=apart")["network"] == "apart"
            at = next(each for each in own.ask("nics")["nics"] if each["nic"] == "net1")
            assert at["ipv4"].startswith("192.168.151.")
            assert own.qlaunch("ssh", "demo")["way"] == "door"
        finally:
            own.qlaunch("kill", "demo")
