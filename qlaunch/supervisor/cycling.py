"""The next start of a machine whose QEMU has ended: the same again, or from the profile as it is
now, when a guest's restart becomes a full power cycle."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

from qlaunch.errors import QlaunchError
from qlaunch.machine import stop
from qlaunch.machine.launch import Order
from qlaunch.machine.machine import Machine, quietly
from qlaunch.machine.prepare import Prepared, prepare
from qlaunch.plan.model import Plan
from qlaunch.store import machines
from qlaunch.supervisor import continuing, policy
from qlaunch.supervisor.own import without_own

if TYPE_CHECKING:
    from qlaunch.supervisor.actor import Actor
    from qlaunch.supervisor.tasks import Tasks


async def consider(actor: Actor, machine: Machine) -> None:
    """The guest has restarted: end its QEMU when the profile or the QEMU program is another now,
    so that it boots in the machine that it is meant to have. What could not start changes nothing.
    """
    plan = machine.plan
    try:
        prepared = await _prepare(plan)
        if prepared.plan.made_from == plan.made_from:
            return
        evolve(prepared.resolution, findings=without_own(prepared, machine)).raise_errors()
    except QlaunchError as error:
        machine.log.say(f"no power cycle, the profile cannot start now: {error.message}")
        return
    machine.log.say("the profile or QEMU is another one now: the guest's restart is a power cycle")
    actor.tell("power-cycle")
    actor.cycle = True
    await quietly(machine, "quit", stop.QUIT_TIMEOUT)


async def fresh_order(plan: Plan, tasks: Tasks, before: Order | None) -> Order:
    """The start that comes after `plan` in a power cycle. Raises: as a start does."""
    prepared = await _prepare(plan)
    prepared.raise_errors()
    host = prepared.facts.host
    return Order(
        plan=prepared.plan,
        leases=prepared.resolution.leases,
        group=tasks,
        swtpm=host.swtpm,
        qemu_img=host.qemu_img,
        environment=before.environment if before is not None else {},
        warnings=tuple(finding.to_dict() for finding in prepared.resolution.warnings),
    )


async def same_order(
    plan: Plan, tasks: Tasks, before: Order | None, warnings: Sequence[Mapping[str, Any]]
) -> Order:
    """The same start again, with what it is to go on from."""
    leases = machines.load_leases(plan.name)
    again = policy.second_start(plan, leases)
    order = before or Order(plan=again, leases=leases, group=tasks)
    return await continuing.from_here(
        evolve(order, plan=again, leases=leases, warnings=tuple(warnings))
    )


async def _prepare(plan: Plan) -> Prepared:
    if not await asyncio.to_thread(os.path.exists, plan.profile):
        raise QlaunchError(f"{plan.profile} is gone")
    return await prepare(
        plan.profile, name=plan.name, overrides=plan.overrides, folder=plan.said_in
    )
