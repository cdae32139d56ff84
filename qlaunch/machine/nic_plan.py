"""What is decided before a network card is plugged in: as a start would decide it, for this machine
as it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from attrs import evolve, frozen

from qlaunch.errors import ConflictError, NotFoundError, ProfileError, RefusedError, UsageError
from qlaunch.machine.bench import Bench
from qlaunch.machine.plug_plan import check_address, check_board, raise_first
from qlaunch.machine.prepare import heads_of, look, with_shipped
from qlaunch.plan import Plan, resolve
from qlaunch.plan.forwards import Forward, short
from qlaunch.plan.model import Leases, Nic
from qlaunch.profile import devices as wish_of
from qlaunch.profile.load import load, loads
from qlaunch.profile.model import Profile
from qlaunch.store import machines

NO_PORT = "restart it: a start makes four spare ones"
# Buses of q35's own, on which nothing comes or goes while the machine runs.
_COLD = "pcie.0"


@frozen(kw_only=True)
class Planned:
    """A card that can be plugged in. `values` are what a profile says of it, `leases` what is to be
    kept from now on; `is_said` is one that the profile has already."""

    nic: Nic
    leases: Leases
    values: Mapping[str, object]
    is_said: bool
    warnings: tuple[str, ...]


async def plan_card(bench: Bench, wish: Mapping[str, object]) -> Planned:
    """Decide everything about a new card of the running machine; `wish` are the keys of a `[[nic]]`
    that are said.

    Raises: UsageError, NotFoundError, RefusedError, ConflictError, ProfileError, HostError.
    """
    emulator = f'machine.emulator="{bench.plan.emulator}"'
    profile = with_shipped(load(bench.plan.profile, name=bench.name, overrides=[emulator]))
    card, is_said = _card_wish(bench, profile, wish)
    others = [each for each in profile.nic if each.id != card.id]
    others += _unsaid(bench, [each.id for each in others])
    without, with_it = evolve(profile, nic=tuple(others)), evolve(profile, nic=(*others, card))
    places = machines.places(bench.name)
    heads = heads_of(with_it, places)
    facts = await look(with_it, places, heads)
    # What is wrong without it as well was wrong before, and the machine runs.
    before = resolve(without, facts, bench.leases, places, heads)
    after = resolve(with_it, facts, bench.leases, places, heads)
    fresh = [each for each in after.findings if each not in before.findings]
    check_board(bench.plan, after.plan)
    raise_first(each for each in fresh if each.level == "error")
    nic = _nic(after.plan, card.id)
    check_hot(bench.name, nic)
    check_confined(bench, nic)
    check_address(bench.plan, nic.device, NO_PORT)
    return Planned(
        nic=nic,
        leases=_leases(bench.leases, after.leases, nic),
        values=values_of(card),
        is_said=is_said,
        warnings=tuple(each.message for each in fresh if each.level == "warning"),
    )


def card_of(plan: Plan, ident: str) -> Nic:
    """The card called `ident`. Raises: NotFoundError with what there is."""
    found = next((nic for nic in plan.nics if nic.id == ident), None)
    if found is None:
        raise NotFoundError(
            f"{plan.name} has no network card {ident!r}",
            hint=f"it has {', '.join(nic.id for nic in plan.nics) or 'none'}",
        )
    return found


def check_hot(name: str, nic: Nic) -> None:
    """Raises: RefusedError when the card is where nothing can be plugged in or taken out."""
    if nic.device.props.get("bus") == _COLD:
        raise RefusedError(
            f"{name}: a card of the model {nic.model} cannot come or go while a q35 machine runs",
            hint="choose the model virtio or e1000e; or change the profile and restart it",
        )


def check_confined(bench: Bench, nic: Nic) -> None:
    """Raises: RefusedError when the guest's TCP would go through a QEMU that may use none: what it
    gave up at its start it cannot have back."""
    if nic.backend == "user" and bench.machine is not None and not bench.machine.tcp:
        raise RefusedError(
            f"{bench.name}: QEMU was started without the right to TCP, which QEMU's user network"
            " needs",
            hint="install passt, which needs none; or say security.tcp = true in the profile and"
            " restart",
        )


# ---- what is wished -----------------------------------------------------------------------------


def _card_wish(
    bench: Bench, profile: Profile, wish: Mapping[str, object]
) -> tuple[wish_of.Nic, bool]:
    """The wish as a profile would say it, and whether the profile says it already."""
    ident = wish.get("id")
    if any(nic.id == ident for nic in bench.plan.nics):
        raise ConflictError(
            f"{bench.name} has the network card {ident} already",
            hint="--id gives this one another name",
        )
    said = next((nic for nic in profile.nic if nic.id == ident), None)
    if said is not None:
        if len(wish) > 1:
            raise ConflictError(
                f"the profile of {bench.name} says what {ident} is",
                hint=f"plug it in with --id {ident} alone, or give this one another name",
            )
        return said, True
    values = {"id": _free_id(bench, profile), **wish}
    return read_wish(values), False


def read_wish(values: Mapping[str, object]) -> wish_of.Nic:
    """A `[[nic]]` of plain values, checked like one of a profile. Raises: UsageError."""
    # A JSON text, list or number is one of TOML, too.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    text = "\n".join(("schema = 1", "[[nic]]", *lines))
    try:
        found = loads(text, "", name="card").nic
    except ProfileError as error:
        key = error.where.rpartition(".")[2].partition("[")[0]
        raise UsageError(f"{key}: {error.text}", hint=error.hint) from None
    return next(nic for nic in found if nic.id == values["id"])


def _free_id(bench: Bench, profile: Profile) -> str:
    """A name that neither the machine nor its profile has given to anything."""
    taken = {device.id.removesuffix("-dev") for device in bench.plan.all_devices()}
    taken |= {nic.id for nic in bench.plan.nics}
    taken |= {item.id for array in Profile.ARRAYS for item in getattr(profile, array)}
    number = 0
    while f"net{number}" in taken:
        number += 1
    return f"net{number}"


def _unsaid(bench: Bench, said: list[str]) -> list[wish_of.Nic]:
    """The machine's cards that its profile does not have: plugged in earlier, or taken out of it
    since the start. Where their cable leads is no matter here."""
    return [
        wish_of.Nic(id=nic.id, backend="none", model=nic.model, mac=nic.mac)
        for nic in bench.plan.nics
        if nic.id not in said
    ]


# ---- what becomes of it -------------------------------------------------------------------------


def _nic(planned: Plan, ident: str) -> Nic:
    nic = card_of(planned, ident)
    props = {name: value for name, value in nic.device.props.items() if name != "bootindex"}
    return evolve(nic, device=evolve(nic.device, props=props))


def _leases(before: Leases, after: Leases, nic: Nic) -> Leases:
    """`before` with what the new card is given for good; the rest of the profile may have changed
    since the start, and waits for the next one."""
    place = after.places.get(nic.device.id)
    return evolve(
        before,
        macs={**before.macs, nic.id: nic.mac},
        places={**before.places, **({nic.device.id: place} if place else {})},
    )


def values_of(card: wish_of.Nic) -> dict[str, object]:
    """What the profile is to say of a card that was wished for; None is what it need not say."""
    return {
        "network": card.network,
        "backend": card.backend,
        "model": card.model,
        "mac": card.mac,
        "ipv4": card.ipv4,
        "ipv6": card.ipv6,
        "filter": card.filter,
        "queues": card.queues,
        "forward": list(card.forward) or None,
        "link": card.link,
        "restrict": card.restrict,
    }


def values_of_running(nic: Nic) -> dict[str, object]:
    """The same of a card that the machine has and its profile has not."""
    attachment = nic.attachment
    queues = attachment.queues if attachment else 1
    return {
        "network": attachment.network if attachment else None,
        "backend": None if attachment else nic.backend,
        "model": nic.model,
        "ipv4": attachment.ipv4 if attachment else None,
        "ipv6": attachment.ipv6 if attachment else None,
        "filter": attachment.filter if attachment and attachment.filter != "clean" else None,
        "queues": queues if queues > 1 else None,
        "forward": [short(Forward.parse(text)) for text in nic.forwards] or None,
        "link": "down" if nic.link == "down" else None,
        "restrict": True if nic.netdev and nic.netdev.get("restrict") else None,
    }
