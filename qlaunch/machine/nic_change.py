"""A network card that is changed while the machine runs: link, filter, forwards, network."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable

from qlaunch.aio import finish
from qlaunch.argv import cables as words
from qlaunch.errors import (
    CommandError,
    ConflictError,
    QlaunchError,
    RefusedError,
    UsageError,
)
from qlaunch.host.ports import port_holder
from qlaunch.machine import plug_notes
from qlaunch.machine.bench import Bench
from qlaunch.machine.cables import note_passts
from qlaunch.machine.machine import Machine
from qlaunch.machine.network import service_of
from qlaunch.machine.nic_plug import cables_of, with_card
from qlaunch.plan.forwards import Forward
from qlaunch.plan.model import Attachment, Nic
from qlaunch.plan.nics import MOST_FORWARDS, forward_problem, own_forwards

# How long a guest has to see that its cable is out.
LINK_PAUSE = 1.0
# What a user's network is asked to do is answered by a line of text; this is that of success.
_REMOVED = "removed"


async def change(bench: Bench, before: Nic, after: Nic) -> None:
    """Have the card be as `after`, which differs in link, filter, forwards and network alone. What
    fails is undone.

    Raises: RefusedError, ConflictError, HostError, CommandError.
    """
    machine = bench.machine
    assert machine is not None
    check_change(before, after)
    await finish(_carry_out(bench, machine, before, after))
    bench.plan = machine.plan


async def _carry_out(bench: Bench, machine: Machine, before: Nic, after: Nic) -> None:
    await asyncio.to_thread(plug_notes.save_cards, machine, (), (before, after))
    bench.step("nic: begun")
    try:
        await _apply(machine, before, after)
    except QlaunchError:
        await settle(machine)
        raise
    bench.step("nic: applied")
    await machine.change_plan(with_card(machine.plan, after))
    bench.step("nic: changed")
    await asyncio.to_thread(plug_notes.save_cards, machine, ())


async def settle(machine: Machine) -> None:
    """A change that failed or was cut off: the card becomes what the plan says of it, whatever of
    the change was done. Raises: HostError, SessionLostError."""
    noted = await asyncio.to_thread(plug_notes.load_change, machine)
    if len(noted) != 2:
        return
    wanted = next((nic for nic in machine.plan.nics if nic.id == noted[0].id), None)
    if wanted is not None:
        other = noted[0] if wanted == noted[1] else noted[1]
        try:
            await _apply(machine, other, wanted, undo=True)
        except QlaunchError as error:
            machine.log.say(f"{wanted.id}: not all of a change was undone: {error.message}")
    await asyncio.to_thread(plug_notes.save_cards, machine, ())


async def _apply(machine: Machine, before: Nic, after: Nic, *, undo: bool = False) -> None:
    cables = cables_of(machine)
    if after.forwards != before.forwards and after.backend == "user":
        await _user_forwards(machine, before, after, undo=undo)
    elif after.forwards != before.forwards and after.backend == "passt":
        # passt takes no orders: another one takes its place, which costs the guest's connections.
        await cables.renew_passt(after)
        await note_passts(machine)
    if after.attachment is not None and before.attachment is not None:
        cables.doors.change(after.id, own_forwards(after))
        if after.attachment != before.attachment or undo:
            await _tell_network(machine, before.attachment, after)
    if after.link != before.link:
        await _set_link(machine, after, up=after.link == "up")
    cables.nics[after.id] = after


async def _set_link(machine: Machine, nic: Nic, *, up: bool) -> None:
    command = words.set_link(nic, up=up)
    await machine.talk().execute(command.name, command.arguments)


async def _tell_network(machine: Machine, before: Attachment, after: Nic) -> None:
    service, wanted = await service_of(after.backend), after.attachment
    assert wanted is not None
    moves = wanted.network != before.network
    if moves:
        # With its cable out and in again a guest asks for an address anew.
        await _set_link(machine, after, up=False)
    try:
        await service.change(
            machine.name,
            after.id,
            forwards=wanted.forwards,
            filter=wanted.filter,
            network=wanted.network if moves else None,
        )
        if moves:
            await asyncio.sleep(LINK_PAUSE)
    finally:
        if moves and after.link == "up":
            await _set_link(machine, after, up=True)


# ---- QEMU's user network ------------------------------------------------------------------------


async def _user_forwards(machine: Machine, before: Nic, after: Nic, *, undo: bool) -> None:
    old, new = _parsed(before), _parsed(after)
    # What was not done need not be undone, and QEMU will say that it cannot.
    passing = (CommandError, ConflictError) if undo else ()
    for each in old:
        if each not in new:
            with contextlib.suppress(*passing):
                await _tell(machine, words.remove_forward(after.id, each), expect=_REMOVED)
    for each in new:
        if each not in old:
            with contextlib.suppress(*passing):
                _check_port(each)
                await _tell(machine, words.add_forward(after.id, each), expect="")


def _check_port(each: Forward) -> None:
    """Raises: ConflictError naming who has the port, which QEMU does not."""
    if each.proto == "tcp" and (holder := port_holder(each.port, each.address)):
        raise ConflictError(f"port {each.port} is taken by {holder}", hint="pick another port")


def _parsed(nic: Nic) -> list[Forward]:
    return [Forward.parse(text) for text in nic.forwards]


async def _tell(machine: Machine, line: str, *, expect: str) -> None:
    """Say a line to the monitor, where everything else than silence is a failure."""
    arguments = {"command-line": line}
    answer = str(await machine.talk().execute("human-monitor-command", arguments)).strip()
    if answer if not expect else expect not in answer:
        raise CommandError(f"QEMU: {line}: {answer or 'no answer'}")


# ---- what must be right -------------------------------------------------------------------------


def check_change(before: Nic, after: Nic) -> None:
    """Raises: RefusedError, ConflictError, UsageError when the card cannot be changed so."""
    if after.link != before.link and after.backend == "none":
        raise RefusedError(f"{after.id} has no cable that could be in or out")
    if before.attachment is None and after.forwards != before.forwards and after.backend == "none":
        raise RefusedError(f"{after.id} has no cable, and so nowhere to forward ports to")
    if len(after.forwards) > MOST_FORWARDS:
        raise UsageError(f"there are {len(after.forwards)} forwards; {MOST_FORWARDS} are allowed")
    seen: list[Forward] = []
    for text in after.forwards:
        each = Forward.parse(text)
        clash = next((other for other in seen if other.clashes(each)), None)
        if clash is not None:
            raise ConflictError(f"{each} and {clash} ask for the same port")
        seen.append(each)
        if text in before.forwards:
            continue
        if problem := forward_problem(each, after.backend):
            raise RefusedError(problem[0], hint=problem[1])
        if each.port < 1024 and os.getuid() != 0:
            raise RefusedError(
                f"port {each.port} is below 1024 and reserved for root",
                hint=f"use {each.port + 8000} or so",
            )


def check_clashes(nics: Iterable[Nic], mine: str, added: Iterable[str]) -> None:
    """Raises: ConflictError when another card of the machine has one of the ports."""
    for nic in nics:
        for text in nic.forwards if nic.id != mine else ():
            for fresh in added:
                if Forward.parse(text).clashes(Forward.parse(fresh)):
                    raise ConflictError(f"{nic.id} has the forward {text} already")
