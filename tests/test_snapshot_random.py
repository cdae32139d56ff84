"""Random histories on real machines against a plain model: every moment that is gone back to has
the memory and the disk that it had, whatever was taken, deleted and merged in between."""

from __future__ import annotations

import random

import pytest
from attrs import Factory, define

from qlaunch.store import timeline as store
from tests.prerequisites import both_qemus
from tests.rig import Rig, nothing_left, write_profile
from tests.timetravel import SECOND_DISK, Traveller

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(300)]

OPERATIONS = 50
MOST = 7


@define
class Walk:
    """A machine and what it must say: the guest's counter, in memory and (at `\\r`) on the disk."""

    here: Traveller
    dice: random.Random
    count: int = 0
    saved: int = 0
    moments: dict[str, tuple[str, int, int]] = Factory(dict)
    done: list[str] = Factory(list)

    def step(self) -> None:
        names = ["work", "work", "create", "revert", "revert", "delete", "cold"]
        name = self.dice.choice(names)
        if len(self.moments) > MOST:
            name = "delete"
        self.done.append(name)
        getattr(self, name)()

    def work(self) -> None:
        self.here.say("+")
        self.count += 1
        if self.dice.random() < 0.7:
            self.here.say("\r")
            self.saved = self.count

    def create(self) -> None:
        memory = self.dice.random() < 0.6
        made = self.here.create(disks_only=not memory)["snapshot"]
        self.moments[made["label"]] = (made["kind"], self.count, self.saved)

    def revert(self) -> None:
        if not self.moments:
            return
        label = self.dice.choice(sorted(self.moments))
        discard = self.dice.random() < 0.4
        before = self.count, self.saved
        answer = self.here.revert(label, discard=discard)
        if answer["branch"]:
            self.moments[answer["branch"]["label"]] = ("disks", *before)
        kind, count, saved = self.moments[label]
        self.count, self.saved = (count, saved) if kind == "memory" else (saved, saved)
        self.here.settle()

    def delete(self) -> None:
        if not self.moments:
            return
        label = self.dice.choice(sorted(self.moments))
        self.here.delete(label)
        del self.moments[label]

    def cold(self) -> None:
        """Power off and on."""
        self.here.rig.ask("down", name="demo", timeout=20)
        self.here.rig.up("demo", *self.overrides)
        self.here.rig.responds()
        self.count = self.saved

    overrides: tuple[str, ...] = ()

    def check(self) -> None:
        assert self.here.now()[0] == self.count, self.done
        assert sorted(self.moments) == sorted(self.here.labels()), self.done


@both_qemus
@pytest.mark.parametrize("seed", [1, 2])
def test_fifty_random_operations(rig: Rig, qemu_binary: str, seed: int) -> None:
    write_profile("demo", SECOND_DISK)
    emulator = f'machine.emulator="{qemu_binary}"'
    rig.up("demo", emulator)
    rig.ready()
    walk = Walk(Traveller(rig), random.Random(seed), overrides=(emulator,))
    for _ in range(OPERATIONS):
        walk.step()
        walk.check()
    walk.here.check_images()
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert walk.here.layers() == ["disk0.qcow2", "extra.qcow2"]
    assert walk.here.now()[0] == walk.count
    assert store.load("demo").merges == ()
    rig.kill()
    assert nothing_left() == []
