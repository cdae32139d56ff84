"""Network cards plugged into a running machine, changed, and taken out of it again."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import (
    ConflictError,
    NotFoundError,
    PhaseError,
    QlaunchError,
    RefusedError,
    TimedOutError,
    UsageError,
)
from qlaunch.host.ports import port_holder
from qlaunch.qmp.session import Session
from qlaunch.store import machines, paths
from tests.prerequisites import both_qemus, require_passt
from tests.rig import PATIENCE, PROFILE, Rig, is_alive, nothing_left, until, write_profile
from tests.test_nic_cables import card, is_connected, network_of, nic, passt_of

pytestmark = pytest.mark.qemu


# For QEMU's own user network, in a machine that starts without a card.
TCP = "[security]\ntcp = true\n"


def devices(rig: Rig) -> set[str]:
    arguments = {"path": "/machine/peripheral"}
    answer = rig.ask("qmp", name="demo", command="qom-list", arguments=arguments)
    return {each["name"] for each in answer["return"]}


def saved(name: str = "demo") -> list[str]:
    plan = machines.load_plan(name)
    assert plan is not None
    return [each.id for each in plan.nics]


def noted() -> bool:
    return os.path.exists(os.path.join(paths.machine_state("demo"), "cards.json"))


def profile() -> Path:
    return Path(paths.config_dir(), "profiles", "demo.toml")


def attach(rig: Rig, *, persist: bool = False, **wish: Any) -> dict[str, Any]:
    answer: dict[str, Any] = rig.ask("nic-attach", name="demo", wish=wish, persist=persist)
    return answer


def change(rig: Rig, ident: str = "net0", **args: Any) -> dict[str, Any]:
    answer: dict[str, Any] = rig.ask("nic-set", name="demo", nic=ident, **args)
    return answer


def usernet(rig: Rig) -> str:
    """The forwards of QEMU's user networks, as QEMU has them."""
    return str(rig.ask("hmp", name="demo", line="info usernet")["text"])


@both_qemus
@pytest.mark.parametrize("machine, model", [("pc", "e1000"), ("pc", "rtl8139"), ("q35", "virtio")])
def test_a_card_comes_and_goes(rig: Rig, qemu_binary: str, machine: str, model: str) -> None:
    text = PROFILE.replace('"pc"', f'"{machine}"').replace('"ide"', '"sata"' if machine == "q35"
                                                           else '"ide"')  # fmt: skip
    write_profile("demo", TCP, text=text)
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    before = devices(rig), network_of(rig)
    made = attach(rig, model=model)
    assert (made["nic"], made["backend"], made["persistent"]) == ("net0", "user", False)
    assert "net0-dev" in devices(rig)
    assert saved() == ["net0"]
    assert not noted()
    assert rig.row()["network"] == ["user"]
    with pytest.raises(TimedOutError, match="has not let go of net0"):  # nobody ever answers
        rig.ask("nic-detach", name="demo", nic="net0", timeout=0.2)
    assert saved() == ["net0"]
    rig.ask("reset", name="demo")
    until(lambda: saved() == [], "the card to leave the plan")
    until(lambda: (devices(rig), network_of(rig)) == before, "its cable to go")
    assert "net0 is detached" in rig.machine_log()
    # It comes back as it was.
    again = attach(rig, model=model)
    assert (again["mac"], again["address"]) == (made["mac"], made["address"])
    rig.kill()
    assert nothing_left() == []


def test_what_persists_is_the_same_after_a_restart(rig: Rig, free_port: int) -> None:
    path = write_profile("demo", TCP)
    rig.up()
    attach(rig, model="e1000")
    made = attach(rig, model="e1000", forward=[f"{free_port}:22"], link="down", persist=True)
    assert (made["nic"], made["persistent"], made["link"]) == ("net1", True, "down")
    rig.kill()
    rig.up()
    assert saved() == ["net1"]
    again = nic(rig, "net1")
    assert {key: again[key] for key in again} == {key: made[key] for key in again}
    text = Path(path).read_text(encoding="utf-8")
    assert f'id = "net1"\nmodel = "e1000"\nforward = ["{free_port}:22"]\nlink = "down"\n' in text


def test_a_card_of_the_profile_comes_by_its_name_and_leaves_it(rig: Rig) -> None:
    write_profile("demo", TCP)
    rig.up()
    before = profile().read_text(encoding="utf-8")
    profile().write_text(before + '\n[[nic]]\nid = "lan"\nmodel = "pcnet"\n', encoding="utf-8")
    made = attach(rig, id="lan")
    assert (made["nic"], made["model"], made["persistent"]) == ("lan", "pcnet", True)
    with pytest.raises(ConflictError, match="has the network card lan already"):
        attach(rig, id="lan")
    with pytest.raises(TimedOutError):
        rig.ask("nic-detach", name="demo", nic="lan", timeout=0.1, persist=True)
    assert "lan" in profile().read_text(encoding="utf-8")


@both_qemus
def test_a_card_on_passt_comes_and_goes(rig: Rig, qemu_binary: str, free_port: int) -> None:
    require_passt()
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    attach(rig, model="e1000", backend="passt", forward=[f"{free_port}:22"])
    until(lambda: is_connected(rig), "QEMU and passt to be connected")
    passt = passt_of()
    assert f"(pid {passt})" in (port_holder(free_port, "127.0.0.1") or "")
    # The next supervisor knows it.
    rig.kill_supervisor()
    assert rig.row()["state"] == "running"
    assert passt_of() == passt
    with pytest.raises(TimedOutError):
        rig.ask("nic-detach", name="demo", nic="net0", timeout=0)
    rig.ask("reset", name="demo")
    until(lambda: saved() == [], "the card to leave the plan")
    until(lambda: not is_alive(passt), "passt's end")
    until(lambda: passt_of() == 0, "passt to be forgotten")
    assert port_holder(free_port, "127.0.0.1") is None
    rig.kill()
    assert nothing_left() == []


@both_qemus
def test_link_and_forwards_change_while_it_runs(rig: Rig, qemu_binary: str, free_port: int) -> None:
    write_profile("demo", card(f'forward = ["{free_port}:22"]'))
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    change(rig, link="down")
    assert nic(rig)["link"] == "down"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        other = int(probe.getsockname()[1])
    done = change(rig, link="up", forward=[f"{other}:80", f"udp:{other}:53"])
    assert done["forward"] == [f"tcp:127.0.0.1:{other}:80", f"udp:127.0.0.1:{other}:53"]
    assert str(other) in usernet(rig)
    assert str(free_port) not in usernet(rig)
    # What cannot be had changes nothing.
    with socket.create_server(("127.0.0.1", free_port)):
        with pytest.raises(ConflictError, match=f"port {free_port} is taken by python"):
            change(rig, forward=[f"{free_port}:22"], link="down")
    assert nic(rig)["forward"] == done["forward"]
    assert str(other) in usernet(rig)
    assert nic(rig)["link"] == "up"
    rig.kill_supervisor()
    assert nic(rig)["forward"] == done["forward"]
    assert change(rig, forward=[])["forward"] == []
    assert str(other) not in usernet(rig)


@both_qemus
def test_forwards_on_passt_change_while_it_runs(rig: Rig, qemu_binary: str, free_port: int) -> None:
    require_passt()
    write_profile("demo", card('backend = "passt"'))
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    first = passt_of()
    change(rig, forward=[f"{free_port}:22"])
    assert passt_of() not in (0, first)
    until(lambda: is_connected(rig), "QEMU and the other passt to be connected")
    assert f"(pid {passt_of()})" in (port_holder(free_port, "127.0.0.1") or "")
    change(rig, forward=[])
    with socket.create_server(("127.0.0.1", free_port)):
        with pytest.raises(ConflictError):
            change(rig, forward=[f"{free_port}:22"])
    until(lambda: is_connected(rig), "a passt without the forward")
    assert nic(rig)["forward"] == []


def test_what_is_set_can_go_into_the_profile(rig: Rig, free_port: int) -> None:
    text = card(f'# a comment\nforward = ["{free_port}:22", "9100-9102:80-82"]')
    path = Path(write_profile("demo", text))
    rig.up()
    wanted = [f"udp:{free_port}:53", "9100-9102:80-82"]
    assert change(rig, link="down", forward=wanted, persist=True)["persistent"]
    said = path.read_text(encoding="utf-8")
    assert "# a comment\n" in said
    assert f'forward = ["9100-9102:80-82", "udp:{free_port}:53"]' in said
    assert 'link = "down"' in said
    # A card that the profile does not know is said as a whole.
    attach(rig, model="pcnet")
    change(rig, "net1", link="down", persist=True)
    said = path.read_text(encoding="utf-8")
    assert 'id = "net1"\nbackend = "user"\nmodel = "pcnet"\nlink = "down"\n' in said
    rig.kill()
    rig.up()
    assert saved() == ["net0", "net1"]


def test_what_cannot_be_plugged_in_or_set_is_refused_in_words(rig: Rig, free_port: int) -> None:
    write_profile("demo", card(f'forward = ["{free_port}:22"]'))
    rig.up()
    before = devices(rig), network_of(rig)
    cases: list[tuple[type[QlaunchError], str, dict[str, Any]]] = [
        (UsageError, "model: 'e100' is not one of", {"model": "e100"}),
        (UsageError, "id: 'Net 1' is not an id", {"id": "Net 1"}),
        (UsageError, "forward: 'x' is not a forward", {"forward": ["x"]}),
        (UsageError, "has no 'colour'", {"colour": "red"}),
        (QlaunchError, "no network service answers", {"network": "lab"}),
        (ConflictError, f"port {free_port} is taken by", {"forward": [f"{free_port}:23"]}),
        (UsageError, "one pair of queues", {"model": "e1000", "queues": 2}),
    ]
    for kind, words, wish in cases:
        with pytest.raises(kind, match=words):
            attach(rig, **wish)
    assert (devices(rig), network_of(rig)) == before
    assert not noted()
    settings: list[tuple[type[QlaunchError], str, dict[str, Any]]] = [
        (UsageError, "change what", {}),
        (UsageError, "link is one of up, down", {"link": "sideways"}),
        (UsageError, "a filter has no meaning", {"filter": "mac"}),
        (UsageError, "is not", {"forward": ["80"]}),
        (ConflictError, "ask for the same port", {"forward": ["9090:1", "0.0.0.0:9090:2"]}),
        (RefusedError, "IPv4 only", {"forward": ["[::1]:9090:1"]}),
    ]
    for kind, words, args in settings:
        with pytest.raises(kind, match=words):
            change(rig, **args)
    with pytest.raises(NotFoundError, match="no network card 'net7'"):
        change(rig, "net7", link="down")
    rig.ask("pause", name="demo")
    with pytest.raises(PhaseError, match="paused"):
        rig.ask("nic-detach", name="demo", nic="net0")


def test_on_q35_some_cards_are_for_a_start_only(rig: Rig) -> None:
    text = PROFILE.replace('"pc"', '"q35"').replace('"ide"', '"sata"')
    write_profile("demo", card(), text=text)
    rig.up()
    with pytest.raises(RefusedError, match="rtl8139 cannot come or go") as caught:
        attach(rig, model="rtl8139")
    assert "virtio" in str(caught.value.hint)
    with pytest.raises(RefusedError, match="e1000 cannot come or go"):
        rig.ask("nic-detach", name="demo", nic="net0")
    for _ in range(4):
        attach(rig, model="virtio")
    with pytest.raises(RefusedError, match="root ports are used"):
        attach(rig, model="virtio")


async def reset_alone() -> None:
    """Reset the machine, which no supervisor has, and wait until its card is gone."""
    plan = machines.load_plan("demo")
    assert plan is not None
    session = await Session.connect(plan.chardev("qmp").path, name="demo")
    with session.expect("DEVICE_DELETED", match={"device": "net0-dev"}) as gone:
        await session.execute("system_reset")
        await gone.get(timeout=PATIENCE)
    await session.close()


def test_a_card_that_goes_while_no_supervisor_looks(rig: Rig) -> None:
    write_profile("demo", TCP)
    rig.up()
    attach(rig, model="e1000")
    with pytest.raises(TimedOutError):
        rig.ask("nic-detach", name="demo", nic="net0", timeout=0)
    rig.kill_supervisor()
    asyncio.run(reset_alone())
    assert rig.row()["state"] == "running"
    assert saved() == []
    assert "net0" not in network_of(rig)
