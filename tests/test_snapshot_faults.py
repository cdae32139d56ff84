"""Supervisor and QEMU killed at every step of every snapshot verb: the state is the one before or
the one after, the next supervisor tidies up, and every verb works afterwards."""

from __future__ import annotations

import contextlib
import os

import pytest

from qlaunch.errors import QlaunchError, SessionLostError
from qlaunch.machine.steps import VARIABLE
from qlaunch.store import machines
from qlaunch.store import timeline as store
from tests.rig import Rig, is_alive, nothing_left, until
from tests.test_disk_plug import fdsets, nodes
from tests.timetravel import Traveller

pytestmark = [pytest.mark.qemu, pytest.mark.fault]

CREATE = (
    "overlays: noted", "create: overlays", "create: nodes", "create: heads", "create: transaction",
    "create: memory", "create: committed",
)  # fmt: skip
REVERT = (
    "overlays: noted", "revert: overlays", "revert: stopped", "revert: noted", "revert: nodes",
    "revert: switched", "revert: memory added", "revert: loaded", "revert: concluded",
)  # fmt: skip
DELETE = (
    "delete: forgotten", "merge: noted", "merge: begun", "pivot: noted", "pivot: stopped",
    "pivot: complete", "pivot: heads", "merge: done", "merge: noted as done",
)  # fmt: skip
SAVE = ("save: noted", "save: written", "save: saved")
WHOM = ("", "@qemu")


class Cut:
    """Runs a verb whose supervisor, or QEMU, is killed at a step."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = rig
        self.patch = monkeypatch
        self.here = Traveller(rig)

    def begin(self) -> Traveller:
        """The demo guest with one snapshot, `one`, and something done since."""
        self.rig.up()
        self.rig.ready()
        self.here.say("+one\r")
        self.here.create("one")
        self.here.say("+two\r")
        # The demo guest never flushes: what QEMU has not written out dies with it.
        self.rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
        return self.here

    def off(self, step: str, verb: str, **args: object) -> None:
        """Carry out `verb` up to `step`; afterwards another supervisor has taken over."""
        self.rig.kill_supervisor()
        self.patch.setenv(VARIABLE, step)
        supervisor = self.rig.supervisor()
        self.patch.delenv(VARIABLE)
        with contextlib.suppress(QlaunchError):
            self.rig.ask(verb, name="demo", **args)
        if step.endswith("@qemu"):
            # One that has no work left ends; the other still has the variable.
            until(lambda: self.rig.row() == {}, "QEMU's end")
            with contextlib.suppress(QlaunchError):
                self.rig.kill_supervisor()
        else:
            until(lambda: not is_alive(supervisor), "the supervisor's end")

    def go_on(self) -> None:
        """The machine runs, whatever was cut off."""
        try:
            row = self.rig.row()
        except SessionLostError:
            # Met a supervisor that was just ending, as a client may; it has left no bug behind.
            assert self.rig.log() == ""
            row = self.rig.row()
        if row == {}:
            self.rig.up()
            self.rig.responds()
        until(lambda: self.rig.row()["state"] == "running", "the guest to go on")
        self.here.settle()

    def tidied(self) -> None:
        """No layer, node, descriptor, file or note is left of what was cut off."""
        self.here.settle()
        timeline = store.load("demo")
        assert not timeline.is_untidy
        assert (timeline.pending, timeline.saved, timeline.resume) == (None, None, False)
        there = {entry.partition(".")[0] for entry in os.listdir(store.folder("demo"))}
        assert there - {"timeline"} == {str(each.id) for each in timeline.snapshots}
        layers = self.here.layers()
        assert {"disk0.qcow2", *timeline.owned.get("disk0", ())} == set(layers)
        plan = machines.load_plan("demo")
        assert plan is not None
        chain = plan.disks[0].layers
        named = {name for layer in chain for name in (layer.node, layer.file_node)}
        ours = {name for name in nodes(self.rig) if name.startswith(("disk0", "memory"))}
        assert ours == {"disk0", *named}
        assert fdsets(self.rig) == len(chain)

    def check(self) -> None:
        """Every verb works, and all that is kept is what it was."""
        self.tidied()
        self.here.check_images()
        self.here.say("x\r")
        if "one" in self.here.labels():
            self.here.revert("one")
            assert self.here.now() == (1, "one")
        content = self.here.now()
        self.rig.ask("snapshot-prune", name="demo", keep=0)
        assert self.here.layers() == ["disk0.qcow2"]
        assert self.here.now() == content
        self.here.say("\r")
        self.rig.kill()
        self.rig.up()
        assert self.here.now() == content
        self.rig.kill()
        assert nothing_left() == []


@pytest.fixture
def cut(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Cut:
    return Cut(rig, monkeypatch)


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("disks_only", [False, True])
@pytest.mark.parametrize("step", CREATE)
def test_a_create_that_is_cut_off(cut: Cut, step: str, disks_only: bool, whom: str) -> None:
    cut.begin()
    cut.off(step + whom, "snapshot-create", snapshot="two", disks_only=disks_only)
    cut.go_on()
    taken = "two" in cut.here.labels()
    # A supervisor that lives on may complete a snapshot that QEMU did not survive.
    late = CREATE.index(step) >= CREATE.index("create: transaction")
    assert taken == (step == "create: committed") or (whom and late)
    assert cut.here.now() == (2, "onetwo")
    cut.check()


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", REVERT)
def test_a_revert_that_is_cut_off(cut: Cut, step: str, whom: str) -> None:
    cut.begin()
    cut.off(step + whom, "revert", snapshot="one")
    cut.go_on()
    done = REVERT.index(step) >= REVERT.index("revert: switched")
    assert cut.here.now() == ((1, "one") if done else (2, "onetwo"))
    cut.check()


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", DELETE)
def test_a_delete_that_is_cut_off(cut: Cut, step: str, whom: str) -> None:
    cut.begin()
    cut.off(step + whom, "snapshot-delete", snapshot="one")
    cut.go_on()
    assert cut.here.labels() == []
    assert cut.here.now() == (2, "onetwo")
    cut.check()


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", SAVE)
def test_a_save_that_is_cut_off(cut: Cut, step: str, whom: str) -> None:
    cut.begin()
    cut.here.say("+")
    cut.off(step + whom, "save")
    cut.go_on()
    # A QEMU that is killed takes with it what was in its memory alone, unless that was saved.
    kept = not whom or step != "save: noted"
    assert cut.here.now() == ((3, "onetwo") if kept else (2, "onetwo"))
    cut.check()
