"""Network cards that come and go while the machine runs, and QEMU and the saved plan brought
together; as for disks (`plug`).

What is plugged in is noted before QEMU hears of it, and in the plan once QEMU has it. What was
taken out leaves the plan first; its cable, and what a network kept for it, go last.
"""

from __future__ import annotations

import asyncio
import contextlib

from attrs import evolve

from qlaunch.aio import finish
from qlaunch.argv import cables as words
from qlaunch.errors import CommandError, HostError, QlaunchError, TimedOutError
from qlaunch.machine import letting_go, plug_notes
from qlaunch.machine.bench import Bench
from qlaunch.machine.cables import Cables, note_passts
from qlaunch.machine.letting_go import present
from qlaunch.machine.machine import Machine
from qlaunch.plan.model import Nic, Plan
from qlaunch.store import machines

# How long QEMU may take to take back a card that its guest has not seen.
GONE_TIMEOUT = 5.0


async def settle(machine: Machine, there: set[str]) -> tuple[str, ...]:
    """Bring the plan in line with the cards that QEMU has (`there` are its devices), and clear away
    what belongs to none.

    The caller is the machine's one operation. Returns: the cards that are gone. Raises: HostError,
    SessionLostError.
    """
    noted = await asyncio.to_thread(plug_notes.load_cards, machine)
    known = {nic.id for nic in machine.plan.nics}
    gone = tuple(nic for nic in machine.plan.nics if nic.device.id not in there)
    fresh = tuple(nic for nic in noted if nic.id not in known)
    if not gone and not noted:
        return ()
    arrived = tuple(nic for nic in fresh if nic.device.id in there)
    loose = (*(nic for nic in fresh if nic not in arrived), *gone)
    if loose and loose != noted:
        await asyncio.to_thread(plug_notes.save_cards, machine, loose)
    stays = tuple(nic for nic in machine.plan.nics if nic not in gone)
    if gone or arrived:
        await machine.change_plan(evolve(machine.plan, nics=(*stays, *arrived)))
    if arrived:
        record = await asyncio.to_thread(machines.load_run, machine.name)
        await cables_of(machine).adopt(arrived, record.passts if record else {})
    for nic in loose:
        await _clear(machine, nic)
        machine.log.say(f"the network card {nic.id} is detached")
    await note_passts(machine)
    await asyncio.to_thread(plug_notes.save_cards, machine, ())
    return tuple(nic.id for nic in gone)


def cables_of(machine: Machine) -> Cables:
    assert machine.cables is not None
    return machine.cables


async def _clear(machine: Machine, nic: Nic) -> None:
    """Take away the cable of a card that QEMU does not have, and all that stands behind it."""
    session = machine.talk()
    if nic.netdev is not None:
        with contextlib.suppress(CommandError):  # it is gone, or never came
            await session.execute("netdev_del", {"id": nic.id})
    if words.needs_cable(nic):
        cable = words.names(nic, vhost=True)
        for name in (*cable.fds, *cable.vhost_fds):
            with contextlib.suppress(CommandError):  # its cable took it
                await session.execute("closefd", {"fdname": name})
    await cables_of(machine).forget(nic)


def with_card(plan: Plan, nic: Nic) -> Plan:
    """`plan` with the card, in the place of the one of that name if there is one."""
    if any(each.id == nic.id for each in plan.nics):
        return evolve(plan, nics=tuple(nic if each.id == nic.id else each for each in plan.nics))
    return evolve(plan, nics=(*plan.nics, nic))


# ---- plugging in --------------------------------------------------------------------------------


async def attach(bench: Bench, nic: Nic) -> str | None:
    """Plug a card into the running machine. What fails is undone.

    Returns: what could not be saved of it, in words. Raises: HostError, CommandError, and what its
    network says.
    """
    machine = bench.machine
    assert machine is not None
    await finish(asyncio.to_thread(plug_notes.save_cards, machine, (nic,)))
    bench.step("nic: noted")
    try:
        await finish(_give(bench, machine, nic))
    except BaseException:
        await finish(_take_back(machine, nic))
        raise
    try:
        await machine.change_plan(with_card(machine.plan, nic))
        bench.plan = machine.plan
        bench.step("nic: planned")
        await finish(asyncio.to_thread(plug_notes.save_cards, machine, ()))
    except HostError as error:
        # The guest has it: the note stays, and whoever comes later brings the two together.
        return error.message
    return None


async def _give(bench: Bench, machine: Machine, nic: Nic) -> None:
    cable = await cables_of(machine).hand_over(nic, bench.session)
    await note_passts(machine)
    bench.step("nic: cable")
    await bench.execute(words.plug_in(nic, cable))
    if nic.link == "down":
        await bench.execute([words.set_link(nic, up=False)])
    bench.step("nic: plugged")


async def _take_back(machine: Machine, nic: Nic) -> None:
    """Undo what was done of an attach that failed."""
    with contextlib.suppress(QlaunchError):
        session = machine.talk()
        there = await present(session)
        if nic.device.id in there:
            # The guest has not seen it yet.
            with session.expect("DEVICE_DELETED", match={"device": nic.device.id}) as gone:
                out = words.take_out(nic)
                await session.execute(out.name, out.arguments)
                with contextlib.suppress(TimedOutError):
                    await gone.get(timeout=GONE_TIMEOUT)
            there = await present(session)
        await settle(machine, there)


# ---- taking out ---------------------------------------------------------------------------------


async def detach(bench: Bench, nic: Nic, *, timeout: float) -> None:
    """Take a card out of the running machine; its guest must let go of it.

    Raises: TimedOutError when it did not within `timeout` seconds: it may still do so, and the card
    is gone then; RefusedError when the guest said no; PhaseError, CommandError.
    """
    await letting_go.check_can_answer(bench, nic.id)
    await letting_go.wait(
        bench,
        letting_go.Parting(
            ident=nic.id,
            device=nic.device.id,
            command=words.take_out(nic),
            refusal="have it take the interface down, then try again",
        ),
        timeout,
    )
    bench.step("nic: out")
    machine = bench.machine
    assert machine is not None
    await finish(_settle_after(machine))
    bench.plan = machine.plan


async def _settle_after(machine: Machine) -> None:
    await settle(machine, await present(machine.talk()))
