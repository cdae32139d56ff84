"""USB devices that come and go while the machine runs, and QEMU and the saved plan brought
together.

What is plugged in is noted before QEMU hears of it, and in the plan once QEMU has it. `settle`
finishes what was cut off: where the two disagree QEMU is right, because it is what the guest sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from typing import Any

from qlaunch.aio import finish
from qlaunch.argv import gadgets as words
from qlaunch.argv.graph import Command
from qlaunch.errors import CommandError, HostError, QlaunchError, TimedOutError
from qlaunch.machine import live, plug_notes
from qlaunch.machine.letting_go import present
from qlaunch.machine.machine import Machine
from qlaunch.machine.steps import step
from qlaunch.plan.gadgets import Gadget, gadgets, with_gadget, without_gadget
from qlaunch.qmp.session import Session

# QEMU takes a device on USB out without asking the guest.
GONE_TIMEOUT = 5.0
_numbers = itertools.count(1)


async def settle(machine: Machine) -> tuple[str, ...]:
    """Bring the plan in line with the USB devices that QEMU has, and take out those of connections
    that an earlier supervisor held.

    The caller is the machine's one operation. Returns: the devices that are gone. Raises:
    HostError, CommandError, SessionLostError.
    """
    noted = await asyncio.to_thread(plug_notes.load_gadgets, machine)
    mine = gadgets(machine.plan)
    if not noted and not mine:
        return ()
    session = machine.talk()
    there = await present(session)
    gone = [each for each in mine if each.device.id not in there]
    known = {each.device.id for each in mine}
    plan = machine.plan
    for each in gone:
        plan = without_gadget(plan, each)
    for each in noted:
        if each.passing and each.device.id in there:
            await _take_out(session, each)
        elif each.device.id in there and each.device.id not in known:
            plan = with_gadget(plan, each)
        elif each.device.id not in there:
            gone.append(each)
    if plan != machine.plan:
        await machine.change_plan(plan)
    for each in gone:
        await _clear(session, each)
    await asyncio.to_thread(plug_notes.save_gadgets, machine, ())
    return tuple(each.id for each in gone)


async def attach(machine: Machine, gadget: Gadget, end: socket.socket | None = None) -> str | None:
    """Plug a device into the running machine; of a passing slot `end` is QEMU's end of the line.
    What fails is undone.

    Returns: what could not be saved of it, in words. Raises: HostError, CommandError.
    """
    noted = await asyncio.to_thread(plug_notes.load_gadgets, machine)
    others = tuple(each for each in noted if each.device.id != gadget.device.id)
    await finish(asyncio.to_thread(plug_notes.save_gadgets, machine, (*others, gadget)))
    step("usb: noted", machine.process.pid)
    try:
        await finish(_give(machine.talk(), gadget, end))
    except BaseException:
        await finish(_take_back(machine, gadget, others))
        raise
    step("usb: plugged", machine.process.pid)
    if gadget.passing:
        return None
    try:
        await machine.change_plan(with_gadget(machine.plan, gadget))
        step("usb: planned", machine.process.pid)
        await finish(asyncio.to_thread(plug_notes.save_gadgets, machine, others))
    except HostError as error:
        # The guest has it: the note stays, and whoever comes later brings the two together.
        return error.message
    return None


async def _give(session: Session, gadget: Gadget, end: socket.socket | None) -> None:
    opened: str | int | None = None
    if end is not None:
        opened = f"usb{next(_numbers)}"
        await session.send_fd(end.fileno(), opened)
    elif gadget.drive is not None and gadget.drive.medium is not None:
        opened = await live.hand_over(session, gadget.drive.medium.path, write=False)
    try:
        for command in words.plug_in(gadget, opened):
            await _send(session, command)
    except BaseException:
        if isinstance(opened, int):
            with contextlib.suppress(QlaunchError):
                await _take_out(session, gadget)
            await live.take_back(session, opened)
        raise


async def _take_back(machine: Machine, gadget: Gadget, others: tuple[Gadget, ...]) -> None:
    """Undo what was done of an attach that failed."""
    with contextlib.suppress(QlaunchError):
        session = machine.talk()
        await _take_out(session, gadget)
        await asyncio.to_thread(plug_notes.save_gadgets, machine, others)


async def detach(machine: Machine, gadget: Gadget) -> None:
    """Take a device out of the running machine. Raises: CommandError, HostError."""
    session = machine.talk()
    await finish(_take_out(session, gadget))
    step("usb: out", machine.process.pid)
    if gadget.passing:
        noted = await asyncio.to_thread(plug_notes.load_gadgets, machine)
        others = tuple(each for each in noted if each.device.id != gadget.device.id)
        await finish(asyncio.to_thread(plug_notes.save_gadgets, machine, others))
    else:
        await machine.change_plan(without_gadget(machine.plan, gadget))


async def _take_out(session: Session, gadget: Gadget) -> None:
    """Take the device out of QEMU, if it is there, and wait until QEMU has let go of it."""
    if gadget.device.id in await present(session):
        with session.expect("DEVICE_DELETED", match={"device": gadget.device.id}) as gone:
            await _send(session, words.take_out(gadget))
            with contextlib.suppress(TimedOutError):
                await gone.get(timeout=GONE_TIMEOUT)
    await _clear(session, gadget)


async def _clear(session: Session, gadget: Gadget) -> None:
    """Take away what stood behind a device that is gone."""
    if gadget.chardev is not None:
        known = await session.execute("query-chardev")
        if any(each["label"] == gadget.chardev.id for each in known):
            with contextlib.suppress(CommandError):
                await session.execute("chardev-remove", {"id": gadget.chardev.id})
    if gadget.drive is None or gadget.drive.medium is None:
        return
    layer = gadget.drive.medium
    nodes: list[dict[str, Any]] = await session.execute("query-named-block-nodes", {"flat": True})
    there = {str(node["node-name"]): str(node["file"]) for node in nodes}
    for node in (layer.node, layer.file_node):
        if node in there:
            await session.execute("blockdev-del", {"node-name": node})
    number = there.get(layer.file_node, "").removeprefix("/dev/fdset/")
    if number.isdigit():
        await live.take_back(session, int(number))


async def _send(session: Session, command: Command) -> Any:
    return await session.execute(command.name, command.arguments)


async def is_attached(session: Session, gadget: Gadget) -> bool:
    """Whether something is there: the device of this computer, or one of the client."""
    if gadget.kind == "cd":
        return True
    try:
        return bool(await _send(session, words.attached(gadget.device.id)))
    except CommandError:
        return False
