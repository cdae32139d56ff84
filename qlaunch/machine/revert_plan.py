"""What going back to a snapshot takes: whether it can be done, and whether in the running QEMU."""

from __future__ import annotations

import os

from attrs import frozen

from qlaunch.errors import RefusedError
from qlaunch.host.image_facts import image_contents
from qlaunch.machine import chains, internal
from qlaunch.machine.bench import Bench
from qlaunch.plan.model import Disk, Layer, Plan
from qlaunch.store import timeline as store
from qlaunch.tree.model import Snapshot

# QEMU draws it when it starts, and never again.
GENERATION = "the guest gets a new generation id"


@frozen(kw_only=True)
class Revert:
    """A revert that was decided: where to, on which new layers, and what becomes of the present.

    `memory` says that memory comes back too, `in_process` that the running QEMU can do it all.
    """

    snapshot: Snapshot
    disks: tuple[Disk, ...]
    memory: bool
    in_process: bool
    why_restart: str = ""
    warnings: tuple[str, ...] = ()


def decide(bench: Bench, snapshot: Snapshot) -> Revert:
    """What going back to `snapshot` takes.

    Raises: RefusedError when a layer is not there any more, or a disk is not.
    """
    check_layers(bench, snapshot)
    moment = store.load_moment(bench.name, snapshot.id)
    plan = chains.relocated(moment[0], bench.name) if moment else None
    why, warnings = "", []
    with_memory = snapshot.has_memory
    if snapshot.kind == "internal":
        internal.check_there(bench, snapshot)
        if with_memory and plan is None:
            with_memory = False
            warnings.append("its memory was saved by another program and is left out: what machine"
                            " it belongs to is not known")  # fmt: skip
    if with_memory:
        path = store.file_of(bench.name, snapshot.id, "memory")
        inside = snapshot.kind == "internal"
        if (not os.path.exists(path) and not inside) or plan is None:
            raise RefusedError(
                f"{bench.name}: the memory of {snapshot.label} is missing ({path})",
                hint="put it back, or make a machine of its disks:"
                f" `qlaunch clone {bench.name} NEW --snapshot {snapshot.label}`",
            )
        why = difference(bench.plan, plan)
    elif _has_generation(bench.plan):
        why = GENERATION
    elif bench.plan.firmware is not None or bench.plan.tpm is not None:
        why = "the firmware's variables go back too"
    return Revert(
        snapshot=snapshot,
        disks=tuple(bench.disk(ident) for ident in snapshot.layers),
        memory=with_memory,
        in_process=bench.is_live and not why,
        why_restart=why,
        warnings=tuple(warnings),
    )


def check_layers(bench: Bench, snapshot: Snapshot) -> None:
    """Raises: RefusedError when a layer of the snapshot, or one below it, cannot be used."""
    for ident in snapshot.layers:
        path: str | None = bench.layer_path(snapshot, ident)
        seen: set[str] = set()
        while path is not None:
            facts = image_contents(path)
            problem = facts.problem or (None if facts.exists else "it is missing")
            if path in seen:
                problem = "it stands on itself"
            if problem:
                raise RefusedError(
                    f"{bench.name}: {snapshot.label} needs {path}: {problem}",
                    hint=f"`qlaunch snapshot tree {bench.name}` shows what stands on what",
                )
            seen.add(path)
            path = (
                None
                if bench.is_raw(bench.disk(ident), path)
                else (facts.backing_path if facts.format == "qcow2" else None)
            )


def difference(now: Plan, then: Plan) -> str:
    """Why the memory of `then` cannot be loaded into a machine of `now`; empty when it can."""
    if _has_generation(now):
        return GENERATION
    if now.board != then.board:
        return "processors, memory or board were others"
    shape = [_shape(plan) for plan in (now, then)]
    if shape[0] != shape[1]:
        return "it had other devices"
    if (now.firmware is None) != (then.firmware is None) or now.tpm != then.tpm:
        return "it had another firmware or TPM"
    media = [{drive.id: _medium(drive.medium) for drive in plan.drives} for plan in (now, then)]
    return "" if media[0] == media[1] else "other media were inserted"


def _has_generation(plan: Plan) -> bool:
    return any(device.driver == "vmgenid" for device in plan.all_devices())


def _medium(layer: Layer | None) -> str | None:
    return None if layer is None else layer.path


def _shape(plan: Plan) -> dict[str, object]:
    """The devices that the guest sees; what it boots from first is no matter to its memory."""
    return {
        device.id: (
            device.driver,
            {key: value for key, value in device.props.items() if key != "bootindex"},
        )
        for device in plan.all_devices()
    }
