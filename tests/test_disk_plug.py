"""Disks plugged into a running machine and taken out of it, by the real supervisor and QEMU."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import (
    ConflictError,
    HostError,
    NotFoundError,
    PhaseError,
    QlaunchError,
    RefusedError,
    TimedOutError,
    UsageError,
)
from qlaunch.qmp.session import Session
from qlaunch.store import machines, paths
from tests.prerequisites import both_qemus
from tests.rig import PATIENCE, PROFILE, Rig, nothing_left, until, write_profile

pytestmark = pytest.mark.qemu

BUSES = ("virtio", "scsi", "nvme", "usb")
# A drive on each bus that needs a controller, so that the machine has them.
CONTROLLERS = """
[[cdrom]]
id = "cd0"
bus = "scsi"
"""
TEXT = PROFILE.replace('controller = "none"', 'controller = "ich9-ehci1"') + CONTROLLERS
MIB = 1 << 20


def image(path: Path, *words: str, size: str = "8M") -> str:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *words, str(path), size]
    subprocess.run(command, check=True)
    return str(path)


def nodes(rig: Rig, name: str = "demo") -> set[str]:
    answer = rig.ask("qmp", name=name, command="query-named-block-nodes", arguments={"flat": True})
    return {node["node-name"] for node in answer["return"]}


def devices(rig: Rig, name: str = "demo") -> set[str]:
    arguments = {"path": "/machine/peripheral"}
    answer = rig.ask("qmp", name=name, command="qom-list", arguments=arguments)
    return {each["name"] for each in answer["return"]}


def fdsets(rig: Rig) -> int:
    return len(rig.ask("qmp", name="demo", command="query-fdsets")["return"])


def groups(rig: Rig) -> set[str]:
    answer = rig.ask("qmp", name="demo", command="qom-list", arguments={"path": "/objects"})
    return {each["name"] for each in answer["return"] if "throttle" in each["type"]}


def saved_disks(name: str = "demo") -> list[str]:
    plan = machines.load_plan(name)
    assert plan is not None
    return [disk.id for disk in plan.disks]


def plug_file(name: str = "demo") -> bool:
    return os.path.exists(os.path.join(paths.machine_state(name), "plugs.json"))


@pytest.fixture
def here(rig: Rig) -> Rig:
    """The demo guest, running, with a USB and a SCSI controller."""
    write_profile("demo", text=TEXT)
    rig.up()
    rig.ready()
    return rig


def attach(rig: Rig, **args: Any) -> dict[str, Any]:
    answer: dict[str, Any] = rig.ask("disk-attach", name="demo", **args)
    return answer


@both_qemus
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_disks_come_and_go_on_every_bus_that_can_do_it(
    rig: Rig, qemu_binary: str, machine: str, own_place: Path
) -> None:
    text = TEXT.replace('"pc"', f'"{machine}"').replace('"ide"', '"sata"' if machine == "q35" else
                                                        '"ide"')  # fmt: skip
    write_profile("demo", text=text)
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    before = nodes(rig), devices(rig), fdsets(rig), groups(rig)
    for bus in BUSES:
        made = attach(rig, file=image(own_place / f"{bus}.qcow2"), bus=bus, serial="S-1")
        assert made["bus"] == bus
        assert f"{made['disk']}-dev" in devices(rig)
    assert saved_disks() == ["disk0", "disk1", "disk2", "disk3", "disk4"]
    assert not plug_file()
    for disk in ("disk2", "disk4"):  # scsi and usb need no guest
        assert rig.ask("disk-detach", name="demo", disk=disk)["in_profile"] is False
    for disk in ("disk1", "disk3"):  # firmware never answers, a reset does
        with pytest.raises(TimedOutError, match="has not let go of"):
            rig.ask("disk-detach", name="demo", disk=disk, timeout=0.2)
        assert disk in saved_disks()
    rig.ask("reset", name="demo")
    until(lambda: saved_disks() == ["disk0"], "the disks to leave the plan")
    until(lambda: (nodes(rig), devices(rig), fdsets(rig), groups(rig)) == before, "the nodes to go")
    assert "detached" in rig.machine_log()
    rig.kill()
    assert nothing_left() == []


def test_a_new_disk_is_made_in_the_machines_folder(here: Rig) -> None:
    made = attach(here, size=8 * MIB, bus="virtio")
    assert made["created"]
    assert made["path"] == os.path.join(paths.machine_data("demo"), "disk1.qcow2")
    assert not made["persistent"]
    here.kill()
    here.up()
    assert saved_disks() == ["disk0"]


def test_what_persists_has_the_same_name_and_address_after_a_restart(here: Rig) -> None:
    profile = Path(paths.config_dir(), "profiles", "demo.toml")
    profile.write_text(profile.read_text() + "# the end\n", encoding="utf-8")
    attach(here, size=4 * MIB, bus="virtio")
    made = attach(here, size=8 * MIB, bus="virtio", serial="WD-1", persist=True)
    assert made["persistent"]
    here.kill()
    here.up()
    plan = machines.load_plan("demo")
    assert plan is not None
    assert [disk.id for disk in plan.disks] == ["disk0", "disk2"]
    props = plan.disks[1].device.props
    assert machines.load_leases("demo").places["disk2-dev"] == made["address"]
    assert props["serial"] == "WD-1"
    text = profile.read_text(encoding="utf-8")
    assert text.endswith("# the end\n")
    assert 'id = "disk2"\nsize = "8MiB"\nbus = "virtio"\nserial = "WD-1"\n' in text


def test_a_disk_of_the_profile_that_is_not_plugged_in_is_plugged_in_by_its_name(here: Rig) -> None:
    profile = Path(paths.config_dir(), "profiles", "demo.toml")
    more = '\n[[disk]]\nid = "later"\nsize = "4MiB"\nbus = "virtio"\n'
    profile.write_text(profile.read_text() + more, encoding="utf-8")
    made = attach(here, id="later")
    assert (made["disk"], made["created"], made["persistent"]) == ("later", True, True)
    with pytest.raises(ConflictError, match="has the disk later already"):
        attach(here, id="later")


def test_a_detach_can_take_the_disk_out_of_the_profile(here: Rig) -> None:
    profile = Path(paths.config_dir(), "profiles", "demo.toml")
    before = profile.read_text(encoding="utf-8")
    attach(here, size=4 * MIB, bus="usb", persist=True)
    assert here.ask("disk-detach", name="demo", disk="disk1")["in_profile"]
    with pytest.raises(NotFoundError, match="no disk 'disk1'"):
        here.ask("disk-detach", name="demo", disk="disk1")
    attach(here, id="disk1")
    answer = here.ask("disk-detach", name="demo", disk="disk1", persist=True)
    assert not answer["in_profile"]
    assert profile.read_text(encoding="utf-8").split() == before.split()


def test_a_bus_without_hotplug_is_refused_with_what_to_do(here: Rig) -> None:
    with pytest.raises(RefusedError, match="ide does not support hot-plug") as caught:
        attach(here, size=4 * MIB)
    assert "--bus virtio" in str(caught.value.hint)
    assert '[[disk]]\nid = "disk1"' in str(caught.value.hint)
    with pytest.raises(RefusedError, match="ide does not support hot-plug"):
        here.ask("disk-detach", name="demo", disk="disk0", force=True)


@pytest.mark.parametrize(
    "bus, what, lines",
    [("scsi", "SCSI", 'bus = "scsi"'), ("usb", "USB", '[usb]\ncontroller = "ich9-ehci1"')],
)
def test_a_missing_controller_is_told_with_the_lines_to_add(
    rig: Rig, bus: str, what: str, lines: str
) -> None:
    rig.up()
    with pytest.raises(RefusedError, match=f"no {what} controller") as caught:
        attach(rig, size=4 * MIB, bus=bus)
    assert lines in str(caught.value.hint)


def test_images_that_cannot_be_plugged_in_are_refused_in_words(here: Rig, own_place: Path) -> None:
    base = image(own_place / "base.qcow2")
    image(own_place / "top.qcow2", "-b", base, "-F", "qcow2")
    raw = own_place / "stick.img"
    raw.write_bytes(bytes(MIB))
    own = machines.load_plan("demo")
    assert own is not None
    before = nodes(here), devices(here), fdsets(here)
    cases: list[tuple[type[QlaunchError], str, dict[str, Any]]] = [
        (UsageError, "which disk", {}),
        (NotFoundError, "is not there", {"file": str(own_place / "no.qcow2")}),
        (UsageError, "is no qcow2 image", {"file": str(raw)}),
        (UsageError, "folder .* does not exist", {"file": "/no/such/x.qcow2", "size": MIB}),
        (ConflictError, "exists already", {"file": base, "size": MIB}),
        (ConflictError, "in use by qemu|already used by disk.disk0",
         {"file": own.disks[0].image}),
        (RefusedError, "backing file of .*top.qcow2", {"file": base}),
        (UsageError, "stands on .* does not allow", {"file": str(own_place / "top.qcow2")}),
        (UsageError, "not a whole number of sectors", {"size": 1000}),
        (UsageError, "name that qlaunch gives", {"file": base, "id": "nvram", "read_only": True}),
        (UsageError, "not absolute", {"file": "x.qcow2"}),
        (UsageError, "no bus 'floppy'", {"file": base, "bus": "floppy"}),
    ]  # fmt: skip
    for kind, words, args in cases:
        with pytest.raises(kind, match=words):
            attach(here, **{"bus": "virtio", **args})
    assert (nodes(here), devices(here), fdsets(here)) == before
    assert not plug_file()
    assert attach(here, file=base, bus="virtio", read_only=True)["warnings"] == []
    assert attach(here, file=str(raw), bus="virtio", format="raw")["bus"] == "virtio"


def test_an_image_that_another_machine_has_is_refused(here: Rig, own_place: Path) -> None:
    path = image(own_place / "shared.qcow2")
    attach(here, file=path, bus="virtio")
    here.up("other", profile=write_profile("other"))
    with pytest.raises(ConflictError, match="machine demo"):
        here.ask("disk-attach", name="other", file=path, bus="virtio")
    here.kill()
    warned = here.ask("disk-attach", name="other", file=path, bus="virtio")
    assert "never run both" in warned["warnings"][0]


def test_what_qemu_refuses_is_undone(here: Rig) -> None:
    before = nodes(here), devices(here), fdsets(here), groups(here)
    # A place that the plan does not know to be taken.
    device = {"driver": "virtio-rng-pci", "id": "stray", "bus": "pci.0", "addr": "0x3"}
    for slot in range(3, 31):
        if "stray" not in devices(here):
            try:
                here.ask("qmp", name="demo", command="device_add",
                         arguments={**device, "addr": hex(slot)})  # fmt: skip
            except QlaunchError:
                continue
    with pytest.raises(QlaunchError, match=r"in use|not available"):
        attach(here, size=4 * MIB, bus="virtio")
    after = nodes(here), devices(here) - {"stray"}, fdsets(here), groups(here)
    assert after == before
    assert not os.path.exists(os.path.join(paths.machine_data("demo"), "disk1.qcow2"))
    assert not plug_file()
    assert saved_disks() == ["disk0"]


def test_a_paused_guest_is_not_asked(here: Rig) -> None:
    attach(here, size=4 * MIB, bus="virtio")
    attach(here, size=4 * MIB, bus="usb")
    here.ask("pause", name="demo")
    with pytest.raises(PhaseError, match="paused"):
        here.ask("disk-detach", name="demo", disk="disk1")
    here.ask("disk-detach", name="demo", disk="disk2")  # needs no guest
    assert here.row()["state"] == "paused"


def test_the_disk_that_the_machine_starts_from_is_taken_out_by_force_only(rig: Rig) -> None:
    write_profile("demo", text=PROFILE.replace('"ide"', '"scsi"'))
    rig.up()
    with pytest.raises(RefusedError, match="starts from"):
        rig.ask("disk-detach", name="demo", disk="disk0")
    rig.ask("disk-detach", name="demo", disk="disk0", force=True)
    assert saved_disks() == []


async def reset_alone() -> None:
    """Reset the machine, which no supervisor has, and wait until its disk is gone."""
    plan = machines.load_plan("demo")
    assert plan is not None
    session = await Session.connect(plan.chardev("qmp").path, name="demo")
    with session.expect("DEVICE_DELETED", match={"device": "disk1-dev"}) as gone:
        await session.execute("system_reset")
        await gone.get(timeout=PATIENCE)
    await session.close()


def test_a_guest_that_lets_go_while_no_supervisor_looks(here: Rig) -> None:
    attach(here, size=4 * MIB, bus="virtio")
    with pytest.raises(TimedOutError):
        here.ask("disk-detach", name="demo", disk="disk1", timeout=0)
    here.kill_supervisor()
    asyncio.run(reset_alone())
    assert here.row()["state"] == "running"
    assert saved_disks() == ["disk0"]
    assert not [name for name in nodes(here) if name.startswith("disk1")]


def test_snapshots_and_plugged_disks_know_each_other(here: Rig, own_place: Path) -> None:
    path = image(own_place / "data.qcow2")
    attach(here, file=path, bus="virtio", id="data")
    here.ask("snapshot-create", name="demo", snapshot="one")
    with pytest.raises(TimedOutError):
        here.ask("disk-detach", name="demo", disk="data", timeout=0)
    here.ask("reset", name="demo")
    until(lambda: saved_disks() == ["disk0"], "the disk to go")
    # Without a name it is known again, and goes on where it was.
    again = attach(here, file=path, bus="virtio")
    assert again["disk"] == "data"
    assert os.path.basename(again["path"]) == "data.snap1.qcow2"
    here.ask("revert", name="demo", snapshot="one")


def test_no_space_for_a_new_image(rig: Rig, own_place: Path) -> None:
    if os.getuid():
        pytest.skip("only root can mount a small file system")
    rig.up()
    folder = own_place / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "qlaunch-test", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        with pytest.raises(HostError, match="is full"):
            attach(rig, file=str(folder / "big.qcow2"), size=MIB, bus="virtio")
        assert list(folder.iterdir()) == []
        assert saved_disks() == ["disk0"]
        assert not plug_file()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
