"""Many at once on one machine, and state files on a computer whose power fails."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from qlaunch.errors import InternalError, QlaunchError
from qlaunch.store import files
from qlaunch.store import timeline as store
from tests.chaos.victims import Power
from tests.prerequisites import find_program
from tests.rig import Rig, nothing_left
from tests.timetravel import Traveller

VERBS = 100
CUTS = 240
# Several state files change between two cuts.
WRITES = 4


@pytest.mark.qemu
@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_hundred_verbs_at_once_on_one_machine(rig: Rig, tmp_path: Path) -> None:
    """Each is done or refused in words; the machine is well, and everything is as it is said."""
    rig.up()
    rig.ready()
    here, dice = Traveller(rig), Random(8)
    here.say("+kept\r")
    choices: list[tuple[str, dict[str, object]]] = [
        ("ps", {}), ("status", {"name": "demo"}), ("pause", {"name": "demo"}),
        ("resume", {"name": "demo"}), ("snapshot-create", {"name": "demo"}),
        ("snapshot-create", {"name": "demo", "disks_only": True}), ("jobs", {"name": "demo"}),
        ("snapshot-prune", {"name": "demo", "keep": 1}), ("media", {"name": "demo"}),
        ("hmp", {"name": "demo", "line": "info status"}), ("type", {"name": "demo", "text": "x"}),
        ("disk-attach", {"name": "demo", "size": 1 << 20, "bus": "virtio"}),
        ("screenshot", {"name": "demo", "path": str(tmp_path / "a.png")}),
    ]  # fmt: skip
    futures = [rig.later(verb, **args) for verb, args in dice.choices(choices, k=VERBS)]
    ends: Counter[str] = Counter()
    for future in futures:
        error = future.exception(timeout=120)
        assert error is None or isinstance(error, QlaunchError)
        assert not isinstance(error, InternalError)
        ends[type(error).__name__ if error else "done"] += 1
    assert ends["done"] > VERBS / 4, ends
    if rig.row()["state"] == "paused":
        rig.ask("resume", name="demo")
    here.settle()
    assert here.now()[0] == 1
    here.check_images()
    assert store.load("demo").pending is None
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert [name for name in here.layers() if "snap" in name] == []
    rig.kill()
    assert nothing_left() == []


@pytest.fixture
def power(tmp_path: Path) -> Iterator[Power]:
    if os.getuid():
        pytest.skip("only root can mount a file system whose power fails")
    if not find_program("mkfs.ext4"):
        pytest.skip("mkfs.ext4 is not installed")
    here = Power(tmp_path / "disk.img", tmp_path / "fs")
    try:
        here.make(16 << 20)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield here
    finally:
        here.unmount()


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_state_file_that_was_acknowledged_outlives_every_power_cut(power: Power) -> None:
    """After each cut every file is whole and at least as new as its last acknowledged writing."""
    dice = Random(240)
    acknowledged: dict[str, int] = {}
    for cut in range(CUTS):
        folder = power.folder / "state" / str(dice.randrange(3))
        for number in range(WRITES):
            path = str(folder / f"{dice.randrange(3)}.json")
            value = cut * WRITES + number
            files.write_json(path, {"value": value, "more": "x" * dice.randrange(9000)})
            acknowledged[path] = value
        power.fail()
        with pytest.raises(QlaunchError):  # nothing is acknowledged that is not there
            files.write_json(str(folder / "0.json"), {"value": -1})
        power.unmount()
        power.mount()
        for path, value in acknowledged.items():
            assert (files.read_json(path) or {}).get("value") == value, (cut, path)
        assert not list(power.folder.rglob("*.damaged"))
