"""Where a machine's snapshots are kept: `<data>/machines/NAME/snapshots/`, beside its disks.

`timeline.json` names them all. For the snapshot 7 there are `7.json` (plan and profile of that
moment), `7.memory` (a qcow2 file around QEMU's migration stream), `7.nvram` and `7.tpm/`;
`saved.*` are the same for a machine that was suspended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qlaunch import records
from qlaunch.store import files, paths
from qlaunch.tree.model import TIMELINE_VERSION, Timeline

if TYPE_CHECKING:  # who only looks at snapshots needs no plan, and plans take long to import
    from qlaunch.plan.model import Leases, Plan

SAVED = "saved"


def folder(name: str) -> str:
    """The folder of the machine's snapshots."""
    return os.path.join(paths.machine_data(name), "snapshots")


def list_path(name: str) -> str:
    """The file that names them all."""
    return os.path.join(folder(name), "timeline.json")


def load(name: str) -> Timeline:
    """The machine's snapshots; without any, or when the file is damaged, an empty timeline.

    Raises: HostError when it cannot be read.
    """
    return files.load_record(Timeline, list_path(name), TIMELINE_VERSION) or Timeline()


def save(name: str, timeline: Timeline) -> None:
    """Keep `timeline`: from here on it counts, also after a power cut. Raises: HostError."""
    files.write_json(list_path(name), records.to_plain(timeline))


def file_of(name: str, snapshot: int | str, what: str) -> str:
    """The path of what belongs to a snapshot (or to `SAVED`): `memory`, `nvram`, `tpm`, `json`."""
    return os.path.join(folder(name), f"{snapshot}.{what}")


def save_moment(name: str, snapshot: int | str, plan: Plan, leases: Leases, profile: str) -> None:
    """Keep what the machine was at that moment; `profile` is the text of its profile."""
    plain = {
        "version": 1,
        "plan": records.to_plain(plan),
        "leases": records.to_plain(leases),
        "profile": profile,
    }
    # In the folder of the timeline, which is saved after it, and the folder is made to last then.
    files.write_json(file_of(name, snapshot, "json"), plain, lasting=False)


def load_moment(name: str, snapshot: int | str) -> tuple[Plan, Leases, str] | None:
    """What the machine was at that moment; None when that is not known (any more)."""
    from qlaunch.plan.model import Leases, Plan

    plain: Any = files.read_json(file_of(name, snapshot, "json"))
    if not isinstance(plain, Mapping):
        return None
    try:
        return (
            records.from_plain(Plan, plain.get("plan")),
            records.from_plain(Leases, plain.get("leases")),
            str(plain.get("profile") or ""),
        )
    except records.RecordError:
        return None


def remove_files(name: str, snapshot: int | str) -> None:
    """Remove everything that belongs to a snapshot but its layers. Raises: HostError."""
    import shutil

    prefix = f"{snapshot}."
    try:
        entries = os.listdir(folder(name))
    except FileNotFoundError:
        return
    for entry in entries:
        path = os.path.join(folder(name), entry)
        if entry.startswith(prefix):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                files.remove(path)


def remove_strays(name: str, timeline: Timeline) -> None:
    """Remove what was written for snapshots that then were not taken. Raises: HostError."""
    known = {str(each.id) for each in timeline.snapshots}
    if timeline.saved is not None:
        known.add(SAVED)
    try:
        entries = os.listdir(folder(name))
    except FileNotFoundError:
        return
    for key in {entry.partition(".")[0] for entry in entries} - known:
        if key.isdigit() or key == SAVED:
            remove_files(name, key)
