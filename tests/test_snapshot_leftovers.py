"""What a verb leaves that was cut off together with its machine is gone after the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qlaunch.host.newfile import remove_stale_in
from qlaunch.machine.steps import VARIABLE
from qlaunch.store import paths
from qlaunch.store import timeline as store
from tests.chaos.victims import state_of
from tests.rig import Rig, raw, request, until
from tests.test_snapshot_faults import Cut, cut
from tests.timetravel import Traveller

__all__ = ["cut"]
pytestmark = [pytest.mark.qemu, pytest.mark.fault]


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_files_whose_maker_was_killed_go_and_others_stay(tmp_path: Path) -> None:
    stale = tmp_path / f".a disk.qcow2.part-{dead_pid()}"
    kept = [tmp_path / name for name in (".part-1", "a.part-1", ".a.part-x", ".a.part-1.b")]
    for path in (stale, *kept):
        path.touch()
    remove_stale_in(str(tmp_path))
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("step", ["revert: overlays", "revert: nodes"])
def test_layers_of_a_revert_that_qemu_did_not_survive_are_removed(cut: Cut, step: str) -> None:
    cut.begin()
    cut.off(f"{step}@qemu", "revert", snapshot="one")
    cut.go_on()
    cut.here.settle()
    timeline = store.load("demo")
    kept = {timeline.heads["disk0"], "disk0.qcow2"}
    assert set(cut.here.layers()) == kept
    assert cut.here.now() == (2, "onetwo")


def test_half_made_files_are_removed_when_a_machine_is_adopted_or_started(rig: Rig) -> None:
    rig.up()
    half = Path(paths.machine_data("demo")) / f".disk0.snap1.qcow2.part-{dead_pid()}"
    half.touch()
    rig.kill_supervisor()
    until(lambda: rig.row()["state"] == "running", "the machine")
    assert not half.exists()
    rig.kill()
    half.touch()
    rig.up()
    assert not half.exists()


def test_a_client_that_hangs_up_when_all_is_saved_leaves_a_saved_machine(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Traveller(rig)
    rig.up()
    rig.ready()
    here.say("+")
    rig.kill_supervisor()
    monkeypatch.setenv(VARIABLE, "save: saved@stop")
    supervisor = rig.supervisor()
    with raw(request("save", name="demo")):
        until(lambda: state_of(supervisor) == "T", "the step")
    os.kill(supervisor, signal.SIGCONT)
    until(lambda: rig.row() == {}, "the end of the machine")
    monkeypatch.delenv(VARIABLE)
    assert rig.up()["continued"]
    assert here.now() == (1, "")


def test_memory_that_was_being_saved_is_removed_unless_the_list_is_damaged(rig: Rig) -> None:
    rig.up()
    rig.kill()
    memory = Path(store.file_of("demo", store.SAVED, "memory"))
    memory.parent.mkdir(exist_ok=True)
    memory.touch()
    damaged = Path(store.list_path("demo") + ".damaged")
    damaged.touch()
    rig.up()
    assert memory.exists()
    rig.kill()
    damaged.unlink()
    rig.up()
    assert not memory.exists()


def test_a_prune_removes_no_memory_when_the_list_is_damaged(rig: Rig) -> None:
    rig.up()
    rig.ready()
    rig.ask("snapshot-create", name="demo", snapshot="one")
    kept = Path(store.file_of("demo", 1, "memory"))
    assert kept.exists()
    rig.kill()
    Path(store.list_path("demo")).write_text("{", encoding="utf-8")
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert kept.exists()
