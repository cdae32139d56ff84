"""USB devices given to a running machine and taken from it, by the real supervisor and QEMU.

There is no USB hardware here: a device of this computer is one that is waited for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import (
    ConflictError,
    NotFoundError,
    PhaseError,
    RefusedError,
    UsageError,
)
from qlaunch.machine.steps import VARIABLE
from qlaunch.store import machines, paths
from tests.guest.image import iso
from tests.prerequisites import both_qemus
from tests.rig import PROFILE, Rig, is_alive, nothing_left, until, write_profile
from tests.spice.client import SpiceClient
from tests.test_disk_plug import devices, fdsets, nodes

pytestmark = pytest.mark.qemu

TEXT = PROFILE.replace('controller = "none"', 'controller = "ich9-ehci1"\nredirect = 2') + (
    "[display]\nspice = true\n"
)
STEPS = ("usb: noted", "usb: plugged", "usb: planned")


@pytest.fixture
def here(rig: Rig) -> Rig:
    """The demo guest, running, with EHCI and two slots."""
    write_profile("demo", text=TEXT)
    rig.up()
    return rig


def found(rig: Rig) -> dict[str, dict[str, Any]]:
    """What the machine has on USB, by its name."""
    return {each["id"]: each for each in rig.ask("usb-look", name="demo")["devices"]}


def profile() -> Path:
    return Path(paths.config_dir(), "profiles", "demo.toml")


def noted() -> bool:
    return Path(paths.machine_state("demo"), "gadgets.json").exists()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qlaunch", *words],
        check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@both_qemus
def test_devices_slots_sticks_and_cds_come_and_go(
    rig: Rig, qemu_binary: str, own_place: Path
) -> None:
    write_profile("demo", text=TEXT)
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    before = devices(rig), nodes(rig), fdsets(rig)
    told = rig.ask("usb-attach", name="demo", device="0951:1666")
    assert (told["id"], told["attached"], told["address"]) == ("usb1", False, "usb.0 port 3")
    assert "is not plugged into this computer now" in told["warnings"][0]
    assert rig.ask("usb-detach", name="demo", device="0951:1666")["id"] == "usb1"
    told = rig.ask("usb-attach", name="demo", device="1-2.3", id="front")
    assert "a device at the USB port 1-2.3" in told["warnings"][0]
    slots = rig.ask("usb-slots", name="demo", count=1, more=True)["slots"]
    assert [(each["id"], each["attached"]) for each in slots] == [
        ("redir0", False), ("redir1", False), ("redir2", False),
    ]  # fmt: skip
    iso(own_place / "a.iso", {"a.txt": "hello"})
    cd = rig.ask("usb-attach", name="demo", file=str(own_place / "a.iso"))
    assert (cd["id"], cd["what"]) == ("cd1", str(own_place / "a.iso"))
    drives = rig.ask("media", name="demo")["drives"]
    assert [(each["drive"], each["file"]) for each in drives] == [("cd1", cd["what"])]
    stick = own_place / "stick.img"
    stick.write_bytes(bytes(1 << 20))
    rig.ask("disk-attach", name="demo", file=str(stick), bus="usb", stick=True, format="raw")
    assert {key: each["kind"] for key, each in found(rig).items()} == {
        "front": "host", "redir0": "slot", "redir1": "slot", "redir2": "slot", "cd1": "cd",
        "stick1": "stick",
    }  # fmt: skip
    plan = machines.load_plan("demo")
    assert plan is not None
    assert not plan.disks[-1].snapshot
    with pytest.raises(RefusedError, match="all ports of its USB controller are used"):
        rig.ask("usb-slots", name="demo", count=1, more=True)
    for ident in ("front", "cd1"):
        rig.ask("usb-detach", name="demo", device=ident)
    rig.ask("disk-detach", name="demo", disk="stick1")
    rig.ask("usb-slots", name="demo", count=2)
    assert (devices(rig), nodes(rig), fdsets(rig)) == before
    assert not noted()
    rig.kill()
    assert nothing_left() == []


def test_what_persists_is_there_at_the_next_start_on_the_same_port(here: Rig) -> None:
    profile().write_text(profile().read_text(encoding="utf-8") + "# the end\n", encoding="utf-8")
    told = here.ask("usb-attach", name="demo", device="0951:1666", persist=True)
    here.ask("usb-slots", name="demo", count=3, persist=True)
    assert told["persistent"]
    here.kill()
    up = here.up()
    assert "0951:1666 is not plugged into this computer" in up["warnings"][0]["message"]
    assert found(here)["usb1"]["port"] == told["port"]
    assert "redir2" in found(here)
    text = profile().read_text(encoding="utf-8")
    assert 'id = "usb1"\ndevice = "0951:1666"\n' in text
    assert "redirect = 3" in text
    assert "# the end\n" in text
    # Out, and in by the name that the profile has for it.
    assert here.ask("usb-detach", name="demo", device="0951:1666")["in_profile"]
    assert here.ask("usb-attach", name="demo", device="0951:1666")["persistent"]
    assert not here.ask("usb-detach", name="demo", device="usb1", persist=True)["in_profile"]
    assert "hostdev" not in profile().read_text(encoding="utf-8")


def test_what_cannot_be_is_refused_with_what_to_do(here: Rig, own_place: Path) -> None:
    here.ask("usb-attach", name="demo", device="0951:1666")
    (own_place / "empty.iso").write_bytes(b"")
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (UsageError, "which USB device", {}),
        (UsageError, "is no USB device", {"device": "951:1"}),
        (UsageError, "is not absolute", {"file": "a.iso"}),
        (UsageError, "no name for a device", {"device": "1-1", "id": "A"}),
        (ConflictError, "has 0951:1666 already, as usb1", {"device": "0951:1666"}),
        (ConflictError, "something called redir0", {"device": "1-1", "id": "redir0"}),
        (ConflictError, "something called disk0", {"device": "1-1", "id": "disk0"}),
        (NotFoundError, "is not there", {"file": "/no/such.iso"}),
        (RefusedError, "is empty", {"file": str(own_place / "empty.iso")}),
    ]
    before = devices(here)
    for kind, text, args in cases:
        with pytest.raises(kind, match=text):
            here.ask("usb-attach", name="demo", **args)
    with pytest.raises(NotFoundError, match="no USB device 'nothing'"):
        here.ask("usb-detach", name="demo", device="nothing")
    with pytest.raises(UsageError, match="0 to 15"):
        here.ask("usb-slots", name="demo", count=16)
    assert devices(here) == before
    assert not noted()


def test_without_a_controller_or_spice_it_is_told(rig: Rig) -> None:
    rig.up("demo", "display.spice=false")
    with pytest.raises(RefusedError, match="no USB controller"):
        rig.ask("usb-attach", name="demo", device="0951:1666")
    with pytest.raises(PhaseError, match="has no SPICE"):
        rig.ask("usb-slots", name="demo", count=1)


def test_what_qemu_refuses_is_undone(here: Rig) -> None:
    # A device at a port that the plan does not know to be taken.
    stray = {"driver": "usb-kbd", "id": "stray", "bus": "usb.0", "port": "3"}
    here.ask("qmp", name="demo", command="device_add", arguments=stray)
    before = devices(here)
    with pytest.raises(Exception, match=r"in use|port|not found"):
        here.ask("usb-slots", name="demo", count=1, more=True)
    assert devices(here) == before
    labels = here.ask("qmp", name="demo", command="query-chardev")["return"]
    assert "redir2-chr" not in {each["label"] for each in labels}
    assert not noted()


@pytest.mark.fault
@pytest.mark.parametrize("step", STEPS)
def test_an_attach_that_is_cut_off_is_finished_or_undone(
    here: Rig, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = devices(here)
    here.kill_supervisor()
    monkeypatch.setenv(VARIABLE, step)
    supervisor = here.supervisor()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(Exception, match="hung up"):
        here.ask("usb-slots", name="demo", count=1, more=True)
    until(lambda: not is_alive(supervisor), "the supervisor's end")
    until(lambda: here.row().get("state") == "running", "the machine")
    here.supervisor()
    until(lambda: not noted(), "the note to go")
    more = set() if step == "usb: noted" else {"redir2"}
    assert devices(here) == before | more
    assert set(found(here)) == {"redir0", "redir1"} | more
    here.ask("usb-slots", name="demo", count=2)
    assert devices(here) == before


def test_a_detach_that_is_cut_off_is_finished(here: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = devices(here)
    here.ask("usb-attach", name="demo", device="0951:1666")
    here.kill_supervisor()
    monkeypatch.setenv(VARIABLE, "usb: out")
    supervisor = here.supervisor()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(Exception, match="hung up"):
        here.ask("usb-detach", name="demo", device="usb1")
    until(lambda: not is_alive(supervisor), "the supervisor's end")
    until(lambda: here.row().get("state") == "running", "the machine")
    until(lambda: "usb1" not in found(here), "the plan")
    assert devices(here) == before


def test_the_command_says_what_it_did(here: Rig, own_place: Path) -> None:
    listed = json.loads(command("usb", "list", "demo", "--json").stdout)
    assert [each["id"] for each in listed["devices"]] == ["redir0", "redir1"]
    said = command("usb", "attach", "demo", "0951:1666").stderr
    assert "demo: 0951:1666 is usb1, and waited for, until it is stopped" in said
    (own_place / "stick.img").write_bytes(bytes(1 << 20))
    said = command("usb", "attach", "demo", str(own_place / "stick.img")).stderr
    assert "stick.img is plugged in as stick1, until it is stopped" in said
    shown = command("usb", "demo", "list").stdout
    assert "usb1" in shown
    assert "waited for" in shown
    assert command("usb", "detach", "demo", str(own_place / "stick.img")).returncode == 0
    assert command("usb", "detach", "demo", "0951:1666").returncode == 0
    assert command("usb", "slots", "demo", "+1").stdout.split()[-3:] == ["redir2", "5", "free"]
    failed = command("usb", "attach", "demo", "no-such-thing")
    assert failed.returncode == 2
    assert "neither a USB device nor a file" in failed.stderr
    assert command("usb", "slots", "demo", "many").returncode == 2


@pytest.mark.spice
@both_qemus
def test_a_slot_more_is_there_as_soon_as_all_are_used(
    rig: Rig, qemu_binary: str, own_place: Path
) -> None:
    write_profile("demo", text=TEXT.replace("redirect = 2", "redirect = 1"))
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    iso(own_place / "a.iso", {"a.txt": "hello"})
    with SpiceClient() as client:
        path = f"{paths.machine_runtime('demo')}/spice.sock"
        client.open(f"spice+unix://{path}", enable_usbredir=True)
        for number in range(2):
            client.ask("share_cd", path=str(own_place / "a.iso"))
            client.ask("redirect", number=client.expect(event="usb")["number"])
            assert client.expect(event="redirected")["error"] is None
            client.expect(event="channel", channel="usbredir", what="opened")
            rig.kill_supervisor()  # the next one goes on with it
            until(lambda: f"redir{number + 1}" in found(rig), "a slot more")  # noqa: B023
        assert found(rig)["redir1"]["attached"]
        assert "redir2 is one more" in rig.machine_log()
