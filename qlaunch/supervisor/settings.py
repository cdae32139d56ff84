"""What of a running machine can be set without a restart: its memory, the limits of its disks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from attrs import evolve, frozen

from qlaunch.aio import finish
from qlaunch.errors import NotFoundError, PhaseError, QlaunchError, UsageError
from qlaunch.machine import plug_texts
from qlaunch.machine.machine import Machine
from qlaunch.plan.disks import LIMITS, MOST
from qlaunch.plan.model import Disk, Plan
from qlaunch.supervisor.request import Request
from qlaunch.units import format_size, parse_size

# How long the guest's driver is given to hand memory back before we say how far it came.
BALLOON_TIME = 2.0
# Less than this no guest lives with; a typing error is likelier (`512` for `512MiB`).
LEAST_MEMORY = 1 << 20
KEYS = f"memory.current, disk.ID.KEY with one of {', '.join(LIMITS)}"


@frozen
class _Setting:
    """One `KEY=VALUE`; the value is a number of bytes or of operations, 0 for no limit."""

    kind: Literal["memory", "disk"]
    ident: str
    key: str
    value: int
    text: str


async def change(request: Request) -> Any:
    """Set values of a running machine; with `persist` in its profile, too."""
    settings = [_parse(text) for text in request.texts("settings")]
    if not settings:
        raise UsageError("what shall be set?", hint=f"one or more of {KEYS}")
    persist = request.flag("persist")
    actor = await request.actor()
    with actor.operate("changing"):
        machine = actor.running()
        for setting in settings:
            _check(machine.plan, setting)
        if persist:
            await asyncio.to_thread(plug_texts.check_writable, machine.plan.profile)
        done = [await _set(machine, setting) for setting in settings]
        warnings = await _write(machine.plan, actor.name, settings) if persist else []
    return {
        "name": actor.name,
        "set": done,
        "persistent": persist and not warnings,
        "warnings": warnings,
    }


def _parse(text: str) -> _Setting:
    """Raises: UsageError."""
    key, equals, value = text.partition("=")
    words = key.split(".")
    if not equals or not value:
        raise UsageError(f"{text!r} is not KEY=VALUE", hint="such as memory.current=512MiB")
    try:
        if key == "memory.current":
            return _Setting("memory", "", "current", parse_size(value), text)
        if len(words) == 3 and words[0] == "disk" and words[2] in LIMITS:
            return _Setting("disk", words[1], words[2], _limit(words[2], value), text)
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None
    raise UsageError(
        f"{key} cannot be set while a machine runs",
        hint=f"these can: {KEYS}; the rest in its profile, for the next start",
    )


def _limit(key: str, value: str) -> int:
    if value in ("0", "none"):
        return 0
    if key.startswith("bps"):
        number = parse_size(value)
    elif value.isdecimal():
        number = int(value)
    else:
        raise ValueError(f"{value!r} is not a number of operations a second")
    if number > MOST:
        raise ValueError("QEMU takes at most 1000TB a second")
    return number


def _check(plan: Plan, setting: _Setting) -> None:
    """Raises: NotFoundError, PhaseError, UsageError."""
    if setting.kind == "memory":
        if not any(device.driver.startswith("virtio-balloon") for device in plan.devices):
            raise PhaseError(
                f"{plan.name} has no balloon, by which a guest gives memory back",
                hint="set memory.balloon = true in its profile, and start it again",
            )
        if not LEAST_MEMORY <= setting.value <= plan.board.memory:
            raise UsageError(
                f"{setting.text}: {plan.name} has {format_size(plan.board.memory)}",
                hint="less than that, and more than a guest needs to live, such as 512MiB",
            )
        return
    limits = _limits(_disk(plan, setting), setting)
    kind = setting.key[:-6] if setting.key.endswith("_write") else setting.key.removesuffix("_read")
    parts = {f"{kind}-read", f"{kind}-write"} & limits.keys()
    if f"{kind}-total" in limits and parts:
        raise UsageError(
            f"{setting.text}: a total limit and one for reads or writes exclude each other",
            hint="take the other out first: 0 means no limit",
        )


def _disk(plan: Plan, setting: _Setting) -> Disk:
    found = next((disk for disk in plan.disks if disk.id == setting.ident), None)
    if found is None:
        has = ", ".join(disk.id for disk in plan.disks) or "none"
        raise NotFoundError(f"{plan.name} has no disk {setting.ident!r}", hint=f"it has {has}")
    return found


def _limits(disk: Disk, setting: _Setting) -> dict[str, int]:
    limits = {**disk.limits, LIMITS[setting.key]: setting.value}
    return {name: value for name, value in limits.items() if value}


async def _set(machine: Machine, setting: _Setting) -> Mapping[str, Any]:
    """Raises: CommandError, SessionLostError."""
    if setting.kind == "memory":
        return await _set_memory(machine, setting.value)
    plan, session = machine.plan, machine.talk()
    disk = _disk(plan, setting)
    limits = _limits(disk, setting)
    # QEMU keeps what is not said.
    said = {name: limits.get(name, 0) for name in LIMITS.values()}
    path = f"/objects/{disk.id}-limits"
    await session.execute("qom-set", {"path": path, "property": "limits", "value": said})
    fresh = evolve(disk, limits=limits)
    disks = tuple(fresh if each is disk else each for each in plan.disks)
    await machine.change_plan(evolve(plan, disks=disks))
    machine.log.say(f"{setting.text}, from now on")
    return {"key": f"disk.{disk.id}.{setting.key}", "value": setting.value}


async def _set_memory(machine: Machine, value: int) -> Mapping[str, Any]:
    session = machine.talk()
    with session.expect("BALLOON_CHANGE") as changes:
        await session.execute("balloon", {"value": value})
        plan = machine.plan
        await machine.change_plan(evolve(plan, board=evolve(plan.board, memory_current=value)))
        actual = int((await session.execute("query-balloon"))["actual"])
        try:
            async with asyncio.timeout(BALLOON_TIME):
                while actual != value:
                    actual = int((await changes.get(BALLOON_TIME)).data["actual"])  # type: ignore[call-overload]
        except (TimeoutError, QlaunchError):
            pass  # the guest goes on with it, or has no driver: `actual` says how far it came
    machine.log.say(f"memory.current={format_size(value)}, from now on")
    return {"key": "memory.current", "value": value, "actual": actual}


async def _write(plan: Plan, name: str, settings: list[_Setting]) -> list[str]:
    """What keeps the settings out of the profile, if anything does."""
    for each in settings:
        value = format_size(each.value) if each.key in ("current", *_BYTES) else each.value
        if each.kind == "memory":
            how = plug_texts.say("memory", "current", value)
        else:
            how = plug_texts.put(each.ident, {each.key: value if each.value else None})
        try:
            await finish(asyncio.to_thread(plug_texts.change, plan.profile, name, how))
        except QlaunchError as error:
            return [f"{each.text} holds for this run only: {error.message}"]
    return []


_BYTES = tuple(key for key in LIMITS if key.startswith("bps"))
