"""A guest whose file systems stand still for a moment: fsfreeze by its agent, always thawed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from qlaunch.aio import finish
from qlaunch.errors import PhaseError, QlaunchError, RefusedError
from qlaunch.machine.machine import Machine
from qlaunch.qmp.agent import Agent

# Seconds. Freezing flushes what the guest has not written yet.
FREEZE_TIMEOUT = 30.0
THAW_TIMEOUT = 10.0


@contextlib.asynccontextmanager
async def frozen_guest(machine: Machine | None) -> AsyncIterator[None]:
    """Have the guest's file systems frozen during the block; without a machine, do nothing.

    Raises: RefusedError when there is no agent or it cannot; the block is not entered then.
    """
    if machine is None:
        yield
        return
    agent = await _agent(machine)
    try:
        try:
            await agent.execute("guest-fsfreeze-freeze", timeout=FREEZE_TIMEOUT)
        except QlaunchError as error:
            await finish(_thaw(machine, agent))
            raise RefusedError(
                f"{machine.name}: the guest does not freeze its file systems: {error.message}",
                hint="without --quiesce the snapshot is as after a power failure",
            ) from error
        try:
            yield
        finally:
            await finish(_thaw(machine, agent))
    finally:
        await agent.close()


async def _agent(machine: Machine) -> Agent:
    """The guest agent, answering. Raises: RefusedError."""
    if machine.plan.agent is None:
        raise RefusedError(
            f"{machine.name} has no port for a guest agent, and --quiesce needs one",
            hint="add [guest_agent] to the profile, or leave --quiesce out",
        )
    if await machine.run_state() != "running":
        raise PhaseError(f"{machine.name} does not run: nobody there can flush its disks")
    agent = None
    try:
        agent = await Agent.connect(machine.plan.chardev(machine.plan.agent).path)
        await agent.ping()
    except QlaunchError as error:
        if agent is not None:
            await agent.close()
        raise RefusedError(
            f"{machine.name}: no guest agent answers, and --quiesce needs one",
            hint="install and start qemu-guest-agent in the guest, or leave --quiesce out",
        ) from error
    return agent


async def _thaw(machine: Machine, agent: Agent) -> None:
    try:
        await agent.execute("guest-fsfreeze-thaw", timeout=THAW_TIMEOUT)
    except QlaunchError as error:
        machine.log.say(f"the guest's file systems may still be frozen: {error.message}")
