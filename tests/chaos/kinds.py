"""The verbs of the campaign: how each is asked for, its steps, and how long it takes at most."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from attrs import frozen

from qlaunch.store import paths
from tests.chaos.guest import NAME

if TYPE_CHECKING:
    from tests.chaos.history import History

COPY, RENAMED, ATTACHED = "copy", "other", "disk2.qcow2"
MOST_SNAPSHOTS = 5

Prepare = Callable[["History", Random], list[str]]


@frozen
class Kind:
    """`prepare` brings the machine to where the verb can be asked for, and returns its words.

    `steps` are the first words of its named steps, `reach` the seconds in which it may be struck,
    `weight` how often it is chosen. One that is `stopping` leaves the machine stopped.
    """

    name: str
    prepare: Prepare
    steps: tuple[str, ...] = ()
    reach: float = 1.0
    weight: int = 2
    stopping: bool = False


def _up(history: History, dice: Random) -> list[str]:
    history.rig.ask("down", name=NAME, timeout=30)
    return ["up", NAME]


def _down(history: History, dice: Random) -> list[str]:
    return ["down", NAME]


def _snapshot(history: History, dice: Random) -> list[str]:
    words = ["snapshot", "create", NAME, history.new_label()]
    return [*words, "--disks-only"] if dice.random() < 0.5 else words


def _internal(history: History, dice: Random) -> list[str]:
    return ["snapshot", "create", NAME, history.new_label(), "--internal"]


def _some(history: History, dice: Random) -> str:
    """A snapshot; one is made when there is none."""
    labels = sorted(history.moments)
    return dice.choice(labels) if labels else history.make_snapshot(dice)


def _revert(history: History, dice: Random) -> list[str]:
    words = ["revert", NAME, _some(history, dice)]
    return [*words, "--discard"] if dice.random() < 0.5 else words


def _delete(history: History, dice: Random) -> list[str]:
    return ["snapshot", "delete", NAME, _some(history, dice)]


def _merge(history: History, dice: Random) -> list[str]:
    """All snapshots go: every layer is merged, the active one, too."""
    _some(history, dice)
    return ["snapshot", "prune", NAME, "--keep", "0"]


def _media(history: History, dice: Random) -> list[str]:
    if dice.random() < 0.3:
        return ["media", NAME, "--eject"]
    return ["media", NAME, "cd0", history.disc(dice.choice("ab"))]


def _attach(history: History, dice: Random) -> list[str]:
    if history.attached:
        return ["disk", "detach", NAME, "disk2"]
    image = Path(paths.machine_data(NAME)) / ATTACHED
    if image.exists():
        return ["disk", "attach", NAME, str(image), "--id", "disk2", "--bus", "usb"]
    return ["disk", "attach", NAME, "--size", "1MiB", "--id", "disk2", "--bus", "usb"]


def _save(history: History, dice: Random) -> list[str]:
    return ["save", NAME]


def _clone(history: History, dice: Random) -> list[str]:
    label = _some(history, dice)
    words = ["clone", NAME, COPY, "--snapshot", label]
    linked = dice.random() < 0.3 and not history.moments[label].internal
    return [*words, "--linked"] if linked else words


def _rm(history: History, dice: Random) -> list[str]:
    history.must(_clone(history, dice))
    return ["rm", COPY, "--yes"]


def _rename(history: History, dice: Random) -> list[str]:
    history.must(_clone(history, dice))
    return ["rename", COPY, RENAMED]


_MERGING = ("merge", "pivot", "collect")

KINDS = {
    kind.name: kind
    for kind in (
        Kind("up", _up, reach=0.9, stopping=True),
        Kind("down", _down, reach=0.6, stopping=True),
        Kind("snapshot", _snapshot, ("overlays", "create"), reach=0.7, weight=4),
        Kind("internal", _internal, ("internal",), reach=0.7, weight=1),
        Kind("revert", _revert, ("overlays", "revert", *_MERGING), reach=0.9, weight=5),
        Kind("delete", _delete, ("delete", *_MERGING), reach=0.7, weight=3),
        Kind("merge", _merge, ("delete", *_MERGING), reach=0.9, weight=4),
        Kind("media", _media, reach=0.4),
        Kind("attach", _attach, ("attach", "detach"), reach=0.5),
        Kind("save", _save, ("save",), reach=0.8, stopping=True),
        Kind("clone", _clone, reach=0.9, weight=1),
        Kind("rm", _rm, reach=0.5, weight=1),
        Kind("rename", _rename, reach=0.5, weight=1),
    )
}


def choose(dice: Random, only: tuple[str, ...], history: History) -> Kind:
    names = [name for name in KINDS if not only or name in only]
    if len(history.moments) >= MOST_SNAPSHOTS:  # then rather fewer of them
        names = [name for name in names if name not in ("snapshot", "internal")] or names
    return KINDS[dice.choices(names, [KINDS[name].weight for name in names])[0]]


def copies_are_gone(history: History) -> None:
    """Whatever became of the copy: a user finishes what was cut off, and removes it."""
    profiles = Path(paths.config_dir()) / "profiles"
    if history.kind.name == "rename":
        # Interrupted: the same words once more finish it.
        if (profiles / f"{COPY}.toml").exists() or os.path.lexists(paths.machine_data(COPY)):
            history.must(["rename", COPY, RENAMED])
    elif history.kind.name == "clone" and not (profiles / f"{COPY}.toml").exists():
        history.must(history.words)
    for name in (COPY, RENAMED):
        if (profiles / f"{name}.toml").exists() or os.path.lexists(paths.machine_data(name)):
            history.must(["rm", name, "--yes"])
