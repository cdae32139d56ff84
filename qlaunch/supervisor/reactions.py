"""What a machine's actor does when QEMU says that something happened."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from attrs import evolve

from qlaunch.machine import stop
from qlaunch.machine.clock import LEAST_OFFSET, rtc_base
from qlaunch.machine.machine import Machine, quietly
from qlaunch.qmp.session import Event
from qlaunch.store import machines
from qlaunch.supervisor import policy

if TYPE_CHECKING:
    from qlaunch.supervisor.actor import Actor


async def react(actor: Actor, machine: Machine, event: Event) -> None:
    """Answer one event. Raises: QlaunchError when QEMU will not do what the policy wants."""
    life = machine.plan.lifecycle
    if event.name == "SHUTDOWN":
        reason = str(event.data.get("reason"))
        machine.log.say(f"the machine shut down: {reason}")
        actor.tell("shutdown", reason=reason)
        # Our own `quit` after it is not why the guest ended.
        actor.shutdown = actor.shutdown or reason
        action = policy.on_shutdown(life, event.data, stop_asked=actor.stop_asked)
        await _act(actor, machine, action)
    elif event.name == "GUEST_PANICKED":
        machine.log.say("the guest panicked")
        actor.tell("panicked")
        actor.shutdown = "guest-panic"
        if life.on_crash == "dump" and not actor.stop_asked:
            from qlaunch.machine.crash_dump import dump_if_possible

            actor.tell("dumped", path=await dump_if_possible(machine))
        await _act(actor, machine, policy.on_panic(life, stop_asked=actor.stop_asked))
    elif event.name == "RESET":
        await _after_reset(actor, machine, event)
    elif event.name in ("STOP", "RESUME", "SUSPEND", "WAKEUP"):
        if event.name == "RESUME" and actor.trouble and "no space" not in actor.trouble["message"]:
            actor.trouble = None
        if actor.operation is None or actor.operation.kind == "resetting":
            actor.note_state(await machine.run_state())
    elif event.name == "DEVICE_DELETED":
        from qlaunch.supervisor import unplugging

        unplugging.note_gone(actor, machine, event)
    elif event.name == "SPICE_INITIALIZED":
        if any(device.driver == "usb-redir" for device in machine.plan.devices):
            from qlaunch.supervisor import usb_growth

            usb_growth.note_client(actor, machine, event)
    elif event.name == "NETDEV_STREAM_DISCONNECTED":
        from qlaunch.supervisor import cut_cables

        cut_cables.note_cut(actor, machine, str(event.data.get("netdev-id")))
    elif event.name == "RTC_CHANGE":
        await _keep_clock(actor, machine, _number(event.data.get("offset")))
    elif event.name in ("BLOCK_IO_ERROR", "WATCHDOG"):
        machine.log.say(f"{event.name}: {dict(event.data)}")
        actor.tell(event.name.lower().replace("_", "-"), **_plain(event))
        if event.name == "BLOCK_IO_ERROR":
            from qlaunch.supervisor import full_disk

            full_disk.note_error(actor, machine, event.data)


async def _act(actor: Actor, machine: Machine, action: policy.Action) -> None:
    if machine.session is None or machine.process.ended:
        return
    if action == "reset" and not actor.may_restart():
        machine.log.say(policy.TOO_OFTEN)
        action = "quit"
    if action == "quit":
        await quietly(machine, "quit", stop.QUIT_TIMEOUT)
    elif action == "reset":
        machine.log.say("started anew by the profile's policy")
        actor.tell("restarted", by="policy")
        actor.shutdown = None
        await machine.reset(actor.later, go=True)
    else:
        # It stays as it is, for somebody to look at: what ends it later is another matter.
        actor.shutdown = None
        actor.note_state(await machine.run_state())


async def _after_reset(actor: Actor, machine: Machine, event: Event) -> None:
    """The guest restarted itself: `boot.once` has done its work, for good."""
    if not event.data.get("guest"):
        return
    machine.log.say("the guest restarted")
    actor.tell("reset", by="guest")
    once = machine.plan.boot.once
    leases = machines.load_leases(actor.name)
    if machine.plan.lifecycle.power_cycle and not actor.stop_asked:
        from qlaunch.supervisor import cycling

        actor.later(cycling.consider(actor, machine))
    if once is not None and leases.once_done != once:
        await asyncio.to_thread(machines.save_leases, actor.name, evolve(leases, once_done=once))


async def _keep_clock(actor: Actor, machine: Machine, offset: int) -> None:
    """The guest has set its hardware clock, to so many seconds from the one that it was started
    with: the next start goes on from there."""
    offset += machine.plan.board.rtc_offset if rtc_base(machine.plan.board) else 0
    offset = offset if abs(offset) >= LEAST_OFFSET else 0
    leases = machines.load_leases(actor.name)
    if abs(leases.rtc_offset - offset) >= LEAST_OFFSET or (leases.rtc_offset and not offset):
        machine.log.say(f"the guest has set its clock: {offset:+} s from the profile's")
        fresh = evolve(leases, rtc_offset=offset)
        await asyncio.to_thread(machines.save_leases, actor.name, fresh)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _plain(event: Event) -> dict[str, Any]:
    """What the event says in single words."""
    return {key: value for key, value in event.data.items() if isinstance(value, str | int | bool)}
