"""A QEMU that dies in the middle of a verb, of a machine that is started again then: on the layers
that count, never on one that a snapshot is made of, and never with a revert half done."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from qlaunch.errors import QlaunchError
from qlaunch.machine.steps import VARIABLE
from tests.rig import Rig, until
from tests.test_snapshot_faults import Cut, cut

__all__ = ["cut"]
pytestmark = [pytest.mark.qemu, pytest.mark.fault]

CREATE: dict[str, Any] = {"snapshot": "two"}
DISKS: dict[str, Any] = {"snapshot": "two", "disks_only": True}
ONE: dict[str, Any] = {"snapshot": "one"}
CASES = [
    ("create: heads", "snapshot-create", CREATE),
    ("create: transaction", "snapshot-create", CREATE),
    ("create: transaction", "snapshot-create", DISKS),
    ("create: committed", "snapshot-create", DISKS),
    ("revert: noted", "revert", ONE),
    ("revert: switched", "revert", ONE),
    ("revert: concluded", "revert", ONE),
    ("merge: begun", "snapshot-delete", ONE),
    ("pivot: complete", "snapshot-delete", ONE),
    ("merge: noted as done", "snapshot-delete", ONE),
]


def pid(rig: Rig) -> int:
    return int(rig.row().get("pid") or 0)


@pytest.mark.parametrize("step, verb, args", CASES)
def test_qemu_dies_and_is_started_again(
    cut: Cut, monkeypatch: pytest.MonkeyPatch, step: str, verb: str, args: dict[str, Any]
) -> None:
    rig, here = cut.rig, cut.here
    rig.up("demo", 'lifecycle.on_crash="restart"')
    rig.ready()
    here.say("+one\r")
    here.create("one")
    here.say("+two\r")
    rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
    rig.kill_supervisor()
    monkeypatch.setenv(VARIABLE, f"{step}@qemu")
    rig.supervisor()
    monkeypatch.delenv(VARIABLE)
    first = pid(rig)
    with contextlib.suppress(QlaunchError):
        rig.ask(verb, name="demo", **args)
    until(lambda: pid(rig) not in (0, first), "the next QEMU")
    until(lambda: rig.row()["state"] == "running", "it to run")
    rig.responds()
    rig.kill_supervisor()  # the next one kills no QEMU
    until(lambda: rig.row()["state"] == "running", "the machine")
    # A revert whose disks were not switched is taken back.
    reverted = verb == "revert" and step != "revert: noted"
    assert here.now() == ((1, "one") if reverted else (2, "onetwo"))
    cut.check()
