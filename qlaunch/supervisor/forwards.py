"""The verb of port forwards: listed, added and removed, of machines that run and that do not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from qlaunch.errors import NotFoundError, RefusedError, UsageError
from qlaunch.machine import nic_change, nic_plan, plug_texts
from qlaunch.machine.snapshot import check_phase
from qlaunch.plan.forwards import Forward, expand
from qlaunch.plan.model import Nic, Plan
from qlaunch.plan.nics import changed, own_forwards
from qlaunch.store import machines, paths
from qlaunch.supervisor import nics, unplugging
from qlaunch.supervisor.benches import live_bench, profile_of
from qlaunch.supervisor.request import Request


@frozen(kw_only=True)
class _Wish:
    """What is to be changed: these forwards added or removed, at the card `nic` if one is said."""

    texts: tuple[str, ...]
    remove: bool
    nic: str | None


@frozen(kw_only=True)
class _Step:
    """One card, and how it is to be."""

    before: Nic
    after: Nic

    @property
    def added(self) -> list[str]:
        return [text for text in self.after.forwards if text not in self.before.forwards]

    @property
    def removed(self) -> list[str]:
        return [text for text in self.before.forwards if text not in self.after.forwards]


async def forward(request: Request) -> Any:
    """List, add or remove."""
    name = paths.check_name(request.text("name"))
    wish = _Wish(
        texts=tuple(request.texts("forwards")),
        remove=request.flag("remove"),
        nic=request.optional_text("nic"),
    )
    if wish.remove and not wish.texts:
        raise UsageError("remove which?", hint="name the port or the whole forward")
    if name not in request.server.actors and name in machines.running_names():
        await request.server.adopt_strays()
    actor = request.server.actors.get(name)
    if actor is None:
        return await _stopped(name, wish)
    persist = request.flag("persist")
    if not wish.texts:
        plan = actor.running().plan
        return _answer(plan, actor.state, (), persistent=False, warnings=[])
    await unplugging.wait(actor)
    async with live_bench(actor, "changing", request.tell) as bench:
        check_phase(bench)
        steps, warnings = _steps(bench.plan, wish), []
        for step in steps:
            warnings += await nics.apply(bench, step.before, step.after, {}, persist=persist)
            if step.after.backend == "passt":
                warnings.append(f"{step.after.id}: connections of the guest were cut by this")
        plan = bench.plan
    written = persist and not any("this run only" in text for text in warnings)
    return _answer(plan, actor.state, steps, persistent=written, warnings=warnings)


async def _stopped(name: str, wish: _Wish) -> Any:
    """A machine that does not run has its forwards in its profile."""
    from qlaunch.machine.prepare import prepare

    profile = profile_of(name)
    handle = machines.lock(name)
    try:
        prepared = await prepare(profile, name=name)
        plan = prepared.plan
        if not wish.texts:
            return _answer(plan, paths.stopped_state(name), (), persistent=True, warnings=[])
        steps = _steps(plan, wish)
        for step in steps:
            nic_change.check_change(step.before, step.after)
            said = next(nic.forward for nic in prepared.profile.nic if nic.id == step.before.id)
            values = {"forward": nics.said_forwards(said, step.after.forwards)}
            how = plug_texts.put(step.before.id, values, "nic")
            await asyncio.to_thread(plug_texts.change, profile, name, how)
        for step in steps:
            plan = _with(plan, step.after)
    finally:
        os.close(handle)
    return _answer(plan, paths.stopped_state(name), steps, persistent=True, warnings=[])


def _with(plan: Plan, nic: Nic) -> Plan:
    from qlaunch.machine.nic_plug import with_card

    return with_card(plan, nic)


# ---- what is wished -----------------------------------------------------------------------------


def _steps(plan: Plan, wish: _Wish) -> tuple[_Step, ...]:
    """Which cards are to be changed. Raises: UsageError, NotFoundError, ConflictError."""
    cards = [nic_plan.card_of(plan, wish.nic)] if wish.nic else list(plan.nics)
    if wish.remove:
        return _removals(plan, cards, wish.texts)
    card = next((nic for nic in cards if nic.backend != "none"), None)
    if card is None:
        raise RefusedError(
            f"{plan.name} has no network card with a cable",
            hint=f"`qlaunch nic attach {plan.name} --forward {wish.texts[0]}`",
        )
    fresh = [str(each) for text in wish.texts for each in _expanded(text)]
    added = [text for text in dict.fromkeys(fresh) if text not in card.forwards]
    if not added:
        return ()
    nic_change.check_clashes(plan.nics, card.id, added)
    return (_Step(before=card, after=changed(card, forwards=(*card.forwards, *added))),)


def _removals(plan: Plan, cards: Sequence[Nic], texts: Sequence[str]) -> tuple[_Step, ...]:
    gone: set[str] = set()
    for text in texts:
        found = {each for nic in cards for each in nic.forwards if _means(text, each)}
        if not found:
            there = ", ".join(each for nic in cards for each in nic.forwards)
            raise NotFoundError(
                f"{plan.name} has no forward {text!r}",
                hint=f"it has {there or 'none'}",
            )
        gone |= found
    steps = []
    for nic in cards:
        stays = tuple(each for each in nic.forwards if each not in gone)
        if stays != nic.forwards:
            steps.append(_Step(before=nic, after=changed(nic, forwards=stays)))
    return tuple(steps)


def _means(text: str, forward: str) -> bool:
    """Whether the words of a person mean this forward: itself, or its port alone."""
    each = Forward.parse(forward)
    proto, colon, port = text.rpartition(":")
    if port.isdecimal() and (not colon or proto in ("tcp", "udp")):
        return int(port) == each.port and proto in ("", each.proto)
    return forward in {str(meant) for meant in _expanded(text)}


def _expanded(text: str) -> tuple[Forward, ...]:
    try:
        return expand(text)
    except ValueError as error:
        raise UsageError(str(error), hint="such as 8080:80 or udp:0.0.0.0:5353:53") from None


# ---- what is answered ---------------------------------------------------------------------------


def _answer(
    plan: Plan, state: str, steps: Sequence[_Step], *, persistent: bool, warnings: list[str]
) -> dict[str, Any]:
    return {
        "name": plan.name,
        "state": state,
        "forwards": [row for nic in plan.nics for row in rows(nic, nic.forwards)],
        "added": [row for step in steps for row in rows(step.after, step.added)],
        "removed": [row for step in steps for row in rows(step.before, step.removed)],
        "persistent": persistent,
        "warnings": warnings,
    }


def rows(nic: Nic, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Forwards of a card as plain data; `by` says who listens: QEMU, passt, the network or the
    supervisor."""
    own = {str(each) for each in own_forwards(nic)}
    by = {"user": "qemu", "passt": "passt"}.get(nic.backend, "network")
    return [
        {
            "nic": nic.id,
            "forward": text,
            "proto": each.proto,
            "address": each.address,
            "port": each.port,
            "guest_port": each.to_port,
            "by": "supervisor" if text in own else by,
        }
        for text, each in ((text, Forward.parse(text)) for text in texts)
    ]
