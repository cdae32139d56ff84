"""Supervisor and QEMU killed at every step of every verb of disks: what the guest has written is
where the next start looks for it, and nothing is left that nobody needs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from qlaunch.errors import QlaunchError, SessionLostError
from qlaunch.machine import plug_notes
from qlaunch.machine.steps import VARIABLE
from qlaunch.store import machines, paths
from tests.rig import Rig, is_alive, nothing_left, until
from tests.test_disk_plug import devices, fdsets, groups, nodes, plug_file, saved_disks
from tests.timetravel import Traveller

pytestmark = [pytest.mark.qemu, pytest.mark.fault]

MIB = 1 << 20
ATTACH = ("attach: created", "attach: noted", "attach: nodes", "attach: plugged", "attach: planned")
DETACH = ("detach: asked", "detach: out")
MOVE = (
    "move: made", "move: begun", "move: ready", "move: stopped", "move: complete", "move: noted",
)  # fmt: skip
STOPPED_MOVE = ("move: copied", "move: noted")
RESIZE = ("resize: begun", "resize: done")
WHOM = ("", "@qemu")


def cut(rig: Rig, patch: pytest.MonkeyPatch, step: str, verb: str, **args: object) -> None:
    """Carry out `verb` up to `step`, where its supervisor (or QEMU) is killed."""
    rig.kill_supervisor()
    patch.setenv(VARIABLE, step)
    supervisor = rig.supervisor()
    patch.delenv(VARIABLE)
    with contextlib.suppress(QlaunchError):
        rig.ask(verb, name="demo", **args)
    if step.endswith("@qemu"):
        until(lambda: rig.row() == {}, "QEMU's end")
        with contextlib.suppress(QlaunchError):
            rig.kill_supervisor()
    else:
        until(lambda: not is_alive(supervisor), "the supervisor's end")
    # Who meets a supervisor that is just ending is told so, and asks again.
    with contextlib.suppress(SessionLostError):
        rig.row()
    rig.supervisor()


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", ATTACH)
def test_an_attach_that_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str, whom: str
) -> None:
    rig.up()
    rig.ready()
    before = nodes(rig), devices(rig), fdsets(rig), groups(rig)
    cut(rig, monkeypatch, step + whom, "disk-attach", size=MIB, bus="virtio")
    if whom:
        rig.up()
        rig.responds()
    until(lambda: rig.row().get("state") == "running", "the machine")
    plugged = not whom and ATTACH.index(step) >= ATTACH.index("attach: plugged")
    assert saved_disks() == (["disk0", "disk1"] if plugged else ["disk0"])
    if not plugged:
        if step != "attach: noted":  # a descriptor may be with QEMU, which nobody knows of
            assert (nodes(rig), devices(rig), groups(rig)) == (before[0], before[1], before[3])
        assert fdsets(rig) == before[2]
    assert not (plug_file() and not whom)
    # The same may be done again; its image is there, perhaps.
    made = os.path.join(paths.machine_data("demo"), "disk1.qcow2")
    if not plugged:
        wish = {"file": made} if os.path.exists(made) else {"size": MIB}
        assert rig.ask("disk-attach", name="demo", bus="virtio", **wish)["disk"] == "disk1"
    rig.kill()
    assert nothing_left() == []


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", DETACH)
def test_a_detach_that_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str, whom: str
) -> None:
    rig.up("demo", 'usb.controller="ich9-ehci1"')
    rig.ready()
    before = nodes(rig), devices(rig), fdsets(rig), groups(rig)
    profile = Path(paths.config_dir(), "profiles", "demo.toml")
    text = profile.read_text(encoding="utf-8").replace('"none"', '"ich9-ehci1"')
    profile.write_text(text, encoding="utf-8")
    rig.ask("disk-attach", name="demo", size=MIB, bus="usb")
    cut(rig, monkeypatch, step + whom, "disk-detach", disk="disk1")
    if not whom:
        until(lambda: rig.row().get("state") == "running", "the machine")
        assert saved_disks() == ["disk0"]
        assert (nodes(rig), devices(rig), fdsets(rig), groups(rig)) == before
        assert not plug_file()
        rig.kill()
    assert nothing_left() == []


def flush(rig: Rig) -> None:
    """The demo guest never flushes: what QEMU has not written out dies with it."""
    rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')


def image_in_profile() -> str:
    plan = machines.load_plan("demo")
    assert plan is not None
    for line in Path(plan.profile).read_text(encoding="utf-8").splitlines():
        if line.startswith("path = "):
            return line.partition("= ")[2].strip('"')
    return os.path.join(paths.machine_data("demo"), "disk0.qcow2")


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", MOVE)
def test_a_move_that_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, own_place: Path, step: str, whom: str
) -> None:
    rig.up()
    rig.ready()
    here, old = Traveller(rig), os.path.join(paths.machine_data("demo"), "disk0.qcow2")
    here.say("+one\r")
    flush(rig)
    target = str(own_place / "moved.qcow2")
    cut(rig, monkeypatch, step + whom, "disk-move", disk="disk0", target=target)
    if whom:
        rig.up()
        rig.responds()
    until(lambda: rig.row().get("state") == "running", "the machine to go on")
    moved = MOVE.index(step) >= MOVE.index("move: complete")
    assert image_in_profile() == (target if moved else old)
    assert here.now() == (1, "one")
    here.say("+two\r")
    assert not plug_file() or whom
    if not whom:
        assert os.path.exists(target) == moved
        assert os.path.exists(old) == (not moved)
        assert {name for name in nodes(rig) if name.startswith("disk0")} == {
            "disk0", *(("disk0-1-format", "disk0-1-file") if moved
                       else ("disk0-format", "disk0-file")),
        }  # fmt: skip
        assert fdsets(rig) == 1
    if not moved:  # whatever was left does not keep it from being done now
        rig.ask("disk-move", name="demo", disk="disk0", target=target)
    assert here.now() == (2, "onetwo")
    rig.kill()
    rig.up()
    assert here.now() == (2, "onetwo")
    rig.kill()
    assert nothing_left() == []


@pytest.mark.parametrize("step", STOPPED_MOVE)
def test_a_move_of_a_stopped_machine_that_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, own_place: Path, step: str
) -> None:
    rig.up()
    rig.ready()
    here, target = Traveller(rig), str(own_place / "moved.qcow2")
    here.say("+one\r")
    flush(rig)
    rig.kill()
    cut(rig, monkeypatch, step, "disk-move", disk="disk0", target=target)
    assert os.path.exists(image_in_profile())
    if step == "move: copied":
        rig.ask("disk-move", name="demo", disk="disk0", target=target)
    assert image_in_profile() == target
    rig.up()
    assert here.now() == (1, "one")
    rig.kill()


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("step", RESIZE)
def test_a_resize_that_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str, live: bool
) -> None:
    rig.up()
    rig.ready()
    here = Traveller(rig)
    here.say("+one\r")
    flush(rig)
    if not live:
        rig.kill()
    cut(rig, monkeypatch, step, "disk-resize", disk="disk0", size=2 * MIB)
    if not live:
        rig.up()
        rig.responds()
    done = rig.ask("disk-resize", name="demo", disk="disk0", size=2 * MIB)
    assert done["before"] == (2 * MIB if step == "resize: done" else MIB)
    assert here.now() == (1, "one")
    here.check_images()
    rig.kill()


def test_a_note_of_another_qemu_counts_no_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, own_place: Path
) -> None:
    rig.up()
    target = str(own_place / "moved.qcow2")
    cut(rig, monkeypatch, "move: begun@qemu", "disk-move", disk="disk0", target=target)
    left = plug_notes.left_move("demo")
    assert left is None or left.new == target
    rig.up()
    rig.kill_supervisor()
    assert rig.row()["state"] == "running"
    assert saved_disks() == ["disk0"]
    rig.kill()
