"""What is decided about USB devices that come and go, and filters in both spellings."""

from __future__ import annotations

import pytest
from attrs import evolve

from qlaunch.argv import gadgets as words
from qlaunch.plan import gadgets
from qlaunch.plan.model import Leases, Plan
from qlaunch.plan.usb_filter import Rule, for_client, for_qemu
from qlaunch.records import from_plain, to_plain
from tests import plans
from tests.wishes_usb import STICK

XP = 'guest = "windows-xp"\n[display]\nspice = true\n'


def plan_of(text: str) -> Plan:
    resolution = plans.plan_of(text)
    assert resolution.errors == ()
    return resolution.plan


@pytest.mark.parametrize(
    "rule, spelled",
    [
        ("allow all", "-1,-1,-1,-1,1"),
        ("deny hid", "0x03,-1,-1,-1,0"),
        ("allow class 0xdc", "0xdc,-1,-1,-1,1"),
        ("allow 0951:1666", "-1,0x0951,0x1666,-1,1"),
        ("deny 0951:*", "-1,0x0951,-1,-1,0"),
        ("allow storage 1234:BEEF@2.56", "0x08,0x1234,0xbeef,0x0256,1"),
    ],
)
def test_a_rule_is_spelled_as_client_and_qemu_read_it(rule: str, spelled: str) -> None:
    assert for_client([rule]) == spelled
    assert for_qemu([rule]) == spelled.replace(",", ":")


def test_rules_stand_in_their_order() -> None:
    rules = ["deny hid", "allow all"]
    assert for_client(rules) == "0x03,-1,-1,-1,0|-1,-1,-1,-1,1"
    assert for_qemu([]) == for_client([]) == ""


@pytest.mark.parametrize("text", ["allow", "permit all", "allow 951:1", "allow all storage", ""])
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rule"):
        Rule.parse(text)


def test_the_filter_is_in_every_slot_and_in_what_the_viewer_gets() -> None:
    plan = plan_of(XP + '[usb]\nfilter = ["allow storage"]\n')
    slots = [each for each in gadgets.gadgets(plan) if each.kind == "slot"]
    assert [each.device.props["filter"] for each in slots] == ["0x08:-1:-1:-1:1"] * 4
    assert plan.view.usb_filter == "0x08,-1,-1,-1,1"


def test_what_comes_and_goes_leaves_the_plan_as_it_was() -> None:
    plan = plan_of(XP)
    for gadget in (
        gadgets.host_device("usb1", "0951:1666", 6),
        gadgets.slot("redir4", 6, ""),
        gadgets.cd("cd1", "/a.iso", 6),
    ):
        more = gadgets.with_gadget(plan, gadget)
        assert gadget.id in {each.id for each in gadgets.gadgets(more)}
        assert gadgets.without_gadget(more, gadget) == plan
        assert from_plain(gadgets.Gadget, to_plain(gadget)) == gadget


def test_a_free_port_is_the_one_it_had_or_one_that_nobody_had() -> None:
    plan = plan_of(XP)  # a tablet and four slots on the six ports of EHCI
    assert gadgets.free_port(plan, Leases(), "usb1") == 6
    plan = plan_of(XP + "[usb]\nredirect = 1\n")
    assert gadgets.free_port(plan, Leases(places={"usb1": "usb/5"}), "usb1") == 5
    assert gadgets.free_port(plan, Leases(places={"old": "usb/3"}), "usb1") == 4
    kept = {f"old{port}": f"usb/{port}" for port in range(3, 7)}
    assert gadgets.free_port(plan, Leases(places=kept), "usb1") == 3
    full = evolve(plan, controllers=())
    assert gadgets.free_port(full, Leases(), "usb1") is None


def test_a_host_device_is_known_again() -> None:
    for which in ("0951:1666", "1-2.3"):
        device = gadgets.host_device("usb1", which, 1).device
        assert gadgets.which_of(device) == which
        assert STICK.is_meant(which)


def test_the_commands_that_plug_in_and_take_out() -> None:
    host = gadgets.host_device("usb1", "1-2.3", 6)
    (add,) = words.plug_in(host)
    assert (add.name, dict(add.arguments)) == (
        "device_add",
        {"driver": "usb-host", "id": "usb1", "hostbus": 1, "hostport": "2.3", "bus": "usb.0",
         "port": "6"},
    )  # fmt: skip
    passing = gadgets.slot("redir4", 6, "x", passing=True)
    names = [each.name for each in words.plug_in(passing, "usb1")]
    assert names == ["chardev-add", "device_add"]
    assert "filter" not in passing.device.props
    medium = words.plug_in(gadgets.cd("cd1", "/a.iso", 2), 7)
    assert [each.name for each in medium] == [
        "blockdev-add", "blockdev-add", "device_add", "device_add", "qom-set",
    ]  # fmt: skip
    assert dict(words.take_out(host).arguments) == {"id": "usb1"}


@pytest.mark.parametrize("version", plans.VERSIONS)
def test_every_command_is_one_of_qemus(version: str) -> None:
    known = plans.commands(version)
    for gadget, opened in (
        (gadgets.host_device("usb1", "0951:1666", 6), None),
        (gadgets.slot("redir4", 6, ""), None),
        (gadgets.slot("redir5", 6, "", passing=True), "usb1"),
        (gadgets.cd("cd1", "/a.iso", 6), 1),
    ):
        for command in (*words.plug_in(gadget, opened), words.take_out(gadget)):
            assert command.name in known
