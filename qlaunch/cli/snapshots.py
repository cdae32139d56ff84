"""Reading a machine's snapshots, for the verbs that only show them: no supervisor is asked."""

from __future__ import annotations

import os
import time
from typing import Any

from qlaunch.errors import NotFoundError
from qlaunch.machine.survey import Own, of_plan, of_saved, survey
from qlaunch.store import files, paths
from qlaunch.store import timeline as store
from qlaunch.tree.drift import drift
from qlaunch.tree.history import HERE, Images, Node, history
from qlaunch.tree.model import Timeline


def read(name: str) -> tuple[Timeline, tuple[Node, ...], tuple[str, ...]]:
    """The machine's timeline, its tree, and what the two do not agree about.

    Raises: NotFoundError, HostError.
    """
    paths.check_name(name)
    timeline = store.load(name)
    if not timeline.snapshots and not os.path.isdir(paths.machine_state(name)):
        paths.find_profile(name)
    plan = _saved(name) or _moment(name, timeline)
    if plan is None:
        return timeline, history(timeline, Images(parents={}, sizes={}, paths={})), ()
    profile, disks = plan
    found = survey(name, profile, disks, timeline)
    # What is missing is told with the snapshot that misses it.
    told = [each.text for each in drift(timeline, found) if each.gone is None]
    return timeline, history(timeline, found.images), tuple(told)


def _saved(name: str) -> tuple[str, tuple[Own, ...]] | None:
    """Profile and disks of the machine's last start, if they can be read."""
    plain: Any = files.read_json(os.path.join(paths.machine_state(name), "plan.json"))
    try:
        return str(plain["profile"]), of_saved(plain)
    except (LookupError, TypeError):
        return None


def _moment(name: str, timeline: Timeline) -> tuple[str, tuple[Own, ...]] | None:
    for each in reversed(timeline.snapshots):
        if found := store.load_moment(name, each.id):
            return found[0].profile, of_plan(found[0].disks)
    return None


def find(name: str, timeline: Timeline, nodes: tuple[Node, ...], word: str) -> Node:
    """The node of the snapshot that `word` means. Raises: NotFoundError."""
    snapshot = timeline.find(word)
    if snapshot is None:
        raise NotFoundError(
            f"{name} has no snapshot {word!r}", hint=f"`qlaunch snapshot list {name}` shows them"
        )
    return next(node for node in nodes if node.id == snapshot.id)


def plain(name: str, node: Node, timeline: Timeline) -> dict[str, Any]:
    """A node as data."""
    if node.snapshot is None:
        return {"id": HERE, "name": None, "parent": node.parent, "size": node.size,
                "problems": list(node.problems)}  # fmt: skip
    snapshot = node.snapshot
    memory = store.file_of(name, node.id, "memory")
    return {
        "id": node.id,
        "name": snapshot.name,
        "label": snapshot.label,
        "kind": snapshot.kind,
        "created": snapshot.created,
        "text": snapshot.text,
        "parent": node.parent,
        "current": timeline.current == node.id,
        "size": node.size,
        "memory_size": os.path.getsize(memory) if os.path.exists(memory) else 0,
        "layers": dict(snapshot.layers),
        "left_out": list(snapshot.left_out),
        "quiesced": snapshot.quiesced,
        "machine": snapshot.machine,
        "cpu": snapshot.cpu,
        "qemu": snapshot.qemu,
        "problems": list(node.problems),
    }


def ago(moment: float) -> str:
    """How long ago, in a word or two."""
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
