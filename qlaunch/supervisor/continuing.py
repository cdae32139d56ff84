"""Starting a machine that is to go on from saved memory: after `save`, or after a revert."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from qlaunch.aio import finish
from qlaunch.errors import ConflictError, PhaseError, RefusedError
from qlaunch.host.gather import recent_host_facts
from qlaunch.machine import chains, clock, moment
from qlaunch.machine.launch import Order, Step
from qlaunch.plan.model import Plan
from qlaunch.store import machines
from qlaunch.store import timeline as store
from qlaunch.supervisor import power
from qlaunch.tree.model import Timeline

if TYPE_CHECKING:
    from qlaunch.supervisor.actor import Actor
    from qlaunch.supervisor.server import Server


@frozen(kw_only=True)
class Continuation:
    """How a stopped machine goes on: with the plan and the memory of that moment. `why` says from
    what, for a person. `done` is to be awaited before the guest's first instruction."""

    plan: Plan
    memory: str
    why: str
    done: Callable[[], Awaitable[None]]


async def find(name: str) -> Continuation | None:
    """What the stopped machine is to go on from; None when it boots.

    Raises: RefusedError when that cannot be used any more, HostError.
    """
    timeline = store.load(name)
    if timeline.pending is not None and not timeline.pending.memory:
        # Its disks are where the revert wants them, and booting is what it wanted.
        plan = machines.load_plan(name)
        if plan is not None:
            await finish(asyncio.to_thread(moment.bring_back, plan, timeline.pending.snapshot))
        await _forget(name)
        return None
    if timeline.pending is not None:
        key: int | str = timeline.pending.snapshot
        snapshot = timeline.by_id(timeline.pending.snapshot)
        why = f"reverting to {snapshot.label if snapshot else '?'}"
    elif timeline.saved is not None:
        key, why = store.SAVED, "continuing where it was saved"
        _check_heads(name, timeline)
    else:
        if timeline.resume:
            await asyncio.to_thread(store.save, name, evolve(timeline, resume=False))
        return None
    then = await asyncio.to_thread(store.load_moment, name, key)
    if then is None:
        raise RefusedError(
            f"{name}: what it was when its memory was saved is not known any more",
            hint=f"`qlaunch up --fresh {name}` boots it without that memory",
        )

    async def done() -> None:
        await _forget(name)

    plan = await asyncio.to_thread(chains.with_heads, chains.relocated(then[0], name), timeline)
    return Continuation(
        plan=evolve(plan, scope=recent_host_facts().systemd_scope),
        memory=store.file_of(name, key, "memory"),
        why=why,
        done=done,
    )


def _check_heads(name: str, timeline: Timeline) -> None:
    assert timeline.saved is not None
    if dict(timeline.saved.heads) != dict(timeline.heads):
        raise RefusedError(
            f"{name}: its disks were changed since it was saved",
            hint=f"`qlaunch up --fresh {name}` boots it without the saved memory",
        )


async def _forget(name: str) -> None:
    """Nothing is pending or saved any more: the disks go on, and the memory does not fit them."""
    timeline = store.load(name)
    was_saved = timeline.saved is not None
    fresh = evolve(timeline, pending=None, saved=None, resume=False)
    await asyncio.to_thread(store.save, name, fresh)
    if was_saved:
        await asyncio.to_thread(store.remove_files, name, store.SAVED)


async def forget(name: str) -> None:
    """Give up saved memory: the machine boots at its next start."""
    timeline = store.load(name)
    if timeline.pending is not None or timeline.saved is not None:
        await _forget(name)


async def anew(
    server: Server,
    name: str,
    *,
    start: bool = True,
    paused: bool = False,
    environment: Mapping[str, str] | None = None,
    step: Step = lambda step, text, seconds: None,
) -> None:
    """End the machine's QEMU, if it runs, and with `start` begin another that goes on from what is
    pending: with saved memory, or by booting.

    Raises: as a start does; what is pending stays so then.
    """
    actor = server.actors.get(name)
    if actor is not None:
        if environment is None and actor.machine is not None:
            secret = actor.machine.plan.display.password
            if secret is not None and secret.env is not None:
                raise ConflictError(
                    f"{name}: its password came from the environment variable {secret.env}",
                    hint=f"`qlaunch down {name}`, then `qlaunch up {name}` where it is set",
                )
        actor.keeps_unit = start
        await power.kill(actor, lambda name, text, seconds: None)
    found = await find(name)
    plan = found.plan if found is not None else machines.load_plan(name)
    if not start or plan is None:
        return
    if found is None:
        plan = await asyncio.to_thread(chains.with_heads, plan, store.load(name))
    host = recent_host_facts()
    order = Order(
        plan=plan,
        leases=machines.load_leases(name),
        group=server.tasks,
        swtpm=host.swtpm,
        qemu_img=host.qemu_img,
        paused=paused,
        environment=environment or {},
        step=step,
        incoming=found.memory if found is not None else None,
        before_go=found.done if found is not None else None,
    )
    actor = server.host(name)
    await actor.start(order)
    server.tidy(name)
    if found is not None and not paused:
        set_clock(server, actor)


async def from_here(order: Order) -> Order:
    """`order` for a QEMU after one that died: on the layers that count now, and with the memory of
    a revert that it died over.

    Raises: RefusedError, HostError.
    """
    name = order.plan.name
    found = await find(name)
    if found is not None:
        return evolve(order, plan=found.plan, incoming=found.memory, before_go=found.done)
    kept = await asyncio.to_thread(store.load, name)
    return evolve(order, plan=await asyncio.to_thread(chains.with_heads, order.plan, kept))


def set_clock(server: Server, actor: Actor) -> None:
    """Have the clock of a guest set that goes on from memory; nobody waits for it."""
    if actor.machine is not None:
        server.tasks.create_task(clock.set_right(actor.machine))


def refuse_half_done(name: str) -> None:
    """Raises: PhaseError when the guest must not run: its memory and its disks do not fit."""
    timeline = store.load(name)
    if timeline.pending is not None or timeline.saved is not None:
        raise PhaseError(
            f"{name}: a revert or a save was cut off, so it must not go on as it is",
            hint=f"`qlaunch kill {name}`, then `qlaunch up {name}` finishes it",
        )
