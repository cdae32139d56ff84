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
from qlaunch.plan.order import circle, prerequisites, reversed_order
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
        self._goodbye: asyncio.Task[None] | None = None
        server.service = self

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
                await asyncio.wait({self._farewell()})
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

    async def leaves_with_all(self, actor: Actor) -> bool:
        """At the end of the computer each unit stops its own machine, and knows no order: then all
        are stopped here, and this returns when `actor` is gone. Else it returns False."""
        if self._goodbye is None and not await systemd.is_stopping(self._manager):
            return False
        self._farewell()
        await actor.gone.wait()
        return True

    def _farewell(self) -> asyncio.Task[None]:
        """Ask every guest to power off, each within its own time, all at once but for those that
        others need."""
        if self._goodbye is None:
            self._server.closing = True
            note("the computer is being shut down: stopping what runs")
            self._goodbye = self._server.tasks.create_task(self._stop_all())
        return self._goodbye

    async def _stop_all(self) -> None:
        actors = dict(self._server.actors)
        after = {
            name: actor.machine.plan.lifecycle.after if actor.machine is not None else ()
            for name, actor in actors.items()
        }
        before = prerequisites(after)
        waits = reversed_order(before) if not circle(before) else {}
        await asyncio.gather(
            *(
                self._end(actor, [actors[other] for other in waits.get(name, ())])
                for name, actor in actors.items()
            )
        )

    async def _end(self, actor: Actor, others: list[Actor]) -> None:
        def tell(step: str, text: str, seconds: float) -> None:
            self._tell_wait(actor, text)

        for other in others:
            await other.gone.wait()
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

    def release(self, actor: Actor) -> None:
        """The machine has ended, so its unit `qlaunch@NAME` is not active any more either."""
        if not (actor.keeps_unit or self._server.closing):
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
