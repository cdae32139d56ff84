"""Nothing moves: with the leases of an earlier start every device stays where it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaunch.plan import Leases, Plan, Resolution
from qlaunch.profile.model import Profile
from tests import plans

KINDS = {
    "ide": '[[disk]]\nid = "{id}"\nbus = "ide"\nsize = "1GiB"\n',
    "sata": '[[disk]]\nid = "{id}"\nbus = "sata"\nsize = "1GiB"\n',
    "scsi": '[[disk]]\nid = "{id}"\nbus = "scsi"\nsize = "1GiB"\n',
    "virtio": '[[disk]]\nid = "{id}"\nbus = "virtio"\nsize = "1GiB"\n',
    "nvme": '[[disk]]\nid = "{id}"\nbus = "nvme"\nsize = "1GiB"\n',
    "stick": '[[disk]]\nid = "{id}"\nbus = "usb"\nsize = "1GiB"\n',
    "cd": '[[cdrom]]\nid = "{id}"\n',
    "card": '[[nic]]\nid = "{id}"\nmodel = "e1000"\n',
    "express": '[[nic]]\nid = "{id}"\nmodel = "virtio"\n',
    "tablet": '[[input]]\nid = "{id}"\nmodel = "usb-tablet"\n',
    "keys": '[[input]]\nid = "{id}"\nmodel = "virtio-keyboard"\n',
    "channel": '[[channel]]\nid = "{id}"\nname = "n.{id}"\n',
    "explicit": '[[nic]]\nid = "{id}"\nmodel = "e1000"\naddress = "1{at}.0"\n',
}
MOST = {"ide": 2, "sata": 4, "cd": 2, "stick": 2, "tablet": 2, "explicit": 3}

Device = tuple[str, int]


@st.composite
def device_sets(draw: st.DrawFn, *, q35: bool) -> list[Device]:
    """Devices in an order of their own, no more of a kind than there is room for."""
    kinds = [kind for kind in KINDS if not (q35 and kind == "ide")]
    every = [(kind, n) for kind in kinds for n in range(MOST.get(kind, 3))]
    return draw(st.lists(st.sampled_from(every), unique=True, max_size=14))


def profile_of(devices: Sequence[Device], *, q35: bool) -> Profile:
    parts = ['[usb]\ncontroller = "xhci"\n', f'[machine]\ntype = "{"q35" if q35 else "pc"}"\n']
    parts += [KINDS[kind].format(id=f"{kind}{n}", at=n) for kind, n in devices]
    return plans.profile("".join(parts))


def resolved(devices: Sequence[Device], leases: Leases, *, q35: bool) -> Resolution:
    resolution = plans.plan_of(profile_of(devices, q35=q35), leases=leases)
    assert resolution.errors == (), plans.findings(resolution)
    return resolution


def spots(resolution: Resolution) -> dict[str, tuple[Any, ...]]:
    """Where every device is: its bus and its position there."""
    keys = ("bus", "addr", "unit", "scsi-id", "port", "nr")
    return {
        ident: tuple(props.get(key) for key in keys)
        for ident, props in plans.devices_of(resolution).items()
        if "bus" in props
    }


def check_board(resolution: Resolution, *, q35: bool) -> None:
    """Every place is used once, and none that the board has."""
    found = [spot for spot in spots(resolution).values() if any(spot[1:]) or "ide" in str(spot[0])]
    assert len(found) == len(set(found))
    root, reserved = ("pcie.0", (0, 0x1F)) if q35 else ("pci.0", (0, 1))
    for ident, props in plans.devices_of(resolution).items():
        if props.get("bus") == root:
            slot = int(str(props["addr"]).partition(".")[0], 16)
            assert slot not in reserved
            assert not q35 or (slot in (2, 3, 4)) == ident.startswith("rp")


@pytest.mark.parametrize("q35", [False, True], ids=["pc", "q35"])
@settings(max_examples=25)
@given(data=st.data())
def test_no_device_moves_when_others_come_go_and_change_their_order(
    data: st.DataObject, q35: bool
) -> None:
    leases, known = Leases(), dict[str, tuple[Any, ...]]()
    for _ in range(3):
        devices = data.draw(device_sets(q35=q35))
        resolution = resolved(devices, leases, q35=q35)
        check_board(resolution, q35=q35)
        now = spots(resolution)
        # Who asks for an address by name gets it, also from one that had it on a lease.
        asked = {spot for ident, spot in now.items() if ident.startswith("explicit")}
        known = {
            ident: spot
            for ident, spot in known.items()
            if spot not in asked or ident.startswith("explicit")
        }
        # Also who was away for a while is back in its old place.
        assert {k: v for k, v in now.items() if k in known} == {
            k: v for k, v in known.items() if k in now
        }
        known |= now
        leases = resolution.leases
        for kind, number in devices:
            if kind == "explicit":
                assert now[f"explicit{number}-dev"][1] == f"0x1{number}"


@pytest.mark.parametrize("q35", [False, True], ids=["pc", "q35"])
@settings(max_examples=15)
@given(data=st.data())
def test_once_leased_the_order_in_the_profile_does_not_matter(
    data: st.DataObject, q35: bool
) -> None:
    devices = data.draw(device_sets(q35=q35))
    first = resolved(devices, Leases(), q35=q35)
    other = resolved(data.draw(st.permutations(devices)), first.leases, q35=q35)
    assert spots(other) == spots(first)
    assert other.leases == first.leases


def test_a_new_disk_at_the_top_of_the_profile_does_not_push_the_others() -> None:
    one = '[[disk]]\nid = "b"\nbus = "ide"\nsize = "1GiB"\n'
    first = plans.plan_of(one)
    both = plans.plan_of(one.replace('"b"', '"a"') + one, leases=first.leases)
    assert spots(both)["b-dev"] == spots(first)["b-dev"] == ("ide.0", None, 0, None, None, None)
    assert spots(both)["a-dev"] == ("ide.0", None, 1, None, None, None)


def test_an_explicit_position_is_kept_free_for_who_says_it() -> None:
    text = '[[disk]]\nid = "a"\nsize = "1GiB"\n[[disk]]\nid = "b"\naddress = "0.0"\nsize = "1GiB"\n'
    found = spots(plans.plan_of(text))
    assert found["b-dev"][:3] == ("ide.0", None, 0)
    assert found["a-dev"][:3] == ("ide.0", None, 1)


def test_an_address_that_had_to_be_given_away_is_not_leased_twice() -> None:
    cards = "".join(f'[[nic]]\nid = "n{n}"\nmodel = "e1000"\n' for n in range(28))
    full = plans.plan_of(cards)
    other = plans.plan_of(cards.replace('"n0"', '"m"'), leases=full.leases)
    assert spots(other)["m-dev"] == spots(full)["n0-dev"]
    places = list(other.leases.places.values())
    assert len(places) == len(set(places))
    assert "n0-dev" not in other.leases.places


@pytest.mark.parametrize(
    "place", ["", "pci.0", "pci.0/", "pci.0/zz.9", "rp99/00.0", "rpx/0", "ide/x", "ide/99", "/"]
)
def test_damaged_leases_count_for_nothing(place: str) -> None:
    text = '[[disk]]\nid = "a"\nsize = "1GiB"\n'
    names = ("video0", "a", "balloon0", "gone")
    for kind in ("pc", "q35"):
        whole = f'[machine]\ntype = "{kind}"\n{text}'
        leases = Leases(places=dict.fromkeys(names, place))
        assert spots(plans.plan_of(whole, leases=leases)) == spots(plans.plan_of(whole))


def test_q35_has_spare_ports_for_hot_plug_and_never_fewer_than_before() -> None:
    linux = 'guest = "linux"\n'
    few = plans.plan_of(linux)
    used = len(few.plan.controllers) - 5  # four spare ones, and the USB controller
    many = plans.plan_of(linux + "".join(f'[[nic]]\nid = "n{n}"\n' for n in range(10)))
    again = plans.plan_of(linux, leases=many.leases)
    ports = [d for d in again.plan.controllers if d.driver == "pcie-root-port"]
    assert used == len([p for p in few.leases.places.values() if p.startswith("rp")])
    assert len(ports) == used + 10


# ---- what else is given once --------------------------------------------------------------------


def test_the_machine_type_is_pinned_at_the_first_start() -> None:
    first = plans.plan_of("", version="7.2")
    assert first.plan.board.machine == "pc-i440fx-7.2"
    later = plans.plan_of("", version="10.0", leases=first.leases)
    assert later.plan.board.machine == "pc-i440fx-7.2"
    assert plans.plan_of("", version="10.0").plan.board.machine == "pc-i440fx-10.0"


def test_another_machine_type_in_the_profile_is_pinned_anew() -> None:
    first = plans.plan_of("", version="7.2")
    other = plans.plan_of('[machine]\ntype = "q35"\n', version="10.0", leases=first.leases)
    assert other.plan.board.machine == "pc-q35-10.0"
    assert other.leases.machine_asked == "q35"


def test_uuid_and_mac_stay_and_belong_to_this_machine_alone() -> None:
    text = '[[nic]]\nid = "net0"\n[[nic]]\nid = "net1"\n'
    first = plans.plan_of(text)
    assert plans.plan_of(text).plan == first.plan
    moved = evolve(plans.HOST, machine_id="another")
    kept = plans.plan_of(text, leases=first.leases, host=moved).plan
    assert (kept.uuid, kept.nics) == (first.plan.uuid, first.plan.nics)
    elsewhere = plans.plan_of(text, host=moved).plan
    renamed = plans.plan_of(plans.profile(text, name="vm2")).plan
    seen = {plan.uuid for plan in (first.plan, elsewhere, renamed)}
    macs = {nic.mac for plan in (first.plan, elsewhere, renamed) for nic in plan.nics}
    assert (len(seen), len(macs)) == (3, 6)
    assert all(mac.startswith("52:54:00:") for mac in macs)
    assert first.plan.uuid[14] == "8"


def test_what_the_profile_says_wins_over_leases() -> None:
    uuid = "12345678-1234-1234-1234-123456789ABC"
    text = '[[nic]]\nid = "net0"\n'
    first = plans.plan_of(text)
    said = text.replace('"net0"', '"net0"\nmac = "52:54:00:AB:00:01"')
    second = plans.plan_of(f'uuid = "{uuid}"\n{said}', leases=first.leases)
    assert second.plan.uuid == uuid.lower() == second.leases.uuid
    assert second.leases.macs == {"net0": "52:54:00:ab:00:01"}


# ---- boot.once ----------------------------------------------------------------------------------

ONCE = (
    '[boot]\norder = ["hda", "cd0"]\nonce = "cd0"\n'
    '[[disk]]\nid = "hda"\nsize = "1GiB"\n[[cdrom]]\nid = "cd0"\n'
)


def turns(plan: Plan) -> dict[str, int]:
    devices = plan.all_devices()
    return {d.id: d.props["bootindex"] for d in devices if "bootindex" in d.props}


def test_once_counts_for_the_first_boot_and_later_indexes_for_the_others() -> None:
    plan = plans.plan_of(ONCE).plan
    assert turns(plan) == {"cd0-dev": 1, "hda-dev": 2}
    assert plan.boot.later == {"hda-dev": 1, "cd0-dev": 2}
    assert plan.boot.once == "cd0"


def test_once_that_is_used_up_counts_no_more() -> None:
    done = Leases(once_done="cd0")
    resolution = plans.plan_of(ONCE, leases=done)
    assert turns(resolution.plan) == {"hda-dev": 1, "cd0-dev": 2}
    assert (resolution.plan.boot.once, resolution.plan.boot.later) == (None, {})
    assert resolution.leases.once_done == "cd0"


def test_another_once_in_the_profile_counts_anew() -> None:
    resolution = plans.plan_of(ONCE, leases=Leases(once_done="floppy"))
    assert resolution.plan.boot.once == "cd0"
    assert resolution.leases.once_done is None


def test_once_said_for_this_start_counts_again_and_changes_no_lease() -> None:
    wish = plans.profile(ONCE, "boot.once=cdrom")
    resolution = plans.plan_of(wish, leases=Leases(once_done="cd0"))
    assert turns(resolution.plan)["cd0-dev"] == 1
    assert resolution.plan.boot.later == {"hda-dev": 1, "cd0-dev": 2}
    assert resolution.plan.boot.once is None
    assert resolution.leases.once_done == "cd0"


def test_who_is_only_tried_once_has_no_turn_afterwards() -> None:
    text = ONCE.replace('"cd0"]', '"hda"]').replace('order = ["hda", "hda"]', 'order = ["hda"]')
    plan = plans.plan_of(text).plan
    assert plan.boot.later == {"cd0-dev": -1, "hda-dev": 1}


def test_the_turn_of_a_floppy_is_the_same_for_all_boots() -> None:
    text = '[boot]\nonce = "floppy"\n[[disk]]\nid = "a"\nsize = "1GiB"\n[[floppy]]\nid = "fd0"\n'
    for order, later in (('"disk"', 1), ('"disk", "floppy"', 1)):
        plan = plans.plan_of(text.replace("once", f"order = [{order}]\nonce")).plan
        assert plan.globals == (("isa-fdc", "bootindexA", "1000"),)
        assert turns(plan) == {"a-dev": 1001}
        assert plan.boot.later == {"a-dev": later}


def test_a_disk_may_move_when_another_one_was_there_before() -> None:
    text = 'guest = "windows-xp"\n[[disk]]\nid = "hda"\nbus = "virtio"\nsize = "1GiB"\n'
    prepared = Leases(buses={"hda": "ide", "driver0": "virtio"})
    assert plans.plan_of(text, leases=prepared).findings == ()
    alone = plans.plan_of(text, leases=Leases(buses={"hda": "ide"}))
    assert [finding.level for finding in alone.findings] == ["warning"]
    assert "0x7B" in alone.findings[0].message


def test_another_usb_controller_does_not_stay_at_a_function_of_the_one_before() -> None:
    text = '[machine]\ntype = "pc"\n[usb]\ncontroller = "{}"\n[[input]]\nid = "tablet0"\n'
    before = plans.plan_of(text.format("ich9-ehci1"))
    after = plans.plan_of(text.format("xhci"), leases=before.leases)
    assert after.findings == ()
    place = str(plans.devices_of(before)["usb"]["addr"])
    assert plans.devices_of(after)["usb"]["addr"] == place.partition(".")[0]
    again = plans.plan_of(text.format("ich9-ehci1"), leases=after.leases)
    assert plans.devices_of(again)["usb"]["addr"] == place
