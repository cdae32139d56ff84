"""Stopping a machine: gracefully, or as if the power failed. And its reset button."""

from __future__ import annotations

import time
from collections.abc import Callable

from qlaunch.aio import finish
from qlaunch.errors import TimedOutError
from qlaunch.machine import last_look, stop
from qlaunch.machine.machine import Machine
from qlaunch.store import machines
from qlaunch.supervisor.actor import Actor, Tell

# Run states of a guest that was kept as it is after its end.
ENDED = ("shutdown", "guest-panicked", "internal-error")


async def down(actor: Actor, *, timeout: float | None, force: bool, tell: Tell) -> str:
    """Stop the machine gracefully; `force` ends it when its time is up. A start is cancelled.

    Returns: how it ended. Raises: TimedOutError when the guest still runs, BusyError, PhaseError.
    """
    if await actor.cancel("starting", by="down"):
        await actor.gone.wait()
        return "its start was cancelled"
    with actor.operate("stopping"):
        machine = actor.running()
        limit = machine.plan.lifecycle.stop_timeout if timeout is None else timeout
        actor.stop_asked = True
        actor.note_state("stopping")
        step = _teller(machine, tell)
        try:
            gone = await stop.ask_to_stop(machine, limit, step)
            if not gone and force:
                await finish(stop.force(machine, step))
                gone = True
        finally:
            if not machine.process.ended:
                actor.stop_asked = actor.keeps_unit = False
                actor.note_state(await machine.run_state())
        if not gone:
            raise _still_there(actor.name, limit, await last_look.look(machine))
    await actor.gone.wait()
    return how(actor.name)


def _still_there(name: str, limit: float, seen: last_look.Look) -> TimedOutError:
    shows = "".join(f"\n  | {line}" for line in seen.lines)
    if shows:
        shows = f"; its {seen.of} shows:{shows}"
    picture = f"its screen is in {seen.picture}" if seen.picture else "look at it"
    return TimedOutError(
        f"{name} did not power off within {limit:.0f} s and still runs{shows}",
        hint=f"{picture}: `qlaunch view {name}` or `qlaunch console {name}`;"
        f" end it: `qlaunch down --force {name}` or `qlaunch kill {name}`",
    )


async def kill(actor: Actor, tell: Tell) -> str:
    """End QEMU now, whatever else is under way.

    Returns: how it ended. Raises: TimedOutError when the kernel does not let it go, PhaseError.
    """
    actor.stop_asked = True  # from now on nothing is started again
    cancelled = await actor.cancel(by="kill")
    if cancelled == "starting":
        await actor.gone.wait()
        return "its start was cancelled"
    if actor.process is None:
        await actor.gone.wait()
        return how(actor.name)
    with actor.operate("stopping"):
        actor.stop_asked = True
        if actor.orphan is not None:
            await finish(stop.force_process(actor.orphan, actor.name, lambda name, text: None))
        else:
            machine = actor.running()
            actor.note_state("stopping")
            try:
                await finish(stop.force(machine, _teller(machine, tell)))
            finally:
                if not machine.process.ended:
                    actor.stop_asked = False
    await actor.gone.wait()
    return how(actor.name)


async def reset(actor: Actor) -> None:
    """Press the reset button: a guest that has ended starts anew, a paused one stays paused.

    Raises: BusyError, PhaseError, CommandError.
    """
    with actor.operate("resetting"):
        machine = actor.running()
        ended = await machine.run_state() in ENDED
        await machine.reset(actor.later, go=ended)
        if ended:
            actor.shutdown = None
            actor.note_state("running")


def _teller(machine: Machine, tell: Tell) -> Callable[[str, str], None]:
    begun = time.monotonic()

    def step(name: str, text: str) -> None:
        machine.log.say(text)
        tell(name, text, time.monotonic() - begun)

    return step


def how(name: str) -> str:
    """How the machine ended last, as noted."""
    last = machines.last_end(name)
    return str(last.get("reason", "ended")) if last else "ended"
