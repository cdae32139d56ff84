"""Where a snapshot verb gets its machine from: one that runs, or one that is stopped and locked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from qlaunch.errors import CommandError, NotFoundError
from qlaunch.machine import plug
from qlaunch.machine.bench import Bench, Tell
from qlaunch.machine.prepare import prepare
from qlaunch.store import machines, paths, timeline
from qlaunch.supervisor import unplugging
from qlaunch.supervisor.actor import Actor, Kind

if TYPE_CHECKING:
    from qlaunch.supervisor.server import Server


SETTLE_TIMEOUT = 2.0
_POLL = 0.01


@contextlib.asynccontextmanager
async def bench_of(server: Server, name: str, kind: Kind, tell: Tell) -> AsyncIterator[Bench]:
    """The machine `name` to work on, alone: nobody starts, stops or changes it meanwhile.

    Raises: NotFoundError, BusyError, PhaseError; ProfileError when a stopped one has none.
    """
    paths.check_name(name)
    if name not in server.actors and name in machines.running_names():
        await server.adopt_strays()
    actor = server.actors.get(name)
    if actor is not None:
        await unplugging.wait(actor)
        async with live_bench(actor, kind, tell) as bench:
            yield bench
        return
    profile = profile_of(name)
    handle = machines.lock(name)
    try:
        prepared = await prepare(profile, name=name)
        yield Bench(
            plan=prepared.plan,
            timeline=timeline.load(name),
            leases=machines.load_leases(name),
            profile=text_of(profile),
            qemu_img=prepared.facts.host.qemu_img or "qemu-img",
            tell=tell,
        )
    finally:
        os.close(handle)


@contextlib.asynccontextmanager
async def live_bench(actor: Actor, kind: Kind, tell: Tell) -> AsyncIterator[Bench]:
    """The running machine of `actor` to work on. Raises: BusyError, PhaseError."""
    with actor.operate(kind):
        machine = actor.running()
        bench = Bench(
            plan=machine.plan,
            timeline=timeline.load(actor.name),
            leases=machines.load_leases(actor.name),
            profile=text_of(machine.plan.profile),
            machine=machine,
            tell=tell,
        )
        await _settle(bench)
        await bench.look()
        await bench.reconcile()
        try:
            yield bench
        finally:
            if machine.session is not None and not machine.process.ended:
                actor.note_state(await machine.run_state())


async def _settle(bench: Bench) -> None:
    """Disks that have just left the machine leave its plan, too.

    A device is gone from QEMU's list a moment before it lets go of its image (7.2).
    """
    machine = bench.machine
    assert machine is not None
    until = time.monotonic() + SETTLE_TIMEOUT
    while True:
        try:
            await plug.settle(machine)
            break
        except CommandError:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(_POLL)
    bench.plan = machine.plan


def profile_of(name: str) -> str:
    """The file of the machine's profile: what it was last started from, or what the name means.

    Raises: NotFoundError.
    """
    plan = machines.load_plan(name)
    if plan is not None and os.path.isfile(plan.profile):
        return plan.profile
    try:
        return paths.find_profile(name)
    except NotFoundError as error:
        raise NotFoundError(f"there is no machine {name!r}", hint=error.hint) from None


def text_of(path: str) -> str:
    """The profile's text, to be kept with a snapshot; empty when it is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
