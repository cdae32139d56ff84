"""The guest's clock: set right where it stood still, kept where the guest has set it itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from qlaunch.errors import QlaunchError
from qlaunch.machine.machine import Machine
from qlaunch.plan.model import Board
from qlaunch.qmp.agent import Agent

# What a guest's clock is off by less is a matter of rounding.
LEAST_OFFSET = 2
# Windows takes a second.
SET_TIMEOUT = 10.0


async def set_right(machine: Machine) -> bool:
    """Have the guest agent set the guest's clock to the host's; the hardware clock is right anyway.

    Returns: whether it did. Without an agent the guest is on its own: it has NTP, or it goes on
    with the time of the snapshot until its next boot.
    """
    if machine.plan.agent is None:
        return False
    agent = None
    try:
        agent = await Agent.connect(machine.plan.chardev(machine.plan.agent).path)
        await agent.ping()
        now = {"time": time.time_ns()}
        await agent.execute("guest-set-time", now, timeout=SET_TIMEOUT)
    except QlaunchError as error:
        machine.log.say(f"the guest's clock was not set: {error.message}")
        return False
    finally:
        if agent is not None:
            await agent.close()
    machine.log.say("the guest's clock is set")
    return True


def rtc_base(board: Board) -> str | None:
    """The moment at which the hardware clock starts of a guest that has set it; else None."""
    if abs(board.rtc_offset) < LEAST_OFFSET:
        return None
    now = datetime.now(UTC) if board.rtc_base == "utc" else datetime.now()
    return (now + timedelta(seconds=board.rtc_offset)).strftime("%Y-%m-%dT%H:%M:%S")
