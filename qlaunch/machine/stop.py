"""The stop ladder: guest agent or power button, then `quit`, TERM, KILL, each with its time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

from qlaunch.errors import QlaunchError, TimedOutError
from qlaunch.host.process import Process
from qlaunch.machine.machine import Machine, quietly
from qlaunch.qmp.agent import Agent

# An ACPI power button pressed while the guest boots is lost, and Windows wants two.
PRESS_AGAIN = 6.0
AGENT_TIMEOUT = 3.0
QUIT_TIMEOUT = 10.0
TERM_TIMEOUT = 5.0
KILL_TIMEOUT = 10.0
POWERDOWN_TIMEOUT = 5.0

Step = Callable[[str, str], None]


async def ask_to_stop(machine: Machine, timeout: float, step: Step) -> bool:
    """Ask the guest to power off and wait up to `timeout` seconds for QEMU's end.

    Returns: whether it has ended. A paused guest is let run, since it could not hear.
    """
    try:
        async with asyncio.timeout(timeout):
            await _ask_until_gone(machine, step)
    except TimeoutError:
        return machine.process.ended
    return True


async def _ask_until_gone(machine: Machine, step: Step) -> None:
    state = await machine.run_state()
    if state in ("prelaunch", "shutdown", "guest-panicked", "internal-error"):
        # Nobody is there to hear: a guest that has not begun, or that has ended already.
        step("quit", f"the guest is {state}; QEMU is told to quit")
        await force(machine, step)
        return
    if state not in ("running", "unresponsive"):
        await quietly(machine, "cont", POWERDOWN_TIMEOUT)
    if state != "unresponsive" and await _agent_shutdown(machine):
        step("agent", "the guest agent was asked to shut down")
        if await gone(machine, PRESS_AGAIN):
            return
    presses = 0
    while not machine.process.ended:
        if await quietly(machine, "system_powerdown", POWERDOWN_TIMEOUT):
            presses += 1
            times = f" ({presses} times)" if presses > 1 else ""
            step("button", f"power button pressed{times}")
        elif not machine.process.ended:
            step("wait", f"QEMU (pid {machine.process.pid}) does not answer")
        await gone(machine, PRESS_AGAIN)


async def _agent_shutdown(machine: Machine) -> bool:
    """Ask by the guest agent, if there is one and it answers."""
    if machine.plan.agent is None:
        return False
    try:
        agent = await Agent.connect(machine.plan.chardev(machine.plan.agent).path)
    except QlaunchError:
        return False
    try:
        await agent.ping(AGENT_TIMEOUT)
        await agent.shutdown()
    except QlaunchError:
        return False
    finally:
        await agent.close()
    return True


async def gone(machine: Machine, seconds: float) -> bool:
    """Whether QEMU ends within `seconds`."""
    try:
        await machine.process.wait(timeout=seconds)
    except TimeoutError:
        return False
    return True


async def force(machine: Machine, step: Step) -> None:
    """End QEMU: `quit` (it flushes its images), TERM, KILL. One that does not answer is not asked.

    Raises: TimedOutError when even KILL does not end it (a dead disk can do that).
    """
    if machine.process.ended:
        return
    if await machine.run_state() != "unresponsive":
        step("quit", "QEMU is told to quit")
        await quietly(machine, "quit", QUIT_TIMEOUT)
        if await gone(machine, QUIT_TIMEOUT):
            return
    await force_process(machine.process, machine.name, step)


async def force_process(process: Process, name: str, step: Step) -> None:
    """End a QEMU of which nothing but the process is known: TERM, KILL. Raises: TimedOutError."""
    for number, seconds in ((signal.SIGTERM, TERM_TIMEOUT), (signal.SIGKILL, KILL_TIMEOUT)):
        if process.ended:
            return
        step(number.name, f"{number.name} sent to QEMU")
        process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await process.wait(timeout=seconds)
    if not process.ended:
        raise TimedOutError(
            f"{name}: QEMU (pid {process.pid}) does not end, not even by SIGKILL",
            hint="the kernel holds it, usually for a disk or network file system that does not"
            " answer",
        )
