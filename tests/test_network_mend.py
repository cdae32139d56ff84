"""Networks that are broken, taken down, begun and never finished; who may not use them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import ConflictError, HostError, NotFoundError, QlaunchError, RefusedError
from qlaunch.plan.model import Attachment
from tests.netlab import Lab
from tests.netspace import NOBODY, as_user
from tests.prerequisites import require_users
from tests.rig import end, is_alive, until

pytestmark = pytest.mark.netns

NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "fd00:150::1/64"\n'
SWITCH = "net.ipv4.conf.eth0.forwarding"


@pytest.fixture
def lab(own_place: Path) -> Iterator[Lab]:
    with Lab.opened(own_place) as here:
        here.network("lab", NAT)
        yield here


def dnsmasq(lab: Lab, name: str = "lab") -> int:
    return int((lab.place / "run" / "dns" / name / "pid").read_text(encoding="ascii"))


def links(lab: Lab) -> set[str]:
    return {link["ifname"] for link in lab.host.show("link", "show")}


def test_what_somebody_breaks_is_mended_while_guests_run(lab: Lab) -> None:
    lab.start()
    alpha, beta = lab.guest("alpha"), lab.guest("beta")
    alpha.lease()
    beta.lease()
    assert lab.plan() == []
    with lab.serving(lab.outside):
        # Our table: gone, half gone, and with it everybody's. A stream may end then: without rules
        # for a moment, this computer takes its packets for its own.
        for words in ("delete table inet qlaunch", "delete table bridge qlaunch", "flush ruleset"):
            lab.host.run("nft", *words.split())
            lab.settled()
            assert lab.fetch(alpha.space, lab.SERVER) == f"hello {lab.HOST}"
    with lab.serving(lab.outside), lab.stream(alpha.space, lab.SERVER) as alive:
        # Our own changes of the rules end none.
        for port in range(8000, 8010):
            forwards = [f"tcp:0.0.0.0:{port}:80"]
            lab.ask("change", machine="beta", nic="net0", forwards=forwards)
            alive()
        pid = dnsmasq(lab)
        end(pid)
        until(lambda: dnsmasq(lab) != pid and is_alive(dnsmasq(lab)), "another dnsmasq")
        lab.settled()
        assert beta.lease() == beta.attached.ipv4
        lab.host.ip("address flush dev ql-lab")
        until(lambda: "192.168.150.1" in lab.host.addresses("ql-lab"), "the address")
        lab.settled()
        lab.host.ip("link delete ql-lab")
        until(lambda: lab.host.link("ql-lab"), "the bridge")
        lab.settled()
        alive()
        assert lab.fetch(beta.space, lab.SERVER) == f"hello {lab.HOST}"
        lab.host.ip("link set ql-lab down")
        lab.settled()
        alive()
    assert alpha.pings(beta.attached.ipv4 or "")
    lab.host.run("nft", "flush", "table", "inet", "qlaunch")
    until(lambda: "masquerade" in lab.host.run("nft", "list", "ruleset"), "the rules")


def test_a_service_that_is_killed_loses_nothing(lab: Lab) -> None:
    lab.start()
    alpha = lab.guest("alpha")
    alpha.lease()
    before = [lab.ask(verb) for verb in ("nics", "leases", "networks")]
    with lab.serving(lab.outside), lab.stream(alpha.space, lab.SERVER) as alive:
        lab.stop(signal.SIGKILL)
        pid = dnsmasq(lab)
        alive()
        with pytest.raises(HostError, match="no network service at"):
            lab.ask("networks")
        lab.start()
        assert [lab.ask(verb) for verb in ("nics", "leases", "networks")] == before
        assert lab.plan() == []
        assert dnsmasq(lab) == pid
        alive()
        # What happened meanwhile is seen at the next start.
        lab.stop(signal.SIGKILL)
        alpha.close()
        lab.host.run("nft", "flush", "ruleset")
        lab.start()
        assert lab.ask("nics")["nics"] == []
        assert "masquerade" in lab.host.run("nft", "list", "ruleset")
        assert lab.plan() == []


def test_nothing_is_left_of_a_network_that_is_taken_down(lab: Lab) -> None:
    def state() -> tuple[set[str], str, str]:
        return links(lab), lab.host.run("nft", "list", "ruleset"), lab.host.run("sysctl", SWITCH)

    before = state()
    lab.start()
    alpha = lab.guest("alpha")
    alpha.lease()
    pid = dnsmasq(lab)
    assert state() != before
    with pytest.raises(ConflictError, match="alpha uses the network lab"):
        lab.ask("down", network="lab")
    alpha.close()
    until(lambda: not lab.ask("nics")["nics"], "the card to be forgotten")
    lab.ask("down", network="lab")
    until(lambda: not is_alive(pid), "dnsmasq's end")
    assert state() == before
    assert list((lab.place / "run" / "wanted").iterdir()) == []
    assert list((lab.place / "run" / "dns").iterdir()) == []
    # With a guest in it, too; the guest's cable is not touched by whatever comes next.
    beta = lab.guest("beta")
    lab.ask("down", network="lab", force=True)
    assert links(lab) - before[0] == {beta.attached.ifname}
    beta.close()
    until(lambda: state() == before, "nothing to be left")
    assert lab.log() == ""


def test_an_interface_of_somebody_else_stops_a_network_and_stays(lab: Lab) -> None:
    lab.host.ip("link add ql-lab type bridge", "link add eth7 type veth peer name eth8")
    lab.start()
    with pytest.raises(ConflictError, match="ql-lab is there already, a bridge of somebody else"):
        lab.up("lab")
    bridge = lab.host.link("ql-lab")
    assert bridge
    assert "ifalias" not in bridge
    # Of several networks one that cannot be leaves the others as they are.
    lab.network("other", 'address = "10.2.0.1/24"')
    lab.up("other")
    assert lab.guest("alpha", "other").lease()
    # A port of somebody else keeps a bridge of ours.
    lab.host.ip("link set eth7 master ql-other")
    lab.ask("down", network="other", force=True)
    assert {"ql-lab", "ql-other", "eth7"} <= links(lab)


def test_a_name_that_is_no_network_is_told(lab: Lab) -> None:
    lab.network("wrong", 'mode = "nut"')
    lab.start()
    with pytest.raises(NotFoundError, match="there is no network 'lob'") as caught:
        lab.up("lob")
    assert "lab" in (caught.value.hint or "")
    with pytest.raises(QlaunchError, match=r"wrong.toml:2: mode: 'nut'"):
        lab.up("wrong")
    states = {each["name"]: each for each in lab.ask("networks")["networks"]}
    assert (states["lab"]["state"], states["wrong"]["state"]) == ("down", "broken")


def test_many_cards_at_once_in_two_networks(lab: Lab) -> None:
    lab.network("other", 'address = "10.2.0.1/24"')
    lab.start()

    async def plug() -> list[tuple[str, str | None]]:
        cards = [
            Attachment(network=name, mac=f"52:54:00:00:02:{number:02x}", hostname=f"m{number}")
            for number in range(8)
            for name in ("lab", "other")
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(lab.service.attach(f"m{at}", "net0", card))
                for at, card in enumerate(cards)
            ]
        for task in tasks:
            task.result().close()
        return [(task.result().bridge, task.result().ipv4) for task in tasks]

    found = asyncio.run(plug())
    assert len(set(found)) == 16
    assert {bridge for bridge, _ in found} == {"ql-lab", "ql-other"}
    # Nobody has the TAPs open any more.
    until(lambda: not lab.ask("nics")["nics"], "the cards to go")
    until(lambda: not {name for name in links(lab) if name.startswith("qlt")}, "the TAPs to go")
    lab.settled()


# ---- killed at each step ------------------------------------------------------------------------


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_start_that_is_killed_at_any_step_is_finished_by_the_next(lab: Lab) -> None:
    before = links(lab)
    steps, finished = 0, False
    while not finished:
        steps += 1
        lab.start(killed_at=str(steps))
        with contextlib.suppress(QlaunchError):
            lab.up("lab")
            finished = True
        if finished:
            lab.stop()
        else:
            assert lab.netd
            assert lab.netd.wait(30) == -signal.SIGKILL
        lab.start()
        lab.up("lab")
        assert lab.plan() == []
        assert is_alive(dnsmasq(lab))
        lab.ask("down", network="lab")
        assert links(lab) == before
        lab.stop()
    assert steps > 8


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_card_whose_service_is_killed_at_any_step_is_plugged_in_by_the_next(lab: Lab) -> None:
    lab.start()
    lab.up("lab")
    before = links(lab)
    lab.stop()
    steps, finished = 0, False
    while not finished:
        steps += 1
        lab.start(killed_at=str(steps))
        with contextlib.suppress(QlaunchError):
            lab.attach("alpha", "lab")[1].close()
            finished = True
        lab.stop(signal.SIGKILL)
        lab.start()
        until(lambda: links(lab) == before, "the TAP to go with whoever had it")
        lab.settled()
        assert lab.ask("nics")["nics"] == []
        beta = lab.guest("beta")
        assert beta.lease() == beta.attached.ipv4
        beta.close()
        lab.stop()
    assert steps > 2


# ---- who may what -------------------------------------------------------------------------------

RULES = """
[[allow]]
id = "students"
users = ["nobody"]
networks = ["lab"]
ports = ["8000-8999"]
max_nics = 2
"""


def refused(lab: Lab, network: str = "lab", **more: Any) -> str:
    """Why nobody may not plug a card in."""
    with as_user(NOBODY), pytest.raises(RefusedError) as caught:
        lab.attach("alpha", network, **more)
    return f"{caught.value.message} ({caught.value.hint})"


def test_the_allow_list_says_who_may_what(lab: Lab) -> None:
    require_users()
    lab.network("other", 'address = "10.2.0.1/24"')
    lab.start()
    assert "nobody may not use the networks of this computer" in refused(lab)
    lab.rules(RULES)
    assert "nobody may not use the network other (allowed are: lab" in refused(lab, "other")
    assert "port 80 of this computer may not be forwarded (allowed are: 8000-8999" in refused(
        lab, forwards=("tcp:0.0.0.0:80:80",)
    )
    assert "the filter 'none' is not allowed here" in refused(lab, filter="none")
    with as_user(NOBODY):
        for verb, about in (("up", "lab"), ("down", "lab"), ("plan", "lab")):
            with pytest.raises(RefusedError, match="is the administrator's to do"):
                lab.ask(verb, network=about)
        assert [each["name"] for each in lab.ask("networks")["networks"]] == ["lab"]
    # A network that is allowed is made for whom it is allowed.
    alpha = lab.guest("alpha", user=NOBODY, forwards=("tcp:0.0.0.0:8080:80",))
    assert alpha.lease()
    with as_user(NOBODY):
        with pytest.raises(RefusedError, match="port 80 of this computer"):
            lab.ask("change", machine="alpha", nic="net0", forwards=["tcp:0.0.0.0:80:80"])
        with pytest.raises(RefusedError, match="the filter 'none'"):
            lab.ask("change", machine="alpha", nic="net0", filter="none")
    # Of others' cards nobody sees or touches any, and is not in their way.
    lab.guest("root")
    with as_user(NOBODY):
        assert [each["machine"] for each in lab.ask("nics")["nics"]] == ["alpha"]
        with pytest.raises(NotFoundError):
            lab.ask("detach", machine="root", nic="net0")
    lab.guest("beta", user=NOBODY)
    assert "has 2 network cards plugged in, as many as are allowed" in refused(lab)


def test_groups_are_allowed_too_and_a_broken_list_allows_nobody(lab: Lab) -> None:
    require_users()
    lab.rules('[[allow]]\nid = "all"\ngroups = ["nogroup"]\nnetworks = ["*"]')
    lab.start()
    with as_user(NOBODY):
        assert lab.ask("hello")["allowed"] == ["*"]
    with as_user(12345):
        assert lab.ask("hello")["allowed"] == []
    with as_user(12345, [NOBODY]):
        assert lab.ask("hello")["allowed"] == ["*"]
    lab.rules('[[allow]]\nid = "all"\nusers = "nobody"')
    with as_user(NOBODY), pytest.raises(QlaunchError, match=r"netd.toml:\d: allow.all"):
        lab.ask("networks")
    assert lab.ask("hello")["allowed"] == ["*"]
