"""One machine in the supervisor: its operations one at a time, its happenings in one inbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Literal

from attrs import define, evolve, frozen

from qlaunch.aio import finish
from qlaunch.errors import BusyError, PhaseError, QlaunchError
from qlaunch.host.process import Process
from qlaunch.machine import stop
from qlaunch.machine.console import Console
from qlaunch.machine.launch import Order, launch
from qlaunch.machine.machine import Machine, describe_end
from qlaunch.plan.model import Plan
from qlaunch.qmp.session import Event, Session
from qlaunch.store import events, machines, paths
from qlaunch.supervisor import leftovers, policy, reactions
from qlaunch.supervisor.tasks import Tasks, guarded

Kind = Literal[
    "starting", "stopping", "resetting", "adopting",
    "snapshotting", "reverting", "merging", "saving", "plugging", "changing", "dumping",
]  # fmt: skip
Tell = Callable[[str, str, float], None]
# How long QEMU's last events may take to be read after its end.
LAST_EVENTS_TIMEOUT = 2.0
# How long a verb may take to put things right that QEMU died over.
TIDY_TIMEOUT = 30.0
# How long QEMU lives after it has closed its monitor, when it ends.
LAST_MOMENT = 2.0
# How long a QEMU that did not answer earlier has to answer now.
REJOIN_TIMEOUT = 1.0


@frozen
class Gone:
    """QEMU has ended, and what it said before has been heard."""


@frozen
class Lost:
    """QEMU hung up its monitor but may live."""


Inbox = asyncio.Queue[Event | Gone | Lost]


@define(eq=False)
class Operation:
    """What is being done to a machine now, and by which task."""

    kind: Kind
    task: asyncio.Task[Any]
    since: float
    done: asyncio.Event
    cancelled_by: str | None = None


class Actor:
    """Hosts one machine from its start, or its adoption, to its end.

    `machine` is None while there is no QEMU: before, after, and between two launches. `orphan` is a
    QEMU of which nothing but the process is known, because its saved plan is damaged. `keeps_unit`:
    its unit of systemd, if it has one, is not to be told of its end, for it knows, or it goes on.
    """

    def __init__(self, name: str, tasks: Tasks, changed: Callable[[Actor], None]) -> None:
        self.name = name
        self.lock = machines.lock(name)
        self.machine: Machine | None = None
        self.orphan: Process | None = None
        self.operation: Operation | None = None
        self.state = "starting"
        self.since = time.time()
        self.stop_asked = self.given_up = self.cycle = self.keeps_unit = False
        self.warnings: Sequence[Mapping[str, Any]] = ()
        self.trouble: Mapping[str, Any] | None = None  # why the guest stands still just now
        self.gone = asyncio.Event()
        self.shutdown: str | None = None
        self.restarts: list[float] = []
        self._tasks = tasks
        self._changed = changed
        self._order: Order | None = None
        self._inbox: Inbox = asyncio.Queue()
        self._work: asyncio.Task[Any] | None = None
        self._rejoining = False
        self._log_start = 0

    # ---- operations -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def operate(self, kind: Kind) -> Iterator[Operation]:
        """Be the one operation on this machine.

        Raises: BusyError while there is another, and when another verb cancelled this one.
        """
        if self.operation is not None:
            seconds = time.monotonic() - self.operation.since
            raise BusyError(
                f"{self.name} is {self.operation.kind} (for {seconds:.0f} s)",
                hint=f"wait for it, or `qlaunch kill {self.name}`",
            )
        task = asyncio.current_task()
        assert task is not None
        operation = Operation(kind, task, time.monotonic(), asyncio.Event())
        self.operation = operation
        try:
            yield operation
        except asyncio.CancelledError:
            # A hang-up or the supervisor's end goes on; what a user asked for is told.
            if operation.cancelled_by is None or task.uncancel() > 0:
                raise
            raise BusyError(
                f"{self.name}: {kind} was cancelled by `{operation.cancelled_by}`"
            ) from None
        finally:
            self.operation = None
            operation.done.set()

    async def cancel(self, *kinds: Kind, by: str) -> Kind | None:
        """Cancel the operation under way if it is one of `kinds` (any, when none is named); wait
        until it has been undone.

        Returns: what it was, None when there was none such.
        """
        operation = self.operation
        if operation is None or (kinds and operation.kind not in kinds):
            return None
        if operation.cancelled_by is None:
            operation.cancelled_by = by
            operation.task.cancel()
        await operation.done.wait()
        return operation.kind

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do `work` in the background, without keeping the inbox waiting."""
        self._tasks.create_task(work)

    # ---- the beginning --------------------------------------------------------------------------

    async def start(self, order: Order) -> None:
        """Launch the machine. When that fails, the actor has ended. Raises: as `launch`."""
        try:
            with self.operate("starting"):
                await self._launch(order)
        except BaseException:
            if self.machine is None:
                self.release()
            raise

    async def _launch(self, order: Order) -> None:
        self.note_state("starting")
        self.warnings = order.warnings
        await leftovers.sweep(self.name)
        async with self._tasks.starts:
            machine = await launch(order)
        self.warnings = order.warnings  # the start may have added one
        secret = order.plan.display.password
        kept = {
            key: value for key, value in order.environment.items() if secret and key == secret.env
        }
        self._order = evolve(
            order,
            environment=kept,
            paused=False,
            step=lambda step, text, seconds: None,
            incoming=None,
            before_go=None,
        )
        self.watch(machine)
        self.tell("started", pid=machine.process.pid, profile=order.plan.profile)
        self.note_state("prelaunch" if order.paused else "running")

    def watch(self, machine: Machine) -> None:
        """Take over a machine that runs: from now on its happenings come to the inbox."""
        self.machine = machine
        self.shutdown = self.trouble = None
        self._log_start = machine.log.position()
        self._inbox = asyncio.Queue()
        if machine.session is not None:
            self._listen(machine.session)
        self._work = self._tasks.create_task(self._run(machine, self._inbox))

    def watch_orphan(self, process: Process) -> None:
        """Take over a QEMU whose plan is lost: its end is noted, and it can be killed."""
        self.orphan = process
        self.note_state("unresponsive")
        self._work = self._tasks.create_task(self._watch_orphan(process))

    def _listen(self, session: Session) -> None:
        inbox = self._inbox
        session.on_event(inbox.put_nowait)
        session.on_lost(lambda: inbox.put_nowait(Lost()))

    async def rejoin(self) -> None:
        """Talk again to a QEMU that could not be talked to when it was adopted, if it can now."""
        machine = self.machine
        if machine is None or machine.process.ended or self._rejoining:
            return
        if machine.session is not None and not machine.session.lost.is_set():
            return
        self._rejoining = True
        try:
            path = machine.plan.chardev("qmp").path
            session = await Session.connect(path, name=self.name, timeout=REJOIN_TIMEOUT)
            if machine is not self.machine:
                await session.close()
                return
            if machine.session is not None:
                await machine.session.close()
            machine.session = session
            self._listen(session)
            await machine.reopen()
            machine.log.say("QEMU answers again")
        except QlaunchError:
            return
        finally:
            self._rejoining = False

    # ---- while it runs --------------------------------------------------------------------------

    async def _run(self, machine: Machine, inbox: Inbox) -> None:
        death = self._tasks.create_task(_tell_end(machine, inbox))
        try:
            while not isinstance(happening := await inbox.get(), Gone):
                await guarded(self._handle(machine, happening))
        finally:
            death.cancel()
        await finish(self._after_end(machine))

    async def _handle(self, machine: Machine, happening: Event | Lost | Gone) -> None:
        try:
            if isinstance(happening, Event):
                await reactions.react(self, machine, happening)
            elif not await stop.gone(machine, LAST_MOMENT):
                machine.log.say("QEMU closed its monitor")
                self.note_state("unresponsive")
        except QlaunchError as error:
            what = happening.name if isinstance(happening, Event) else "the lost monitor"
            machine.log.say(f"{what}: {error.message}")

    async def _watch_orphan(self, process: Process) -> None:
        await process.wait()
        process.close()
        shutil.rmtree(paths.machine_runtime(self.name), ignore_errors=True)
        self.orphan = None
        await finish(self._end("QEMU ended", failed=not self.stop_asked))

    # ---- the end --------------------------------------------------------------------------------

    async def _after_end(self, machine: Machine) -> None:
        """QEMU is gone: start it again if the profile says so, or end."""
        reason = describe_end(machine, self.shutdown, self._log_start)
        crashed = self.shutdown is None and not self.stop_asked
        machine.log.say(f"ended: {reason}")
        await machine.clear_away()
        self.machine = None
        by_policy = crashed and machine.plan.lifecycle.on_crash == "restart"
        if (self.cycle or by_policy) and self.may_restart():
            self.state = "starting"
            self._work = self._tasks.create_task(self._relaunch(machine.plan, reason))
            return
        if self.given_up:
            reason = f"{reason}; {policy.TOO_OFTEN}"
        await self._end(reason, failed=crashed or self.given_up)

    def may_restart(self) -> bool:
        """Count a start by policy; False when there were too many in the last minute."""
        now = time.monotonic()
        self.restarts = policy.recent(self.restarts, now)
        self.given_up = not self.stop_asked and len(self.restarts) >= policy.RESTARTS
        if self.stop_asked or self.given_up:
            return False
        self.restarts.append(now)
        return True

    async def _relaunch(self, plan: Plan, reason: str) -> None:
        from qlaunch.supervisor import cycling  # it imports us

        try:
            await self._until_tidied()
            if self.stop_asked:  # just now
                await finish(self._end(reason, failed=False))
                return
            with self.operate("starting"):
                anew, self.cycle = self.cycle, False
                before = self._order
                if anew:
                    order = await cycling.fresh_order(plan, self._tasks, before)
                else:
                    order = await cycling.same_order(plan, self._tasks, before, self.warnings)
                await self._launch(order)
        except QlaunchError as error:
            text = f"{reason}; not started again: {error.message}"
            await finish(self._end(text, failed=True))
        except asyncio.CancelledError:
            await finish(self._end(f"{reason}; not started again", failed=True))
            raise

    async def _until_tidied(self) -> None:
        """Wait for a verb that QEMU died over and that puts things right."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIDY_TIMEOUT):
                while self.operation is not None:
                    await self.operation.done.wait()

    async def _end(self, reason: str, *, failed: bool) -> None:
        """The machine runs no more: note how it ended, give its lock back and be gone."""
        try:
            await asyncio.to_thread(self._note_end, reason, failed)
        except QlaunchError:
            pass  # a full disk: the machine has ended all the same
        finally:
            self.tell("ended", reason=reason, failed=failed)
            self.note_state("failed" if failed else "stopped")
            self.release()

    def _note_end(self, reason: str, failed: bool) -> None:
        machines.end_run(self.name, reason, time.time(), failed=failed)

    def release(self) -> None:
        """The machine is not running (any more): give back its lock and be gone."""
        self._give_lock_back()
        self.gone.set()
        self._changed(self)

    async def leave(self) -> None:
        """Let go of a machine that goes on: the next supervisor adopts it."""
        while (work := self._work) is not None and not work.done():
            # First of all: to whoever watches, what is closed now would look like QEMU's end.
            work.cancel()
            await asyncio.wait({work})
        if self.machine is not None:
            await self.machine.close()
        if self.orphan is not None:
            self.orphan.close()
        self._give_lock_back()

    def _give_lock_back(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    # ---- questions ------------------------------------------------------------------------------

    def running(self) -> Machine:
        """The machine. Raises: PhaseError while there is none."""
        if self.machine is not None:
            return self.machine
        if self.orphan is not None:
            raise PhaseError(
                f"{self.name}: its saved plan is damaged, so QEMU (pid {self.orphan.pid}) cannot be"
                " talked to",
                hint=f"`qlaunch kill {self.name}` ends it",
            )
        raise PhaseError(f"{self.name} is {self.state}", hint="try again in a moment")

    @property
    def process(self) -> Process | None:
        """QEMU's process, while there is one."""
        return self.machine.process if self.machine is not None else self.orphan

    def session(self) -> Session:
        """The session with QEMU. Raises: PhaseError while there is none, or it does not answer."""
        return self.running().talk()

    def consoles(self) -> Mapping[str, Console]:
        """The serial ports. Raises: PhaseError."""
        return self.running().consoles

    def note_state(self, state: str) -> None:
        """The machine's state from now on; `since` counts from a change."""
        if state != self.state:
            self.state, self.since = state, time.time()
            self.tell("state", state=state)
            self._changed(self)

    def tell(self, event: str, **about: Any) -> None:
        """Write down for `qlaunch events` that something happened."""
        events.note(self.name, event, **about)


async def _tell_end(machine: Machine, inbox: Inbox) -> None:
    await machine.process.wait()
    session = machine.session
    if session is not None:
        # The end can be seen before the last events are read: whether it was a shutdown or a crash
        # is in them.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_EVENTS_TIMEOUT):
                await session.wait_lost()
    inbox.put_nowait(Gone())
