"""Verbs for who looks what is wrong with a guest: its memory in a file, buttons, interrupts."""

from __future__ import annotations

import os
import time
from typing import Any

from qlaunch.errors import UsageError
from qlaunch.machine import dump as dumping
from qlaunch.machine.bench import telling
from qlaunch.supervisor.request import Request

# What can happen to a guest, and the command that makes it.
EVENTS = {
    "nmi": ("inject-nmi", "a non-maskable interrupt: Windows stops with a dump, Linux says so"),
    "power-button": ("system_powerdown", "the power button, once; `down` does more"),
    "wakeup": ("system_wakeup", "out of suspend to memory"),
}


async def dump(request: Request) -> Any:
    """Write the guest's memory to a new file."""
    begun = time.monotonic()
    path, form = request.text("file"), request.optional_text("format") or "kdump-zlib"
    if not os.path.isabs(path):
        raise UsageError(f"the path is not absolute: {path}")
    if form not in dumping.FORMATS:
        raise UsageError(f"{form!r} is no format of a dump", hint=", ".join(dumping.FORMATS))
    actor = await request.actor()
    with actor.operate("dumping"):
        machine = actor.running()
        size = await dumping.dump(machine, path, form, telling(request.tell, "dump"))
    machine.log.say(f"its memory was written to {path}")
    seconds = round(time.monotonic() - begun, 3)
    return {"name": actor.name, "file": path, "format": form, "size": size, "seconds": seconds}


async def inject(request: Request) -> Any:
    """Have something happen to the guest."""
    event = request.text("event")
    if event not in EVENTS:
        raise UsageError(f"{event!r} cannot be injected", hint=", ".join(EVENTS))
    actor = await request.actor()
    await actor.session().execute(EVENTS[event][0])
    actor.running().log.say(f"{event} was injected")
    return {"name": actor.name, "event": event}
