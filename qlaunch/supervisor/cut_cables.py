"""Cables of network cards that are cut by nobody's wish, and mended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qlaunch.errors import QlaunchError
from qlaunch.host.process import Process
from qlaunch.machine.cables import note_passts
from qlaunch.machine.machine import Machine
from qlaunch.supervisor import policy

if TYPE_CHECKING:
    from qlaunch.supervisor.actor import Actor

# Seconds. Its sockets close before the process is gone, so QEMU may know a moment earlier.
_END_TIMEOUT = 2.0
# Of one card and in one minute.
_RENEWALS: dict[tuple[str, str], list[float]] = {}


def note_cut(actor: Actor, machine: Machine, ident: str) -> None:
    """A card's passt has hung up. If it was not we who ended it, another takes its place."""
    actor.later(_renew(actor, machine, ident))


async def _has_ended(process: Process | None) -> bool:
    """Whether the card's passt is gone: one that lives on has taken the place of the one that hung
    up."""
    if process is None:
        return False
    try:
        await process.wait(_END_TIMEOUT)
    except TimeoutError:
        return False
    return process.ended


async def _renew(actor: Actor, machine: Machine, ident: str) -> None:
    cables = machine.cables
    cut = cables.passts.get(ident) if cables is not None else None
    if cables is None or not await _has_ended(cut):
        return
    while actor.operation is not None:
        await actor.operation.done.wait()
    nic = next((each for each in machine.plan.nics if each.id == ident), None)
    if actor.machine is not machine or machine.process.ended or nic is None:
        return
    if cables.passts.get(ident) is not cut:
        return  # a verb that ended it has started another
    times = policy.recent(_RENEWALS.get((actor.name, ident), []), time.monotonic())
    _RENEWALS[(actor.name, ident)] = [*times, time.monotonic()]
    if len(times) >= policy.RESTARTS:
        machine.log.say(f"{ident}: passt ended too often; the card is without a network now")
        return
    try:
        with actor.operate("plugging"):
            await cables.renew_passt(nic)
            await note_passts(machine)
        machine.log.say(f"{ident}: passt had ended; another has taken its place")
    except QlaunchError as error:
        machine.log.say(f"{ident}: without a network: {error.message}")
