"""What must hold after every round, whatever was struck: the issues list themselves in words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from qlaunch.host.image_facts import image_contents
from qlaunch.store import paths
from qlaunch.store import timeline as store
from qlaunch.tree.model import Timeline
from tests import leftovers
from tests.chaos.guest import NAME
from tests.rig import Rig, is_alive

# Images that a user has made with `disk attach --size`: they stay when they are taken out.
GUESTS = ("disk0.qcow2", "disk1.qcow2")


def images_are_sound() -> list[str]:
    """`qemu-img check` of every image; space that nobody uses is no error."""
    found = []
    for path in sorted(Path(paths.machine_data(NAME)).glob("*.qcow2")):
        done = subprocess.run(
            ["qemu-img", "check", "-U", "-q", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 3):
            found.append(f"{path.name}: {done.stdout} {done.stderr}")
    return found


def list_is_true(attached: tuple[str, ...]) -> list[str]:
    """Every image is one that a snapshot or the present needs, and all that they need are there."""
    timeline, folder = store.load(NAME), Path(paths.machine_data(NAME))
    needed: set[str] = set(attached)
    found = []
    # A disk that was plugged in is gone with QEMU; what it had written stays, as its head.
    plugged = tuple(f"{ident}.qcow2" for ident in timeline.heads if f"{ident}.qcow2" not in GUESTS)
    for disk in (*GUESTS, *plugged):
        ident = disk.partition(".")[0]
        names = {timeline.heads.get(ident, disk)}
        names |= {each.layers[ident] for each in timeline.snapshots if ident in each.layers}
        for name in sorted(names):
            path: str | None = str(folder / name)
            while path is not None:
                if not os.path.exists(path):
                    found.append(f"{name} needs {path}, which is not there")
                    break
                needed.add(os.path.basename(path))
                path = image_contents(path).backing_path
    needed |= set(GUESTS)
    there = {entry.name for entry in folder.iterdir() if not entry.is_dir()}
    found += [f"{name} is not needed" for name in sorted(there - needed)]
    return found + _unfinished(timeline) + _strays(timeline, folder)


def _unfinished(timeline: Timeline) -> list[str]:
    under_way = {
        "a revert": timeline.pending, "merges": timeline.merges, "a pause": timeline.resume,
        "a saved state": timeline.saved, "internal snapshots": timeline.loose,
    }  # fmt: skip
    return [f"{what} is noted as under way: {each}" for what, each in under_way.items() if each]


def _strays(timeline: Timeline, folder: Path) -> list[str]:
    known = {str(each.id) for each in timeline.snapshots} | {"timeline"}
    kept = folder / "snapshots"
    entries = [entry.name for entry in kept.iterdir()] if kept.exists() else []
    found = [f"{name} belongs to no snapshot" for name in entries if _key(name) not in known]
    found += [
        f"the memory of {each.label} is not there"
        for each in timeline.snapshots
        if each.kind == "memory" and f"{each.id}.memory" not in entries
    ]
    for place in (folder, kept, Path(paths.machine_state(NAME))):
        names = [entry.name for entry in place.iterdir()] if place.exists() else []
        found += [f"{place}/{name} is left over" for name in names if _is_stray(name)]
    return found


def _key(name: str) -> str:
    return name.partition(".")[0]


def _is_stray(name: str) -> bool:
    return ".tmp-" in name or name.startswith(".") or name.endswith(".damaged")


def status_is_true(rig: Rig, qemu: int) -> list[str]:
    """What `status` says is what QEMU says."""
    row = rig.row(NAME)
    if not row:
        return ["it runs and `ps` does not know it"] if qemu else []
    said = rig.ask("qmp", name=NAME, command="query-status")["return"]["status"]
    found = []
    if row["pid"] != qemu:
        found.append(f"`ps` says pid {row['pid']}, QEMU is {qemu}")
    if row["state"] != said:
        found.append(f"`ps` says {row['state']}, QEMU {said}")
    return found


def no_orphans(ident: str, expected: set[int]) -> list[str]:
    """No process but the supervisor and QEMU."""
    found = leftovers.find(ident)
    return [f"pid {pid} is left: {text}" for pid, text in found.items()
            if pid not in expected and is_alive(pid) and not leftovers_end(pid)]  # fmt: skip


def leftovers_end(pid: int) -> bool:
    """Whether the process ends by itself within a moment."""
    import select

    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 5.0)[0])
    finally:
        os.close(handle)


def no_bug(rig: Rig) -> list[str]:
    """The supervisor's log is empty as long as there is no bug in it."""
    log = rig.log()
    return [f"the supervisor's log: {log[-3000:]}"] if "a bug:" in log or "Traceback" in log else []


def folders_are_empty(*folders: str) -> list[str]:
    """Nothing is left of a machine that was removed."""
    return [f"{folder} is left" for folder in folders if os.path.lexists(folder)]


def machine_gone(name: str) -> list[str]:
    data = paths.machine_data(name)
    hidden = os.path.join(os.path.dirname(data), f".{name}.cloning")
    profile = os.path.join(paths.config_dir(), "profiles", f"{name}.toml")
    state = paths.machine_state(name)
    # A power cut may bring back the folder with the lock alone, which means nothing.
    locked = os.path.isdir(state) and os.listdir(state) == ["lock"]
    return folders_are_empty(data, hidden, profile, *(() if locked else (state,)))


def summary(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) < 400 else f"{text[:400]}..."
