"""One more slot as soon as a client's devices are in all of them: the next one finds room.

QEMU (7.2, 10.0) tells nobody that a slot is used, so it is asked now and then, while a client is
connected that can bring devices, and never else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qlaunch.errors import BusyError, QlaunchError
from qlaunch.machine import gadgets as pieces
from qlaunch.machine.machine import Machine
from qlaunch.qmp.session import Event
from qlaunch.supervisor import usb

if TYPE_CHECKING:
    from qlaunch.supervisor.actor import Actor

PERIOD = 2.0
_USBREDIR = 9
_watched: set[int] = set()


def note_client(actor: Actor, machine: Machine, event: Event) -> None:
    """A channel of a client is open. If it is one for USB, its slots are watched from now on."""
    client = event.data.get("client")
    kind = client.get("channel-type") if isinstance(client, dict) else None
    if kind == _USBREDIR:
        watch(actor, machine)


def watch(actor: Actor, machine: Machine) -> None:
    """Watch the slots for as long as a client is connected that can bring devices."""
    if usb.slots_of(machine) and id(machine) not in _watched:
        _watched.add(id(machine))
        actor.later(_watch(actor, machine))


async def _watch(actor: Actor, machine: Machine) -> None:
    try:
        while await _may_bring(actor, machine):
            if await _is_full(machine):
                await _grow(actor, machine)
            await asyncio.sleep(PERIOD)
    except QlaunchError as error:
        machine.log.say(f"no more slots for USB devices: {error.message}")
    finally:
        _watched.discard(id(machine))


async def _may_bring(actor: Actor, machine: Machine) -> bool:
    """Whether a client is connected that can bring devices."""
    if actor.machine is not machine or machine.process.ended or machine.session is None:
        return False
    channels = (await machine.session.execute("query-spice")).get("channels", ())
    return any(channel.get("channel-type") == _USBREDIR for channel in channels)


async def _is_full(machine: Machine) -> bool:
    slots = usb.slots_of(machine)
    session = machine.talk()
    return bool(slots) and all([await pieces.is_attached(session, each) for each in slots])


async def _grow(actor: Actor, machine: Machine) -> None:
    try:
        with actor.operate("plugging"):
            if len(usb.slots_of(machine)) < usb.MOST_SLOTS:
                slot = await usb.grow(machine)
                machine.log.say(f"all slots for USB devices are used: {slot.id} is one more")
    except BusyError:
        return  # the next time
