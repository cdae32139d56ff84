"""No space left, at every kilobyte of a verb: the state is the one before or the one after, in
words, and with space again everything works."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import QlaunchError
from qlaunch.store import timeline as store
from tests.rig import Rig, nothing_left, until
from tests.test_supervisor_full_disk import fill, small_disks
from tests.timetravel import Traveller

__all__ = ["small_disks"]
pytestmark = [pytest.mark.qemu, pytest.mark.fault, pytest.mark.usefixtures("small_disks")]

# Bytes that are left when the verb begins.
ROOM = (0, 12_288, 200_000, 330_000, 500_000, 1_100_000)


@pytest.fixture(scope="module", autouse=True)
def _only_root_can_mount() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")


def leave(folder: Path, size: int) -> Path:
    """Leave so many bytes free on the file system of `folder`."""
    filler = fill(str(folder))
    os.truncate(filler, max(0, filler.stat().st_size - size))
    return filler


def begin(rig: Rig) -> Traveller:
    rig.up()
    rig.ready()
    here = Traveller(rig)
    here.say("+one\r")
    here.create("one")
    here.say("+two\r")
    rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
    return here


VERBS: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("snapshot-create", {"snapshot": "two"}),
    "internal": ("snapshot-create", {"snapshot": "two", "internal": True}),
    "revert": ("revert", {"snapshot": "one"}),
    "delete": ("snapshot-delete", {"snapshot": "one"}),
    "merge": ("snapshot-delete", {"snapshot": "one", "merge": True}),
    "save": ("save", {}),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("room", ROOM)
def test_a_full_disk_leaves_the_state_before_or_after(
    rig: Rig, own_place: Path, verb: str, room: int
) -> None:
    here = begin(rig)
    filler = leave(own_place / "data", room)
    told = ""
    try:
        rig.ask(VERBS[verb][0], name="demo", **VERBS[verb][1])
    except QlaunchError as error:
        told = error.message
    failed = bool(told)
    assert "bug" not in told
    filler.unlink()
    if rig.row() == {}:
        assert verb == "save"
        assert not failed
        rig.up()
        rig.responds()
    if rig.row()["state"] == "io-error":  # its own layer was full: it goes on with room
        rig.ask("resume", name="demo")
    until(lambda: rig.row()["state"] == "running", "the guest to run")
    here.settle()
    timeline = store.load("demo")
    assert timeline.pending is None
    if verb in ("create", "internal"):
        assert ("two" in here.labels()) != failed
    expected = {(2, "onetwo")} if failed or verb != "revert" else {(1, "one")}
    assert here.now() in expected
    here.check_images()
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert here.layers() == ["disk0.qcow2"]
    assert here.now() in expected
    rig.kill()
    assert nothing_left() == []
