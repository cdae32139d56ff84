"""Images on which somebody else has worked: it is shown, and taken over when that is wanted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qlaunch.store import paths
from qlaunch.store import timeline as store
from qlaunch.tree.drift import Inside, Survey, drift, marked, taken_over, unmarked
from qlaunch.tree.history import Images
from qlaunch.tree.model import Snapshot, Timeline
from tests.rig import PROFILE, Rig, write_profile
from tests.timetravel import Traveller

# ---- pure ---------------------------------------------------------------------------------------


def survey(**parents: str | None) -> Survey:
    """The images of the disks c and d, in one folder; `c_snap1="c"` stands on c."""
    known = {f"/v/{name.replace('_', '.')}": below for name, below in parents.items()}
    images = {path: f"/v/{below}" if below else None for path, below in known.items()}
    names = {os.path.basename(path) for path in images}
    return Survey(
        disks={disk: f"/v/{disk}" for disk in "cd" if disk in parents},
        heads={disk: f"/v/{disk}" for disk in "cd" if disk in parents},
        images=Images(
            parents=images,
            sizes=dict.fromkeys(images, 0),
            paths={(disk, name): f"/v/{name}" for disk in "cd" for name in names},
        ),
        inside={},
        marks=dict.fromkeys(images, (1, 1)),
        claims={},
    )


def heads(found: Survey, **names: str) -> Survey:
    from attrs import evolve

    own = {disk: f"/v/{name}" for disk, name in names.items()}
    return evolve(found, heads=own, disks=own)


def snapshots(timeline: Timeline) -> dict[str, dict[str, str]]:
    return {each.label: dict(each.layers) for each in timeline.snapshots}


def test_a_tree_that_another_program_made_becomes_ours() -> None:
    found = heads(
        survey(c=None, c_snap1="c", c_snap2="c.snap1", d=None, d_snap1="d", d_snap2="d.snap1"),
        c="c.snap2", d="d.snap2",
    )  # fmt: skip
    timeline = taken_over(Timeline(), drift(Timeline(), found), found)
    assert snapshots(timeline) == {
        "snap2": {"c": "c.snap1", "d": "d.snap1"},
        "snap1": {"c": "c", "d": "d"},
    }
    assert drift(timeline, found) == ()


def test_an_image_that_stands_on_ours_is_a_moment_unless_somebody_names_it() -> None:
    from attrs import evolve

    found = survey(c=None, try_="c", other="c")
    found = evolve(found, claims={"/v/other": "other.toml names it"})
    (only,) = drift(Timeline(), found)
    assert only.found is not None
    assert dict(only.found.layers) == {"c": "try."}


def test_what_is_below_in_another_folder_is_a_template_and_no_moment() -> None:
    from attrs import evolve

    found = survey(c=None)
    parents = {"/v/c": "/t/base", "/t/base": None}
    found = evolve(found, images=evolve(found.images, parents=parents))
    assert drift(Timeline(), found) == ()


def test_internal_snapshots_of_the_same_name_are_one() -> None:
    from attrs import evolve

    inside = (Inside(tag="one", created=5.0, memory=False),)
    found = evolve(survey(c=None, d=None), inside={"/v/c": inside, "/v/d": inside})
    timeline = taken_over(Timeline(), drift(Timeline(), found), found)
    assert snapshots(timeline) == {"one": {"c": "c", "d": "d"}}
    assert timeline.snapshots[0].tag == "one"
    assert drift(timeline, found) == ()
    gone = evolve(found, inside={})
    assert drift(timeline, gone)[0].gone == 1
    assert taken_over(timeline, drift(timeline, gone), gone).snapshots == ()


def test_a_layer_that_was_written_to_is_told_once_it_has_a_mark() -> None:
    from attrs import evolve

    found = heads(survey(c=None, c_snap1="c"), c="c.snap1")
    timeline = Timeline(heads={"c": "c.snap1"}, owned={"c": ("c.snap1",)})
    timeline = timeline.with_snapshot(Snapshot(id=1, name="one", layers={"c": "c"}))
    found = evolve(found, disks={"c": "/v/c"})
    timeline = marked(timeline, found)
    assert drift(timeline, found) == ()
    later = evolve(found, marks={"/v/c": (1, 2), "/v/c.snap1": (1, 2)})
    (only,) = drift(timeline, later)
    assert only.changed == (1, "c")
    assert drift(taken_over(timeline, [only], later), later) == ()
    assert drift(unmarked(timeline, ["c"]), later) == ()


# ---- real ---------------------------------------------------------------------------------------


def img(*words: str, cwd: str | Path | None = None) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True, cwd=cwd)


def sync(rig: Rig, **args: Any) -> dict[str, Any]:
    answer: dict[str, Any] = rig.ask("snapshot-sync", name="demo", **args)
    return answer


@pytest.mark.qemu
def test_a_tree_made_by_hand_on_a_raw_base_can_be_gone_back_to(rig: Rig, own_place: Path) -> None:
    rig.up()
    rig.ready()
    here = Traveller(rig)
    here.say("+one\r")
    rig.kill()
    first = os.path.join(paths.machine_data("demo"), "disk0.qcow2")
    img("convert", "-O", "raw", first, str(own_place / "xp.img"))
    overlay = ("create", "-q", "-f", "qcow2", "-b")
    img(*overlay, "xp.img", "-F", "raw", "xp.snap1", cwd=own_place)
    img("rebase", "-u", "-f", "qcow2", "-b", "xp.img", "-F", "raw", "xp.snap1", cwd=own_place)
    text = PROFILE.replace('template = "@demo"', f'path = "{own_place}/xp.snap1"\nformat="qcow2"')
    profile = write_profile("demo", text=text.replace('size = "1MiB"', ""))
    rig.up("demo", profile=profile)
    here.now()
    here.say("+two\r")
    rig.kill()
    img(*overlay, "xp.snap1", "-F", "qcow2", "xp.snap2", cwd=own_place)
    Path(profile).write_text(Path(profile).read_text().replace("xp.snap1", "xp.snap2"))
    rig.up("demo", profile=profile)
    here.now()
    here.say("+ten\r")
    assert len(sync(rig)["drift"]) == 2
    assert here.labels() == []
    assert {each["name"] for each in sync(rig, take_over=True)["added"]} == {"snap1", "snap2"}
    assert sync(rig)["drift"] == []
    before = (own_place / "xp.img").read_bytes()
    for name, wanted in (("snap1", (1, "one")), ("snap2", (2, "onetwo")), ("snap1", (1, "one"))):
        here.revert(name)
        assert here.now() == wanted
        here.say("x\r")
    rig.ask("snapshot-prune", name="demo", keep=0)
    assert (own_place / "xp.img").read_bytes() == before  # not ours: nobody merges into it


@pytest.mark.qemu
def test_qemu_imgs_snapshots_and_writes_are_told_and_taken_over(rig: Rig) -> None:
    rig.up()
    rig.ready()
    here = Traveller(rig)
    here.say("+one\r")
    here.create("ours", disks_only=True)
    rig.kill()
    folder = paths.machine_data("demo")
    img("snapshot", "-c", "theirs", f"{folder}/disk0.snap1.qcow2")
    (told,) = sync(rig)["drift"]
    assert "'theirs'" in told["text"]
    sync(rig, take_over=True)
    rig.up()
    assert here.now() == (1, "one")
    here.say("+two\r")
    here.revert("theirs")
    assert here.now() == (1, "one")
    rig.kill()
    rig.up()
    rig.kill()
    # Now the layers have marks, and somebody writes to one.
    words = ["qemu-io", "-f", "qcow2", "-c", "write 900k 4k", f"{folder}/disk0.qcow2"]
    subprocess.run(words, check=True, capture_output=True)
    answer = rig.up()
    assert "was written to since" in answer["warnings"][0]["message"]
    told = sync(rig, take_over=True)["drift"][0]
    assert "ours" in told["text"]
    assert sync(rig)["drift"] == []


@pytest.mark.qemu
def test_our_own_work_is_no_drift(rig: Rig) -> None:
    rig.up()
    rig.ready()
    here = Traveller(rig)
    for name in ("one", "two", "inside", "three"):
        here.say("+x\r")
        here.create(name, disks_only=name == "two", internal=name == "inside")
        rig.kill()
        rig.up()
        assert sync(rig)["drift"] == []
    here.revert("one")
    here.delete("two")
    here.delete("inside")
    rig.kill()
    rig.up()
    assert sync(rig)["drift"] == []
    assert rig.ask("status", name="demo")["warnings"] == []
    here.delete("one")
    rig.kill()
    rig.ask("snapshot-prune", name="demo", keep=0)
    rig.up()
    assert sync(rig)["drift"] == []
    assert store.load("demo").snapshots == ()
