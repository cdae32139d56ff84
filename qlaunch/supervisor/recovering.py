"""Finishing what an earlier supervisor was cut off in, on a machine that was just adopted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlaunch.errors import QlaunchError
from qlaunch.machine import internal, memory, memory_load
from qlaunch.machine import revert as reverting
from qlaunch.machine.bench import Bench
from qlaunch.machine.unused import drop_unused_nodes
from qlaunch.store import timeline as store
from qlaunch.supervisor import continuing, leftovers, power, unplugging
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.benches import live_bench
from qlaunch.supervisor.tasks import note

if TYPE_CHECKING:
    from qlaunch.supervisor.server import Server


async def recover(server: Server, actor: Actor) -> None:
    """Bring disks, memory and timeline of an adopted machine back together.

    A revert whose disks were switched is finished, one whose disks were not is taken back; a guest
    that was stopped for a moment goes on; merges go on.
    """
    await unplugging.settle_adopted(actor)
    await leftovers.remove_half_made(actor.name)
    timeline = store.load(actor.name)
    if timeline == type(timeline)():
        return
    machine = actor.machine
    if machine is None or machine.session is None:
        return
    if timeline.saved is not None:
        # Its memory is on the disk, and it has not run since.
        machine.log.say("saved; QEMU, which a supervisor that was cut off had left, ends")
        await power.kill(actor, lambda name, text, seconds: None)
        return
    failed = False
    try:
        async with live_bench(actor, "adopting", lambda name, text, seconds: None) as bench:
            if bench.timeline.pending is not None:
                failed = not await _finish_revert(bench)
            else:
                await _tidy(bench)
    except QlaunchError as error:
        machine.log.say(f"while adopting: {error.message}")
        note(f"{actor.name}: while adopting: {error.message}")
        return
    if failed:
        await continuing.anew(server, actor.name)
    else:
        server.tidy(actor.name)


async def _finish_revert(bench: Bench) -> bool:
    """Returns: False when this QEMU cannot take the memory, and a new one must."""
    assert bench.machine is not None
    pending = bench.timeline.pending
    assert pending is not None
    snapshot = bench.timeline.by_id(pending.snapshot)
    if snapshot is None or not reverting.switched(bench):
        bench.machine.log.say("a revert that was cut off is taken back")
        await reverting.take_back(bench)
        return True
    bench.machine.log.say(f"a revert to {snapshot.label} that was cut off is finished")
    await bench.session.execute("stop", timeout=reverting.STOP_TIMEOUT)
    await memory_load.remove_left(bench.session)
    try:
        await reverting.load(bench, snapshot, with_memory=pending.memory)
    except memory_load.MemoryLoadError as error:
        bench.machine.log.say(f"{error.message}; starting QEMU anew with it")
        return False
    await reverting.conclude(bench, go=bench.timeline.resume)
    return True


async def _tidy(bench: Bench) -> None:
    assert bench.machine is not None
    await memory.abandon(bench.session)
    if not bench.timeline.merges:  # else a pivot may be under way: the merge brings it to its end
        if bench.timeline.resume and await bench.machine.run_state() != "running":
            bench.machine.log.say("the guest, which a verb that was cut off had stopped, goes on")
        await bench.go_on()
        # Not while it stands still: QEMU (7.2) would keep their descriptors.
        await drop_unused_nodes(bench)
    await internal.clear(bench)
    await bench.note_layers()
    await leftovers.sweep(bench.name)
