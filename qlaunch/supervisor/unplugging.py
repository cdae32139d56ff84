"""Disks and network cards that leave a machine when nobody waits for it: the guest lets go late,
or by itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from qlaunch.errors import QlaunchError
from qlaunch.machine import gadgets, move_live, plug
from qlaunch.machine.machine import Machine
from qlaunch.qmp.session import Event

if TYPE_CHECKING:
    from qlaunch.supervisor.actor import Actor

SETTLE_TIME = 2.0


def note_gone(actor: Actor, machine: Machine, event: Event) -> None:
    """A device is gone. If it was a disk or a network card, what QEMU still has of it goes too: as
    soon as no other operation is under way, which may be the very one that took it out."""
    device = event.data.get("device")
    if _has(machine, device):
        actor.later(_settle(actor, machine, str(device)))


def _has(machine: Machine, device: object) -> bool:
    """Whether a disk or a network card of the plan is QEMU's `device`."""
    disks, nics = machine.plan.disks, machine.plan.nics
    return device in {*(disk.device.id for disk in disks), *(nic.device.id for nic in nics)}


async def _settle(actor: Actor, machine: Machine, device: str) -> None:
    while actor.operation is not None:
        await actor.operation.done.wait()
    if actor.machine is machine and not machine.process.ended and _has(machine, device):
        try:
            with actor.operate("plugging"):
                await plug.settle(machine)
        except QlaunchError as error:
            machine.log.say(f"{device} is gone, but not all that belongs to it: {error.message}")


async def wait(actor: Actor) -> None:
    """Let what is under way in the background come to its end: it takes no time worth telling."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_TIME):
            while actor.operation is not None and actor.operation.kind == "plugging":
                await actor.operation.done.wait()


async def settle_adopted(actor: Actor) -> None:
    """The same for a machine that was just adopted: what happened meanwhile nobody has told."""
    machine = actor.machine
    if machine is not None and machine.session is not None and not machine.process.ended:
        try:
            with actor.operate("adopting"):
                await move_live.recover(machine)
                await plug.settle(machine)
                await gadgets.settle(machine)
            if any(device.driver == "usb-redir" for device in machine.plan.devices):
                from qlaunch.supervisor import usb_growth  # late: most machines need it never

                usb_growth.watch(actor, machine)
        except QlaunchError as error:
            machine.log.say(f"while adopting: {error.message}")
