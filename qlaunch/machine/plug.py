"""Disks that come and go while the machine runs, and QEMU and the saved plan brought together.

What is plugged in is noted before QEMU hears of it, and in the plan once QEMU has it. What was
taken out leaves the plan first and QEMU's nodes last. `settle` finishes whatever was cut off: where
the two disagree QEMU is right, because it is what the guest sees.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from qlaunch.aio import finish
from qlaunch.argv import plug
from qlaunch.argv.graph import Command
from qlaunch.errors import (
    BusyError,
    CommandError,
    HostError,
    QlaunchError,
    TimedOutError,
)
from qlaunch.machine import letting_go, live, nic_change, nic_plug, plug_notes
from qlaunch.machine.bench import Bench
from qlaunch.machine.machine import Machine
from qlaunch.machine.plug_notes import Plug
from qlaunch.plan.model import Disk, Plan
from qlaunch.qmp.session import Session

# A device that needs no guest is out at once.
GONE_TIMEOUT = 5.0


# ---- bringing together --------------------------------------------------------------------------


async def settle(machine: Machine) -> tuple[str, ...]:
    """Bring the plan in line with the disks and network cards that QEMU has, and clear away what
    belongs to none.

    The caller is the machine's one operation. Returns: the disks that are gone. Raises: HostError,
    CommandError, SessionLostError.
    """
    session = machine.talk()
    noted = await asyncio.to_thread(plug_notes.load, machine)
    there = await letting_go.present(session)
    await nic_plug.settle(machine, there)
    await nic_change.settle(machine)
    known = {disk.id for disk in machine.plan.disks}
    gone = tuple(disk for disk in machine.plan.disks if disk.device.id not in there)
    fresh = [each for each in noted if each.disk.id not in known]
    if not gone and not noted:
        return ()
    loose = [each for each in fresh if each.disk.device.id not in there]
    loose += [Plug(disk=disk) for disk in gone]
    if loose and tuple(loose) != noted:
        await asyncio.to_thread(plug_notes.save, machine, tuple(loose))
    plan = without(machine.plan, [disk.id for disk in gone])
    for each in fresh:
        if each not in loose:
            plan = with_plug(plan, each)
    if plan != machine.plan:
        await machine.change_plan(plan)
    for each in loose:
        await clear(session, each.disk.id)
        machine.log.say(f"the disk {each.disk.id} is detached: {each.disk.layers[0].path}")
    await asyncio.to_thread(plug_notes.save, machine, ())
    return tuple(disk.id for disk in gone)


def with_plug(plan: Plan, each: Plug) -> Plan:
    """`plan` with a disk more."""
    controllers = plan.controllers if each.adapter is None else (*plan.controllers, each.adapter)
    disk = evolve(each.disk, create=None)
    return evolve(plan, controllers=controllers, disks=(*plan.disks, disk))


def without(plan: Plan, idents: Sequence[str]) -> Plan:
    """`plan` without some disks, and without the adapters in which they were."""
    adapters = {f"{ident}-usb" for ident in idents}
    later = {
        device: turn
        for device, turn in plan.boot.later.items()
        if device.removesuffix("-dev") not in idents
    }
    return evolve(
        plan,
        controllers=tuple(each for each in plan.controllers if each.id not in adapters),
        disks=tuple(disk for disk in plan.disks if disk.id not in idents),
        boot=evolve(plan.boot, later=later),
    )


async def clear(session: Session, ident: str) -> None:
    """Take away the nodes, limits and descriptors of a disk whose device is gone.

    Raises: CommandError when QEMU still needs one of the nodes, SessionLostError.
    """
    nodes: list[dict[str, Any]] = await session.execute("query-named-block-nodes", {"flat": True})
    mine = [node for node in nodes if plug.is_node_of(ident, str(node["node-name"]))]
    fdsets = {plug.fdset_of(str(node["file"])) for node in mine if node["drv"] == "file"}
    waiting = [str(node["node-name"]) for node in mine]
    while waiting:
        # Which stands on which is not asked: one that is in the way goes in the next round.
        refused = [(name, why) for name in waiting if (why := await _refusal(session, name))]
        if len(refused) == len(waiting):
            raise refused[0][1]
        waiting = [name for name, _why in refused]
    with contextlib.suppress(CommandError):  # it is gone already
        await _send(session, plug.limits_of(ident))
    for number in fdsets:
        if number is not None:
            await live.take_back(session, number)


async def _refusal(session: Session, node: str) -> CommandError | None:
    """Take a node away; what QEMU says when it will not."""
    try:
        await session.execute("blockdev-del", {"node-name": node})
    except CommandError as error:
        return error
    return None


async def _send(session: Session, command: Command) -> Any:
    return await session.execute(command.name, command.arguments)


# ---- plugging in --------------------------------------------------------------------------------


async def attach(bench: Bench, each: Plug) -> str | None:
    """Plug a disk into the running machine; its image exists. What fails is undone.

    Returns: what could not be saved of it, in words. Raises: HostError, CommandError.
    """
    machine = bench.machine
    assert machine is not None
    await finish(asyncio.to_thread(plug_notes.save, machine, (each,)))
    bench.step("attach: noted")
    try:
        await finish(_give(bench, each))
    except BaseException:
        await finish(_take_back(machine, each))
        raise
    try:
        await machine.change_plan(with_plug(machine.plan, each))
        bench.plan = machine.plan
        bench.step("attach: planned")
        await finish(asyncio.to_thread(plug_notes.save, machine, ()))
    except HostError as error:
        # The guest has it: the note stays, and whoever comes later brings the two together.
        return error.message
    return None


async def _give(bench: Bench, each: Plug) -> None:
    disk, fdsets = each.disk, dict[str, int]()
    try:
        for layer in disk.layers:
            write = not layer.file_read_only
            fdsets[layer.file_node] = await live.hand_over(bench.session, layer.path, write=write)
        await bench.execute(plug.back_end(disk, fdsets))
    except BaseException:
        with contextlib.suppress(QlaunchError):
            await clear(bench.session, disk.id)
            for number in fdsets.values():
                await live.take_back(bench.session, number)
        raise
    bench.step("attach: nodes")
    await bench.execute(plug.front_end(disk, each.adapter))
    bench.step("attach: plugged")


async def _take_back(machine: Machine, each: Plug) -> None:
    """Undo what was done of an attach that failed."""
    with contextlib.suppress(QlaunchError):
        session = machine.talk()
        if plug.outermost(each.disk) in await letting_go.present(session):
            # The guest has not seen it yet, or QEMU takes it out at once.
            with session.expect("DEVICE_DELETED", match={"device": each.disk.device.id}) as gone:
                await _send(session, plug.take_out(each.disk))
                with contextlib.suppress(TimedOutError):
                    await gone.get(timeout=GONE_TIMEOUT)
        await settle(machine)


# ---- taking out ---------------------------------------------------------------------------------


async def detach(bench: Bench, disk: Disk, *, timeout: float) -> None:
    """Take a disk out of the running machine; where it is on PCI, the guest must let go of it.

    Raises: TimedOutError when it did not within `timeout` seconds: it may still do so, and the
    disk is gone then; RefusedError when the guest said no; BusyError, PhaseError, CommandError.
    """
    if disk.bus in plug.PATIENT:
        await letting_go.check_can_answer(bench, disk.id)
    await check_idle(bench)
    await letting_go.wait(
        bench,
        letting_go.Parting(
            ident=disk.id,
            device=disk.device.id,
            command=plug.take_out(disk),
            refusal="have it stop using the disk (unmount, eject), then try again",
        ),
        timeout,
    )
    bench.step("detach: out")
    machine = bench.machine
    assert machine is not None
    await finish(settle(machine))
    bench.plan = machine.plan


async def check_idle(bench: Bench) -> None:
    """Raises: BusyError while a job of QEMU works on the machine's disks."""
    jobs = await bench.session.execute("query-block-jobs")
    if jobs:
        raise BusyError(
            f"{bench.name}: {jobs[0]['type']} is at work on its disks",
            hint=f"wait for it: `qlaunch jobs {bench.name}`",
        )
