"""The supervisor as a service of systemd: what systemd is told, and the end of the computer.

systemd ends a service also to start it again, and machines outlive that. Only when it shuts
everything down are the guests asked to power off first. Their scopes are ordered before this
service, so they are cut after it only.
"""

from __future__ import annotations

import asyncio
import os
import signal

from qlaunch.errors import BusyError, PhaseError, QlaunchError
from qlaunch.host import systemd
from qlaunch.host.notify import notify, watchdog_pause
from qlaunch.supervisor import power
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.server import Server
from qlaunch.supervisor.tasks import note

# How much longer than a guest's last sign of its end systemd is asked to wait for us.
PATIENCE = 30.0
# A unit ends as soon as `down` has nothing to do.
RELEASE_TIMEOUT = 30.0
# What is under way when the computer goes down may still come to its end.
WORK_TIME = 10.0


class Service:
    """What connects one server with the systemd (`user` or `system`) that runs it."""

    def __init__(self, server: Server, manager: str) -> None:
        self._server = server
        self._manager = manager
        self._asked = asyncio.Event()
        server.on_gone = self._release

    async def run(self, ready: asyncio.Event) -> None:
        """Tell systemd how things are, and end the server when it is to end. For ever, else."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask)
        self._feed(watchdog_pause())
        await ready.wait()
        notify(READY=1, MAINPID=os.getpid())
        async with asyncio.TaskGroup() as group:
            teller = group.create_task(self._tell())
            await self._asked.wait()
            teller.cancel()
            notify(STOPPING=1)
            if await systemd.is_stopping(self._manager):
                await self._farewell()
        self._server.stop()

    def _ask(self) -> None:
        if self._asked.is_set():
            self._server.stop()  # somebody is impatient
        self._asked.set()

    def _feed(self, pause: float | None) -> None:
        """Keep the watchdog quiet for as long as the event loop turns."""
        if pause is not None:
            notify(WATCHDOG=1)
            asyncio.get_running_loop().call_later(pause, self._feed, pause)

    async def _tell(self) -> None:
        while True:
            names = sorted(self._server.actors)
            count = f"{len(names)} machine{'s' if len(names) != 1 else ''}"
            notify(STATUS=f"{count}: {', '.join(names)}" if names else "no machine runs")
            await self._server.change()

    # ---- the end of the computer ----------------------------------------------------------------

    async def _farewell(self) -> None:
        """Ask every guest to power off, all at once, each within its own time."""
        self._server.closing = True
        note("the computer is being shut down: stopping what runs")
        await asyncio.gather(*(self._end(actor) for actor in list(self._server.actors.values())))

    async def _end(self, actor: Actor) -> None:
        def tell(step: str, text: str, seconds: float) -> None:
            self._tell_wait(actor, text)

        self._tell_wait(actor, "is asked to power off")
        if actor.operation is not None and actor.operation.kind != "starting":
            try:
                async with asyncio.timeout(WORK_TIME):
                    await actor.operation.done.wait()
            except TimeoutError:
                await actor.cancel(by="the end of the computer")
        try:
            await power.down(actor, timeout=None, force=True, tell=tell)
        except (BusyError, PhaseError):
            await self._kill(actor)
        except QlaunchError as error:
            note(error.message)

    async def _kill(self, actor: Actor) -> None:
        try:
            await power.kill(actor, lambda step, text, seconds: None)
        except QlaunchError as error:
            note(error.message)

    def _tell_wait(self, actor: Actor, text: str) -> None:
        machine = actor.machine
        limit = machine.plan.lifecycle.stop_timeout if machine is not None else 0.0
        extended = int((limit + PATIENCE) * 1e6)
        notify(STATUS=f"stopping {actor.name}: {text}", EXTEND_TIMEOUT_USEC=extended)

    # ---- the units of machines ------------------------------------------------------------------

    def _release(self, actor: Actor) -> None:
        """The machine has ended, so its unit `qlaunch@NAME` is not active any more either."""
        if not (actor.keeps_unit or self._asked.is_set()):
            self._server.tasks.create_task(self._stop_unit(actor.name))

    async def _stop_unit(self, name: str) -> None:
        unit = f"qlaunch@{name}.service"
        self._server.releasing.add(name)
        try:
            await systemd.systemctl(self._manager, "--quiet", "stop", unit, timeout=RELEASE_TIMEOUT)
        except QlaunchError as error:
            note(f"{unit}: {error.message}")
        finally:
            self._server.releasing.discard(name)
