"""A verb on media, a copy or a compaction that is killed at a step: what there was or what there is
to be is there, no more, and the same verb works afterwards."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qlaunch.machine.steps import VARIABLE
from qlaunch.store import paths
from tests.rig import Rig, nothing_left, qlaunch, until, write_profile
from tests.test_disk_faults import cut
from tests.test_disk_plug import fdsets, nodes
from tests.test_media import DRIVES, inside, iso, media
from tests.timetravel import Traveller

pytestmark = [pytest.mark.qemu, pytest.mark.fault]

WHOM = ("", "@qemu")
MEDIA = ("media: added", "media: planned", "media: out", "media: in")
CLONE = ("clone: copied", "clone: renamed", "clone: leases", "clone: profile")
COMPACT = ("compact: compared", "compact: replaced")


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", MEDIA)
def test_a_change_of_media(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str, whom: str
) -> None:
    write_profile("demo", DRIVES)
    rig.up()
    rig.ready()
    one, two = iso(tmp_path, "one.iso"), iso(tmp_path, "two.iso")
    media(rig, file=one)
    before = nodes(rig), fdsets(rig)
    cut(rig, monkeypatch, step + whom, "media", file=two)
    if whom:  # what is inserted for a run goes with it
        rig.up()
        rig.responds()
        assert inside(rig)["cd0"] is None
        media(rig, file=two)
    else:
        until(lambda: rig.row().get("state") == "running", "the machine")
        # What QEMU says, which between two media is that there is none.
        found = {"media: out": None, "media: in": two}.get(step, one)
        assert inside(rig)["cd0"] == found
        media(rig, file=two)
        assert (len(nodes(rig)), fdsets(rig)) == (len(before[0]), before[1])
    assert inside(rig)["cd0"] == two
    rig.kill()
    assert nothing_left() == []


def killed(step: str, *words: str) -> None:
    """Run a command that is killed at `step`."""
    process = qlaunch(*words, env={**os.environ, VARIABLE: step}, stderr=subprocess.PIPE)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == -9, told


def begin(rig: Rig) -> Traveller:
    rig.up()
    rig.ready()
    here = Traveller(rig)
    here.say("+one\r")
    rig.ask("hmp", name="demo", line='qemu-io disk0 "flush"')
    return here


@pytest.mark.parametrize("step", CLONE)
def test_a_clone(rig: Rig, step: str) -> None:
    begin(rig)
    rig.kill()
    killed(step, "clone", "demo", "copy")
    profile = os.path.join(paths.config_dir(), "profiles", "copy.toml")
    assert os.path.exists(profile) == (step == "clone: profile")
    if not os.path.exists(profile):
        again = qlaunch("clone", "demo", "copy", "-q")
        assert again.wait(60) == 0
    rig.up("copy")
    copy = Traveller(rig, "copy")
    assert copy.now() == (1, "one")
    copy.say("+two\r")
    rig.kill("copy")
    rig.up()
    assert Traveller(rig).now() == (1, "one")
    rig.kill()
    assert not Path(paths.data_dir(), "machines", ".copy.cloning").exists()
    assert nothing_left("copy") == []


@pytest.mark.parametrize("step", COMPACT)
def test_a_compaction(rig: Rig, step: str) -> None:
    here = begin(rig)
    for what in ("write -P 7 512k 256k", "discard 512k 256k", "flush"):
        rig.ask("hmp", name="demo", line=f'qemu-io disk0 "{what}"')
    rig.kill()
    image = Path(paths.machine_data("demo"), "disk0.qcow2")
    before = image.stat().st_ino
    killed(step, "disk", "compact", "demo")
    assert (image.stat().st_ino == before) == (step == "compact: compared")
    again = qlaunch("disk", "compact", "demo", "-q")
    assert again.wait(60) == 0
    assert sorted(os.listdir(image.parent)) == ["disk0.qcow2"]
    here.check_images()
    rig.up()
    assert here.now() == (1, "one")
    rig.kill()
