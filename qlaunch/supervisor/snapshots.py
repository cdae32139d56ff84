"""The verbs of snapshots: create, rename, edit, revert. What merges layers is in `collecting`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from qlaunch.errors import BusyError, NotFoundError, RefusedError, UsageError
from qlaunch.machine import revert as reverting
from qlaunch.machine import snapshot as taking
from qlaunch.machine.bench import Bench
from qlaunch.machine.revert_plan import decide
from qlaunch.machine.survey import of_plan, survey
from qlaunch.store import paths
from qlaunch.store import timeline as store
from qlaunch.supervisor import continuing
from qlaunch.supervisor.benches import bench_of
from qlaunch.supervisor.collecting import Collector
from qlaunch.supervisor.request import Request
from qlaunch.tree import drift as drifting
from qlaunch.tree.model import Snapshot, Timeline

LONGEST_TEXT = 4000
MERGE_PATIENCE = 3.0


def about(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot in an answer."""
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "label": snapshot.label,
        "kind": snapshot.kind,
        "created": snapshot.created,
        "text": snapshot.text,
        "layers": dict(snapshot.layers),
        "left_out": list(snapshot.left_out),
        "memory": snapshot.has_memory,
    }


async def until_merged(request: Request, name: str) -> None:
    """Wait a moment for layers that are being merged: most merges are done before anyone looks.

    Raises: BusyError when it takes longer.
    """
    job = request.server.collectors.get(name)
    if job is not None and job.task is not None:
        await asyncio.wait({job.task}, timeout=MERGE_PATIENCE)
    job = request.server.collectors.get(name)
    if job is not None:
        raise BusyError(
            f"{name}: layers are being merged ({job.words()})",
            hint=f"wait for it: `qlaunch jobs {name}`; or cancel it: `qlaunch jobs {name}"
            " --cancel`",
        )


async def create(request: Request) -> Any:
    begun = time.monotonic()
    name = paths.check_name(request.text("name"))
    wish = taking.Wish(
        name=request.optional_text("snapshot"),
        text=_text(request),
        disks=tuple(request.texts("disks")),
        memory=not request.flag("disks_only"),
        quiesce=request.flag("quiesce"),
        internal=request.flag("internal"),
    )
    if wish.quiesce and wish.memory:
        raise UsageError(
            "--quiesce goes with --disks-only: with the memory nothing has to be flushed",
        )
    await until_merged(request, name)
    async with bench_of(request.server, name, "snapshotting", request.tell) as bench:
        made = await taking.create(bench, wish)
    return {
        "name": name,
        "snapshot": about(made.snapshot),
        "stopped": made.stopped,
        "memory_bytes": made.memory_bytes,
        "warnings": list(made.warnings),
        "seconds": round(time.monotonic() - begun, 3),
    }


def _text(request: Request) -> str:
    text = request.optional_text("text") or ""
    if len(text) > LONGEST_TEXT:
        raise UsageError(f"a description has at most {LONGEST_TEXT} letters")
    return text


async def rename(request: Request) -> Any:
    def change(bench: Bench, snapshot: Snapshot) -> Snapshot:
        return evolve(snapshot, name=taking.check_name(bench, request.text("new_name")))

    return await _change(request, change)


async def edit(request: Request) -> Any:
    text = _text(request)
    return await _change(request, lambda _bench, snapshot: evolve(snapshot, text=text))


async def _change(request: Request, change: Any) -> Any:
    name = paths.check_name(request.text("name"))
    async with bench_of(request.server, name, "snapshotting", request.tell) as bench:
        snapshot = change(bench, bench.snapshot(request.text("snapshot")))
        await bench.save(bench.timeline.with_snapshot(snapshot))
    return {"name": name, "snapshot": about(snapshot)}


async def revert(request: Request) -> Any:
    """Go back to a snapshot: in the running QEMU where that can be, else with a new one."""
    begun = time.monotonic()
    name = paths.check_name(request.text("name"))
    discard, paused = request.flag("discard"), request.flag("paused")
    if discard and request.flag("keep_current"):
        raise UsageError("--keep-current and --discard exclude each other")
    await until_merged(request, name)
    restart = False
    async with bench_of(request.server, name, "reverting", request.tell) as bench:
        was_live = bench.is_live
        snapshot = bench.snapshot(request.text("snapshot"))
        decided = decide(bench, snapshot)
        overlays, left = await reverting.prepare(bench, decided, keep=not discard)
        if decided.in_process:
            restart = not await reverting.in_process(bench, decided, overlays, go=not paused)
        else:
            restart = was_live or bench.timeline.pending is not None
    if restart:
        await continuing.anew(
            request.server,
            name,
            start=was_live or decided.memory,
            paused=paused,
            environment=request.environment(),
            step=request.tell,
        )
    elif was_live and decided.memory and not paused:
        continuing.set_clock(request.server, request.server.actors[name])
    if left.branch is None:
        collector = request.server.collect(name)
        if name not in request.server.actors and collector.task is not None:
            # It has the lock of the stopped machine, which the user is about to use.
            await asyncio.wait({collector.task})
    return {
        "name": name,
        "snapshot": about(snapshot),
        "how": "restarted" if restart and was_live else "in place" if was_live else "stopped",
        "why_restarted": decided.why_restart if restart and was_live else "",
        "state": request.server.actors[name].state if name in request.server.actors else "stopped",
        "branch": about(left.branch) if left.branch else None,
        "discarded": left.size if discard else 0,
        "left_out": list(snapshot.left_out),
        "warnings": list(decided.warnings),
        "seconds": round(time.monotonic() - begun, 3),
    }


# ---- what somebody else did ---------------------------------------------------------------------


async def sync(request: Request) -> Any:
    """Compare images and timeline; with `take_over` the timeline follows the images."""
    name, take_over = paths.check_name(request.text("name")), request.flag("take_over")
    await until_merged(request, name)
    async with bench_of(request.server, name, "snapshotting", request.tell) as bench:
        looked = await asyncio.to_thread(
            survey, name, bench.plan.profile, of_plan(bench.plan.disks), bench.timeline
        )
        found = drifting.drift(bench.timeline, looked)
        before = {each.id for each in bench.timeline.snapshots}
        if take_over and found:
            await bench.save(drifting.taken_over(bench.timeline, found, looked))
            for each in found:
                if each.gone is not None:
                    await asyncio.to_thread(store.remove_files, name, each.gone)
        fresh = [each for each in bench.timeline.snapshots if each.id not in before]
    return {
        "name": name,
        "drift": [_drift(each) for each in found],
        "added": [about(each) for each in fresh],
    }


def _drift(each: drifting.Drift) -> dict[str, Any]:
    if each.found is not None:
        would, done = f"it would become the snapshot {each.found.name}", "it is a snapshot now"
    elif each.gone is not None:
        would, done = "the snapshot would be forgotten", "the snapshot is forgotten"
    else:
        would, done = "it would be taken as it is now", "it is taken as it is now"
    return {"text": each.text, "would": would, "taken_over": done}


# ---- what merges and removes layers -------------------------------------------------------------


async def delete(request: Request) -> Any:
    """Forget a snapshot, with `children` also all made from it; what it alone held goes."""
    name = paths.check_name(request.text("name"))
    await until_merged(request, name)
    async with bench_of(request.server, name, "snapshotting", request.tell) as bench:
        snapshot = bench.snapshot(request.text("snapshot"))
        gone = [snapshot]
        if request.flag("merge"):
            _check_followed(bench, snapshot)
        if request.flag("children"):
            gone += descendants(bench.timeline, snapshot)
        await _forget(bench, gone)
    return await _collected(request, name, {"deleted": [about(each) for each in gone]})


def _check_followed(bench: Bench, snapshot: Snapshot) -> None:
    """Raises: RefusedError when nothing follows `snapshot` that its content could go into."""
    if bench.timeline.current != snapshot.id and not descendants(bench.timeline, snapshot):
        raise RefusedError(
            f"{bench.name}: nothing was made from {snapshot.label}, so there is nothing to merge",
            hint=f"`qlaunch snapshot delete {bench.name} {snapshot.label}` throws it away",
        )


def descendants(timeline: Timeline, snapshot: Snapshot) -> list[Snapshot]:
    """All snapshots that were made from `snapshot`, and from those."""
    found: list[Snapshot] = []
    waiting = {snapshot.id}
    while waiting:
        fresh = [each for each in timeline.snapshots if each.parent in waiting]
        found += fresh
        waiting = {each.id for each in fresh}
    return found


async def _forget(bench: Bench, gone: Sequence[Snapshot]) -> None:
    timeline = bench.timeline
    for each in gone:
        timeline = timeline.without(each.id)
    loose = tuple(each for each in gone if each.kind == "internal")
    await bench.save(evolve(timeline, loose=(*timeline.loose, *loose), due=True))
    bench.step("delete: forgotten")
    for each in gone:
        await asyncio.to_thread(store.remove_files, bench.name, each.id)


async def prune(request: Request) -> Any:
    """Forget all but the newest snapshots."""
    name = paths.check_name(request.text("name"))
    keep = request.args.get("keep")
    if not isinstance(keep, int) or isinstance(keep, bool) or keep < 0:
        raise UsageError("how many snapshots to keep?", hint="--keep 10")
    await until_merged(request, name)
    async with bench_of(request.server, name, "snapshotting", request.tell) as bench:
        newest = sorted(bench.timeline.snapshots, key=lambda each: (each.created, each.id))
        gone = newest[: max(0, len(newest) - keep)]
        if request.flag("dry_run"):
            return {"name": name, "would_delete": [about(each) for each in gone]}
        await _forget(bench, gone)
    return await _collected(request, name, {"deleted": [about(each) for each in gone]})


async def _collected(request: Request, name: str, answer: dict[str, Any]) -> Any:
    """Merge and remove what nobody needs any more, and wait for it; it goes on without us too.

    Raises: what went wrong with it.
    """
    begun = time.monotonic()
    collector = request.server.collect(name)
    collector.tellers.append(request.tell)
    assert collector.task is not None
    try:
        await asyncio.wait({collector.task})
    finally:
        collector.tellers.remove(request.tell)
    if collector.error is not None:
        raise collector.error
    return {
        "name": name,
        **answer,
        "merged": collector.merged,
        "removed": collector.removed,
        "freed": collector.freed,
        "kept": [{"layer": each.layer, "reason": each.reason} for each in collector.kept],
        "seconds": round(time.monotonic() - begun, 3),
    }


async def jobs(request: Request) -> Any:
    """What is under way on the machine's disks: listed, cancelled, slowed down."""
    name = paths.check_name(request.text("name"))
    collector: Collector | None = request.server.collectors.get(name)
    actor = request.server.actors.get(name)
    if actor is None and collector is None:
        actor = await request.actor()
    cancel, limit = request.optional_text("cancel"), request.args.get("limit")
    session = actor.session() if actor is not None and actor.machine is not None else None
    rows = [collector.row()] if collector is not None else []
    if session is not None:
        known = {row["id"] for row in rows}
        rows += [_row(job) for job in await session.execute("query-block-jobs")
                 if job["device"] not in known]  # fmt: skip
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise UsageError("the limit is a number of bytes a second")
    chosen = [row for row in rows if cancel in (None, "all", row["id"])]
    if (cancel or limit is not None) and not chosen:
        raise NotFoundError(f"{name} has no such job", hint=f"`qlaunch jobs {name}` lists them")
    for row in chosen if cancel else []:
        if collector is not None and row["id"] == collector.row()["id"]:
            await collector.cancel()
        elif session is not None:
            await session.execute("job-cancel", {"id": row["id"]})
    for row in chosen if limit is not None else []:
        row["limit"] = limit
        if collector is not None and row["id"] == collector.row()["id"]:
            collector.limit = limit or 0
        if session is not None and (collector is None or collector.live):
            await session.execute("block-job-set-speed", {"device": row["id"], "speed": limit})
    return {"name": name, "jobs": rows, "cancelled": bool(cancel)}


def _row(job: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": job["device"], "what": job["type"], "done": job["offset"], "total": job["len"],
        "limit": job["speed"], "seconds": None,
    }  # fmt: skip
