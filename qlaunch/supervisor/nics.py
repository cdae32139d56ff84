"""The verbs of network cards: plugging in, taking out, changing; while the machine runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from qlaunch.aio import finish
from qlaunch.errors import QlaunchError, RefusedError, UsageError
from qlaunch.machine import letting_go, nic_change, nic_plan, nic_plug, plug_texts
from qlaunch.machine.bench import Bench
from qlaunch.machine.rows import nic_row
from qlaunch.machine.snapshot import check_phase
from qlaunch.plan.forwards import Forward, expand, short
from qlaunch.plan.model import Nic
from qlaunch.plan.nics import changed
from qlaunch.profile.load import load
from qlaunch.store import machines, paths
from qlaunch.supervisor import unplugging
from qlaunch.supervisor.benches import live_bench
from qlaunch.supervisor.request import Request
from qlaunch.supervisor.snapshots import until_merged

_KEYS = (
    "id", "network", "backend", "model", "mac", "address", "ipv4", "ipv6", "filter", "queues",
    "forward", "link", "restrict",
)  # fmt: skip


# ---- plugging in --------------------------------------------------------------------------------


async def attach(request: Request) -> Any:
    begun = time.monotonic()
    wish, persist = _wish(request), request.flag("persist")
    name = paths.check_name(request.text("name"))
    actor = await request.actor()
    await unplugging.wait(actor)
    await until_merged(request, name)
    async with live_bench(actor, "plugging", request.tell) as bench:
        check_phase(bench)
        planned = await nic_plan.plan_card(bench, wish)
        nic, profile = planned.nic, bench.plan.profile
        write = persist and not planned.is_said
        change = plug_texts.put(nic.id, planned.values, "nic")
        if write:
            _check_text(profile, name, change)
        await finish(asyncio.to_thread(machines.save_leases, name, planned.leases))
        problem = await nic_plug.attach(bench, nic)
        warnings = list(planned.warnings)
        warnings += [f"it is plugged in, but: {problem}"] if problem else []
        if write:
            note = await _write(profile, name, change, "it is plugged in for this run only")
            warnings += [note] if note else []
            write = not note
    return {
        "name": name,
        "nic": nic.id,
        **nic_row(nic),
        "persistent": write or planned.is_said,
        "warnings": warnings,
        "seconds": round(time.monotonic() - begun, 3),
    }


def _wish(request: Request) -> dict[str, object]:
    wish = request.args.get("wish") or {}
    if not isinstance(wish, dict) or not all(isinstance(key, str) for key in wish):
        raise UsageError("'wish' is not a table")
    if unknown := sorted(set(wish) - set(_KEYS)):
        raise UsageError(f"a network card has no {unknown[0]!r}")
    return wish


# ---- taking out ---------------------------------------------------------------------------------


async def detach(request: Request) -> Any:
    begun = time.monotonic()
    timeout, persist = request.seconds("timeout"), request.flag("persist")
    name = paths.check_name(request.text("name"))
    actor = await request.actor()
    await unplugging.wait(actor)
    await until_merged(request, name)
    async with live_bench(actor, "plugging", request.tell) as bench:
        check_phase(bench)
        nic, profile = nic_plan.card_of(bench.plan, request.text("nic")), bench.plan.profile
        nic_plan.check_hot(name, nic)
        said = _said(profile, name, nic.id) is not None
        drop = plug_texts.drop(nic.id, profile, "nic")
        if persist and said:
            _check_text(profile, name, drop)
        limit = letting_go.DETACH_TIMEOUT if timeout is None else timeout
        await nic_plug.detach(bench, nic, timeout=limit)
        warnings = []
        if persist and said:
            note = await _write(profile, name, drop, "it is detached, but still in the profile")
            warnings += [note] if note else []
            said = bool(note)
    return {
        "name": name,
        "nic": nic.id,
        "in_profile": said,
        "warnings": warnings,
        "seconds": round(time.monotonic() - begun, 3),
    }


# ---- changing -----------------------------------------------------------------------------------


async def change(request: Request) -> Any:
    """Link, filter, forwards and network of one card."""
    begun = time.monotonic()
    persist = request.flag("persist")
    link, kind = request.optional_text("link"), request.optional_text("filter")
    forwards = request.texts("forward") if request.args.get("forward") is not None else None
    network = request.optional_text("network")
    if (link, kind, forwards, network) == (None, None, None, None):
        raise UsageError("change what?", hint="link=down, filter=mac, forward=8080:80, network=lab")
    _one_of("link", link, ("up", "down"))
    _one_of("filter", kind, ("clean", "mac", "none"))
    name = paths.check_name(request.text("name"))
    actor = await request.actor()
    await unplugging.wait(actor)
    async with live_bench(actor, "changing", request.tell) as bench:
        check_phase(bench)
        before = nic_plan.card_of(bench.plan, request.text("nic"))
        if kind is not None and before.attachment is None:
            raise UsageError(
                f"{before.id}: a filter has no meaning with the backend {before.backend}",
                hint="cards on a network have one",
            )
        if network is not None and before.attachment is None:
            raise RefusedError(
                f"{before.id} is plugged into {before.backend}, not into a network: QEMU cannot"
                " change that while the guest has the card",
                hint=f"`qlaunch nic detach {name} {before.id}`, then `qlaunch nic attach {name}"
                f" --network {network}`",
            )
        texts = before.forwards if forwards is None else _canonical(forwards)
        after = changed(before, forwards=texts, filter=kind, link=link, network=network)
        values: dict[str, object] = {"link": link, "filter": kind, "network": network}
        values = {key: value for key, value in values.items() if value is not None}
        if network is not None:  # what belonged to the other network
            values |= {"backend": None, "ipv4": None, "ipv6": None}
        warnings = await apply(bench, before, after, values, persist=persist)
    return {
        "name": name,
        "nic": after.id,
        **nic_row(after),
        "persistent": persist and not warnings,
        "warnings": warnings,
        "seconds": round(time.monotonic() - begun, 3),
    }


async def apply(
    bench: Bench, before: Nic, after: Nic, values: Mapping[str, object], *, persist: bool
) -> list[str]:
    """Change a card of the running machine, and with `persist` what its profile says: `values`, and
    the forwards where they are others now. Returns: warnings. Raises: as `nic_change.change`."""
    profile, name = bench.plan.profile, bench.name
    added = [text for text in after.forwards if text not in before.forwards]
    nic_change.check_clashes(bench.plan.nics, before.id, added)
    said = _said(profile, name, before.id) if persist else None
    values = dict(values) if said is not None else nic_plan.values_of_running(after)
    if said is not None and after.forwards != before.forwards:
        values["forward"] = said_forwards(said, after.forwards)
    how = plug_texts.put(before.id, values, "nic")
    if persist:
        _check_text(profile, name, how)
    await nic_change.change(bench, before, after)
    note = await _write(profile, name, how, "it counts for this run only") if persist else None
    return [note] if note else []


def said_forwards(said: tuple[str, ...], wanted: tuple[str, ...]) -> list[str] | None:
    """What a profile is to say instead of `said`, so that it means `wanted`: what stays is said as
    it was, ranges too. None for none."""
    kept: list[str] = []
    covered: set[str] = set()
    for text in said:
        means = [str(each) for each in expand(text)]
        if set(means) <= set(wanted):
            kept.append(text)
            covered.update(means)
    more = [short(Forward.parse(text)) for text in wanted if text not in covered]
    return [*kept, *more] or None


def _canonical(texts: list[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(str(each) for text in texts for each in expand(text)))
    except ValueError as error:
        raise UsageError(str(error), hint="such as 8080:80 or udp:0.0.0.0:5353:53") from None


def _one_of(what: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise UsageError(f"{what} is one of {', '.join(known)}, not {value!r}")


# ---- the profile --------------------------------------------------------------------------------


def _said(profile: str, name: str, ident: str) -> tuple[str, ...] | None:
    """The forwards that the profile says of the card; None when it does not have it, as far as that
    can be read."""
    try:
        found = next((nic for nic in load(profile, name=name).nic if nic.id == ident), None)
    except QlaunchError:
        return None
    return found.forward if found is not None else None


def _check_text(profile: str, name: str, how: plug_texts.Change) -> None:
    """Raises: HostError, ProfileError when the profile cannot be changed so."""
    plug_texts.check_writable(profile)
    plug_texts.changed(plug_texts.text_of(profile), profile, name, how)


async def _write(profile: str, name: str, how: plug_texts.Change, otherwise: str) -> str | None:
    """Change the profile. Returns: a warning when that failed."""
    try:
        await finish(asyncio.to_thread(plug_texts.change, profile, name, how))
    except QlaunchError as error:
        return f"{otherwise}: {error.message}"
    return None
