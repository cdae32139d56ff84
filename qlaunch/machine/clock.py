"""The guest's clock, which stood still while its memory lay in a file."""

from __future__ import annotations

import time

from qlaunch.errors import QlaunchError
from qlaunch.machine.machine import Machine
from qlaunch.qmp.agent import Agent

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
