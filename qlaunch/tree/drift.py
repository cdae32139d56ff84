"""Where a machine's images and its timeline disagree: somebody else has worked on the images.

Nothing is guessed away: each difference is shown, and `taken_over` makes the timeline say what the
images say when the user wants that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from attrs import evolve, frozen

from qlaunch.tree.history import Images
from qlaunch.tree.model import Snapshot, Timeline

Mark = tuple[int, int]


@frozen(kw_only=True)
class Inside:
    """An internal snapshot that an image has: its tag, and seconds since the epoch."""

    tag: str
    created: float
    memory: bool


@frozen(kw_only=True)
class Survey:
    """What the images of a machine say. `disks` are the disks by id with the path of each one's own
    image, `heads` the image that each writes to; `inside` the internal snapshots of an image,
    `marks` its size and date, `claims` who else names it."""

    disks: Mapping[str, str]
    heads: Mapping[str, str]
    images: Images
    inside: Mapping[str, tuple[Inside, ...]]
    marks: Mapping[str, Mark]
    claims: Mapping[str, str]


@frozen(kw_only=True)
class Drift:
    """One difference, in words. Taking it over adds the snapshot `found`, forgets the snapshot
    `gone`, or takes the layer of `changed` (a snapshot and a disk) as it is now."""

    text: str
    found: Snapshot | None = None
    gone: int | None = None
    changed: tuple[int, str] | None = None


def drift(timeline: Timeline, survey: Survey) -> tuple[Drift, ...]:
    """Every difference. What a verb that was cut off has left is none: it is tidied up."""
    return (*_missing(timeline, survey), *_changed(timeline, survey), *_unknown(timeline, survey))


def taken_over(timeline: Timeline, found: Iterable[Drift], survey: Survey) -> Timeline:
    """The timeline as the images have it."""
    for each in found:
        if each.gone is not None:
            timeline = timeline.without(each.gone)
        elif each.changed is not None:
            timeline = _marked(timeline, survey, only=each.changed)
        elif each.found is not None:
            snapshot = evolve(each.found, id=timeline.next_id, name=_free(timeline, each.found))
            timeline = timeline.with_snapshot(snapshot)
    return timeline


def _free(timeline: Timeline, snapshot: Snapshot) -> str:
    wanted = snapshot.name or "found"
    taken = {each.name for each in timeline.snapshots}
    number = 1
    while (name := wanted if number == 1 else f"{wanted}-{number}") in taken:
        number += 1
    return name


# ---- marks --------------------------------------------------------------------------------------


def marked(timeline: Timeline, survey: Survey) -> Timeline:
    """With size and date of every layer that nobody writes to and that has none yet."""
    return _marked(timeline, survey)


def _marked(timeline: Timeline, survey: Survey, only: tuple[int, str] | None = None) -> Timeline:
    written = set(survey.heads.values())
    snapshots = []
    for each in timeline.snapshots:
        marks = dict(each.marks)
        for disk, name in each.layers.items():
            path = survey.images.paths.get((disk, name), "")
            if (each.id, disk) == only or (only is None and disk not in marks):
                if path in survey.marks and path not in written:
                    marks[disk] = survey.marks[path]
        snapshots.append(evolve(each, marks=marks))
    return evolve(timeline, snapshots=tuple(snapshots))


def unmarked(timeline: Timeline, disks: Iterable[str]) -> Timeline:
    """Without the marks of these disks: we have written to layers of theirs ourselves."""
    gone = set(disks)
    return evolve(
        timeline,
        snapshots=tuple(
            evolve(
                each, marks={disk: mark for disk, mark in each.marks.items() if disk not in gone}
            )
            for each in timeline.snapshots
        ),
    )


def _changed(timeline: Timeline, survey: Survey) -> Iterable[Drift]:
    for each in timeline.snapshots:
        for disk, mark in each.marks.items():
            path = survey.images.paths.get((disk, each.layers.get(disk, "")), "")
            now = survey.marks.get(path)
            if now is not None and tuple(mark) != now:
                yield Drift(
                    text=f"{path} was written to since: {each.label}, and all that stands on it,"
                    " may not be what they were",
                    changed=(each.id, disk),
                )


# ---- what is missing ----------------------------------------------------------------------------


def _missing(timeline: Timeline, survey: Survey) -> Iterable[Drift]:
    for each in timeline.snapshots:
        for disk, name in each.layers.items():
            path = survey.images.paths.get((disk, name))
            if disk not in survey.disks:
                continue
            if path is None or path not in survey.images.parents:
                yield Drift(text=f"{each.label}: its layer {path or name} is missing", gone=each.id)
                break
            inside = {found.tag for found in survey.inside.get(path, ())}
            if each.tag is not None and each.tag not in inside:
                yield Drift(text=f"{each.label} is not in {path} any more", gone=each.id)
                break


# ---- what is not known --------------------------------------------------------------------------


def _unknown(timeline: Timeline, survey: Survey) -> Iterable[Drift]:
    moments: dict[str, Snapshot] = {}
    for disk in survey.disks:
        for path, name in _layers(timeline, survey, disk):
            moment = moments.get(name, Snapshot(id=0, name=name))
            moments[name] = evolve(moment, layers={**moment.layers, disk: path})
    for name, moment in moments.items():
        images = ", ".join(moment.layers.values())
        left_out = tuple(disk for disk in survey.disks if disk not in moment.layers)
        yield Drift(
            text=f"{images} can be gone back to and is no snapshot here; it would be {name}",
            found=evolve(moment, layers=_said(survey, moment.layers), left_out=left_out),
        )
    yield from _unknown_inside(timeline, survey)


def _layers(timeline: Timeline, survey: Survey, disk: str) -> Iterable[tuple[str, str]]:
    """The images of a disk that hold a moment which the timeline does not know, with a name."""
    own, head = survey.disks[disk], survey.heads[disk]
    folder = os.path.dirname(own)
    known = {
        survey.images.paths.get((disk, name))
        for each in (*timeline.snapshots, *timeline.loose)
        for owner, name in each.layers.items()
        if owner == disk
    }
    known |= {os.path.join(folder, name) for name in timeline.owned.get(disk, ())}
    chain = _chain(survey, head)
    for above, path in pairwise(chain):
        if path not in known and path != own and os.path.dirname(path) == folder:
            yield path, _suffix(above) or _stem(path)
    # What stands on the chain and nobody writes to.
    trunk = {*chain, *(path for path in known if path is not None), own}
    for path, parent in sorted(survey.images.parents.items()):
        if parent in trunk and path not in trunk and path != head and path not in survey.claims:
            yield path, _stem(path)


def _chain(survey: Survey, path: str | None) -> list[str]:
    found: list[str] = []
    while path is not None and path in survey.images.parents and path not in found:
        found.append(path)
        path = survey.images.parents[path]
    return found


def _stem(path: str) -> str:
    return os.path.basename(path).removesuffix(".qcow2").removesuffix(".img")


def _suffix(path: str) -> str:
    """How libvirt and we call an overlay: `c.NAME.qcow2` or `c.NAME` was made for `NAME`."""
    return _stem(path).partition(".")[2]


def _said(survey: Survey, layers: Mapping[str, str]) -> dict[str, str]:
    return {
        disk: os.path.basename(path)
        if os.path.dirname(path) == os.path.dirname(survey.disks[disk])
        else path
        for disk, path in layers.items()
    }


def _unknown_inside(timeline: Timeline, survey: Survey) -> Iterable[Drift]:
    known = {
        (survey.images.paths.get((disk, name)), each.tag)
        for each in (*timeline.snapshots, *timeline.loose)
        for disk, name in each.layers.items()
    }
    moments: dict[str, Snapshot] = {}
    for disk in survey.disks:
        for path in _chain(survey, survey.heads[disk]):
            for each in survey.inside.get(path, ()):
                if (path, each.tag) not in known:
                    moments[each.tag] = _with(moments.get(each.tag), disk, path, each)
    for tag, moment in moments.items():
        images = ", ".join(moment.layers.values())
        left_out = tuple(disk for disk in survey.disks if disk not in moment.layers)
        yield Drift(
            text=f"the internal snapshot {tag!r} in {images} is no snapshot here",
            found=evolve(moment, layers=_said(survey, moment.layers), left_out=left_out),
        )


def _with(moment: Snapshot | None, disk: str, path: str, found: Inside) -> Snapshot:
    if moment is None:
        moment = Snapshot(
            id=0, name=found.tag, kind="internal", tag=found.tag, created=found.created
        )
    if disk in moment.layers:  # two images of one disk have it: the upper one is meant
        return moment
    vmstate = moment.vmstate or (disk if found.memory else None)
    return evolve(moment, layers={**moment.layers, disk: path}, vmstate=vmstate)


def words(found: Sequence[Drift]) -> tuple[str, ...]:
    """The differences for a person."""
    return tuple(each.text for each in found)
