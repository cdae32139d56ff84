"""Suspending a machine to disk, and `up` of one that was."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from attrs import evolve

from qlaunch.aio import finish
from qlaunch.errors import QlaunchError
from qlaunch.machine import memory
from qlaunch.machine.bench import Bench, telling
from qlaunch.machine.prepare import Prepared
from qlaunch.machine.snapshot import check_phase
from qlaunch.store import paths
from qlaunch.store import timeline as store
from qlaunch.supervisor import continuing, power
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.benches import live_bench
from qlaunch.supervisor.request import Request
from qlaunch.tree.model import Saved


async def save(request: Request) -> Any:
    """Write the memory to a file and end QEMU; `up` goes on from there."""
    begun = time.monotonic()
    name = paths.check_name(request.text("name"))
    actor = await request.actor()
    try:
        async with live_bench(actor, "saving", request.tell) as bench:
            check_phase(bench)
            await memory.check_allowed(bench.session)
            report = await _write(bench)
    except BaseException:
        # A client may hang up when all is written already: then it is done all the same.
        if (await asyncio.to_thread(store.load, name)).saved is not None:
            with contextlib.suppress(QlaunchError):
                await finish(_end(actor))
        raise
    # From here on the memory counts, and the guest has not run since.
    await finish(_end(actor))
    return {
        "name": name,
        "state": "saved",
        "memory_bytes": report.bytes,
        "seconds": round(time.monotonic() - begun, 3),
    }


async def _end(actor: Actor) -> None:
    await power.kill(actor, lambda name, text, seconds: None)


async def _write(bench: Bench) -> memory.Report:
    """Stop the guest and write its memory; what fails lets it go on as it was."""
    assert bench.machine is not None
    runs = await bench.machine.run_state() == "running"
    await bench.save(evolve(bench.timeline, resume=runs))
    bench.step("save: noted")
    try:
        path = store.file_of(bench.name, store.SAVED, "memory")
        report = await memory.save_live(
            bench.session, path, switch=None, progress=telling(bench.tell, "memory"), resume=False
        )
        bench.step("save: written")
        await finish(
            asyncio.to_thread(
                store.save_moment, bench.name, store.SAVED, bench.plan, bench.leases, bench.profile
            )
        )
        saved = Saved(when=time.time(), heads=bench.timeline.heads)
        await bench.save(evolve(bench.timeline, saved=saved, resume=False))
    except BaseException:
        await finish(_undo(bench))
        raise
    bench.step("save: saved")
    return report


async def _undo(bench: Bench) -> None:
    if bench.timeline.saved is not None:
        return  # it is complete
    try:
        await asyncio.to_thread(store.remove_files, bench.name, store.SAVED)
    finally:
        await bench.go_on()


async def go_on(
    request: Request, prepared: Prepared, found: continuing.Continuation, begun: float
) -> Any:
    """Start a machine that goes on from saved memory; the answer is that of `up`."""
    from qlaunch.supervisor.requests import started

    name = prepared.plan.name

    def step(step_name: str, text: str, seconds: float) -> None:
        request.tell(step_name, text, seconds, machine=name)

    await continuing.anew(
        request.server,
        name,
        paused=request.flag("paused"),
        environment=request.environment(),
        step=step,
    )
    answer = await started(request.server.actors[name], prepared, begun)
    return {**answer, "continued": found.why}
