"""Supervisor and QEMU killed at every step of a merge, each way it can go, and of taking internal
snapshots out of their images: memory and disk agree afterwards, and nothing is left."""

from __future__ import annotations

import pytest

from tests.rig import Rig
from tests.test_snapshot_faults import Cut, cut
from tests.test_snapshot_internal import tags

__all__ = ["cut"]
pytestmark = [pytest.mark.qemu, pytest.mark.fault]

WHOM = ("", "@qemu")
MERGE = ("delete: forgotten", "merge: noted", "merge: begun", "merge: done",
         "merge: noted as done", "collect: unlinked")  # fmt: skip
ACTIVE = ("delete: forgotten", "merge: noted", "merge: begun", "pivot: noted", "pivot: stopped",
          "pivot: complete", "pivot: heads", "merge: done", "merge: noted as done",
          "collect: unlinked")  # fmt: skip
STOPPED = tuple(step for step in MERGE if step != "merge: begun")
CLEAR = ("delete: forgotten", "internal: opened", "internal: taken out", "internal: cleared")


def write_behind(rig: Rig, size: str) -> None:
    """Fill a part of the disk that the guest does not use."""
    rig.ask("hmp", name="demo", line=f'qemu-io disk0 "write -P 7 512k {size}"')
    rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')


def chain(cut: Cut) -> None:
    """`one`, `two` and `six` below the present; what `two` wrote is little, what `six` did much."""
    cut.begin()
    cut.here.create("two")
    cut.here.say("+six\r")
    write_behind(cut.rig, "256k")
    cut.here.create("six")
    cut.here.say("+ten\r")
    write_behind(cut.rig, "4k")


def merged(cut: Cut, gone: str) -> None:
    """A merge that is over."""
    cut.go_on()
    assert gone not in cut.here.labels()
    cut.tidied()


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", ACTIVE)
def test_a_merge_of_the_active_layer(cut: Cut, step: str, whom: str) -> None:
    cut.begin()
    cut.off(step + whom, "snapshot-delete", snapshot="one", merge=True)
    merged(cut, "one")
    assert cut.here.layers() == ["disk0.qcow2"]
    assert cut.here.now() == (2, "onetwo")
    cut.check()


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", MERGE)
@pytest.mark.parametrize("gone", ["one", "two"], ids=["down", "up"])
def test_a_merge_below_the_active_layer(cut: Cut, gone: str, step: str, whom: str) -> None:
    chain(cut)
    cut.off(step + whom, "snapshot-delete", snapshot=gone, merge=True)
    merged(cut, gone)
    agree(cut, gone)


@pytest.mark.parametrize("step", STOPPED)
@pytest.mark.parametrize("gone", ["one", "two"], ids=["down", "up"])
def test_a_merge_of_a_stopped_machine(cut: Cut, gone: str, step: str) -> None:
    chain(cut)
    cut.rig.kill()
    cut.off(step, "snapshot-delete", snapshot=gone, merge=True)
    merged(cut, gone)
    agree(cut, gone)


def agree(cut: Cut, gone: str) -> None:
    """The present and what is left of `chain` are what they were."""
    assert len(cut.here.layers()) == 3
    assert cut.here.now() == (4, "onetwosixten")
    cut.here.say("x\r")
    kept = {"one": (1, "one"), "two": (2, "onetwo"), "six": (3, "onetwosix")}
    for name, then in kept.items():
        if name != gone:
            cut.here.revert(name)
            assert cut.here.now() == then
    cut.check()


# ---- internal snapshots -------------------------------------------------------------------------


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", CLEAR)
@pytest.mark.parametrize("covered", [False, True], ids=["active", "below"])
def test_an_internal_snapshot_being_deleted(cut: Cut, covered: bool, step: str, whom: str) -> None:
    inside(cut, covered=covered)
    cut.off(step + whom, "snapshot-delete", snapshot="inside")
    taken_out(cut)


@pytest.mark.parametrize("step", [step for step in CLEAR if step != "internal: opened"])
@pytest.mark.parametrize("covered", [False, True], ids=["active", "below"])
def test_an_internal_snapshot_of_a_stopped_machine(cut: Cut, covered: bool, step: str) -> None:
    inside(cut, covered=covered)
    cut.rig.kill()
    cut.off(step, "snapshot-delete", snapshot="inside")
    taken_out(cut)


def inside(cut: Cut, *, covered: bool) -> None:
    """An internal snapshot in the layer that the guest writes to, or (`covered`) in one below."""
    cut.begin()
    cut.here.create("inside", internal=True)
    cut.here.say("+six\r")
    cut.rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
    if covered:
        cut.here.create("over")
    cut.here.say("+ten\r")
    cut.rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')


def taken_out(cut: Cut) -> None:
    merged(cut, "inside")
    assert [name for image in cut.here.layers() for name in tags(image)] == []
    assert cut.here.now() == (4, "onetwosixten")
    cut.here.say("x\r")
    if "over" in cut.here.labels():
        cut.here.revert("over")
        assert cut.here.now() == (3, "onetwosix")
    cut.check()
