"""One machine in the supervisor: its operations one at a time, its happenings in one inbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from attrs import define, evolve, frozen

from qlaunch.aio import finish
from qlaunch.errors import BusyError, PhaseError, QlaunchError, TimedOutError
from qlaunch.machine import stop
from qlaunch.machine.console import Console
from qlaunch.machine.launch import Order, launch
from qlaunch.machine.machine import Machine, describe_end, quietly
from qlaunch.qmp.session import Event, Session
from qlaunch.store import machines
from qlaunch.supervisor import policy
from qlaunch.supervisor.tasks import Tasks

Kind = Literal["starting", "stopping", "restarting", "resetting", "adopting"]
RESET_TIMEOUT = 10.0
Tell = Callable[[str, str, float], None]


@frozen
class Gone:
    """QEMU has ended."""


@frozen
class Lost:
    """QEMU hung up its monitor but may live."""


@define(eq=False)
class Operation:
    """What is being done to a machine now, and by which task."""

    kind: Kind
    task: asyncio.Task[Any]
    since: float
    done: asyncio.Event


class Actor:
    """Hosts one machine from its start, or its adoption, to its end."""

    def __init__(self, name: str, tasks: Tasks, changed: Callable[[Actor], None]) -> None:
        self.name = name
        self.lock = machines.lock(name)
        self.machine: Machine | None = None
        self.operation: Operation | None = None
        self.state = "starting"
        self.since = time.time()
        self.stop_asked = False
        self.warnings: Sequence[Mapping[str, Any]] = ()
        self.gone = asyncio.Event()
        self.cancelled_by: str | None = None
        self._tasks = tasks
        self._changed = changed
        self._inbox: asyncio.Queue[Event | Gone | Lost] = asyncio.Queue()
        self._restarts: list[float] = []
        self._shutdown: str | None = None
        self._log_start = 0

    @contextlib.contextmanager
    def operate(self, kind: Kind) -> Iterator[Operation]:
        """Be the one operation on this machine. Raises: BusyError while there is another."""
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
        finally:
            self.operation = None
            operation.done.set()

    async def start(self, order: Order) -> None:
        """Launch the machine. When that fails, the actor has ended. Raises: as `launch`."""
        try:
            with self.operate("starting"):
                self.note_state("starting")
                await self._launch(order)
        except BaseException:
            if self.machine is None:
                self.release()
            raise

    async def _launch(self, order: Order) -> None:
        self.warnings = order.warnings
        self.watch(await launch(order))
        self.note_state("paused" if order.paused else "running")

    def watch(self, machine: Machine) -> None:
        """Take over a machine that runs: from now on its happenings come to the inbox."""
        self.machine = machine
        self._shutdown = None
        self._log_start = machine.log.position()
        self._inbox = asyncio.Queue()
        if machine.session is not None:
            machine.session.on_event(self._inbox.put_nowait)
            machine.session.on_lost(lambda: self._inbox.put_nowait(Lost()))
        self._tasks.create_task(self._run(machine, self._inbox))

    async def _run(self, machine: Machine, inbox: asyncio.Queue[Event | Gone | Lost]) -> None:
        death = self._tasks.create_task(_tell_end(machine, inbox))
        try:
            while not isinstance(happening := await inbox.get(), Gone):
                try:
                    await self._handle(machine, happening)
                except QlaunchError as error:
                    machine.log.say(f"{type(happening).__name__}: {error.message}")
        finally:
            death.cancel()
        await finish(self._after_end(machine))

    async def _handle(self, machine: Machine, happening: Event | Lost | Gone) -> None:
        if isinstance(happening, Event):
            await self._handle_event(machine, happening)
        elif machine.session is not None and not machine.process.ended:
            machine.log.say("QEMU closed its monitor")
            self.note_state("unresponsive")

    async def _handle_event(self, machine: Machine, event: Event) -> None:
        life = machine.plan.lifecycle
        if event.name == "SHUTDOWN":
            self._shutdown = str(event.data.get("reason"))
            machine.log.say(f"the machine shut down: {self._shutdown}")
            await self._act(
                machine, policy.on_shutdown(life, event.data, stop_asked=self.stop_asked)
            )
        elif event.name == "GUEST_PANICKED":
            machine.log.say("the guest panicked")
            await self._act(machine, policy.on_panic(life, stop_asked=self.stop_asked))
        elif event.name == "RESET":
            await self._after_reset(machine, event)
        elif event.name in ("STOP", "RESUME", "SUSPEND", "WAKEUP"):
            self.note_state(await machine.run_state())
        elif event.name in ("BLOCK_IO_ERROR", "WATCHDOG"):
            machine.log.say(f"{event.name}: {dict(event.data)}")

    async def _act(self, machine: Machine, action: policy.Action) -> None:
        if machine.session is None or machine.process.ended:
            return
        if action == "quit":
            await quietly(machine, "quit", stop.QUIT_TIMEOUT)
        elif action == "reset":
            machine.log.say("started anew by the profile's policy")
            await machine.session.execute("system_reset", timeout=RESET_TIMEOUT)
            await machine.session.execute("cont", timeout=RESET_TIMEOUT)
        else:
            self.note_state(await machine.run_state())

    async def _after_reset(self, machine: Machine, event: Event) -> None:
        """The guest restarted itself: `boot.once` has done its work, for good."""
        if not event.data.get("guest"):
            return
        machine.log.say("the guest restarted")
        once = machine.plan.boot.once
        leases = machines.load_leases(self.name)
        if once is not None and leases.once_done != once:
            await asyncio.to_thread(machines.save_leases, self.name, evolve(leases, once_done=once))

    async def _after_end(self, machine: Machine) -> None:
        """QEMU is gone: start it again if the profile says so, or end."""
        reason = describe_end(machine, self._shutdown, self._log_start)
        crashed = self._shutdown is None
        machine.log.say(f"ended: {reason}")
        now = time.monotonic()
        again = policy.relaunch(
            machine.plan.lifecycle, self._restarts, now, crashed=crashed, stop_asked=self.stop_asked
        )
        plan = machine.plan
        machine.remove_sockets()
        await machine.close()
        self.machine = None
        if again:
            self._restarts.append(now)
            self._tasks.create_task(self._relaunch(plan, reason))
            return
        failed = crashed and not self.stop_asked
        self.note_state("failed" if failed else "stopped")
        with contextlib.suppress(QlaunchError):
            machines.end_run(self.name, reason, time.time())
        self.release()

    async def _relaunch(self, plan: Any, reason: str) -> None:
        order = Order(
            plan=evolve_created(plan),
            leases=machines.load_leases(self.name),
            group=self._tasks,
            warnings=tuple(self.warnings),
        )
        try:
            await self.start(order)
        except QlaunchError as error:
            with contextlib.suppress(QlaunchError):
                machines.end_run(
                    self.name, f"{reason}; not started again: {error.message}", time.time()
                )

    async def down(self, *, timeout: float | None, force: bool, tell: Tell) -> str:
        """Stop the machine gracefully; `force` ends it when its time is up.

        Returns: how it ended. Raises: TimedOutError when the guest still runs, BusyError.
        """
        if await self._cancel("starting", "down"):
            return "its start was cancelled"
        with self.operate("stopping"):
            machine = self._machine()
            limit = machine.plan.lifecycle.stop_timeout if timeout is None else timeout
            self.stop_asked = True
            self.note_state("stopping")
            begun = time.monotonic()

            def step(name: str, text: str) -> None:
                machine.log.say(text)
                tell(name, text, time.monotonic() - begun)

            try:
                gone = await stop.ask_to_stop(machine, limit, step)
                if not gone and force:
                    await finish(stop.force(machine, step))
                    gone = True
            finally:
                if not machine.process.ended:
                    self.stop_asked = False
                    self.note_state(await machine.run_state())
            if not gone:
                raise self._still_there(limit)
        await self.gone.wait()
        return machine_end(self.name)

    def _still_there(self, limit: float) -> TimedOutError:
        return TimedOutError(
            f"{self.name} did not power off within {limit:.0f} s and still runs",
            hint=f"look at it: `qlaunch screenshot {self.name}` or `qlaunch console {self.name}`;"
            f" end it: `qlaunch down --force {self.name}` or `qlaunch kill {self.name}`",
        )

    async def kill(self, tell: Tell) -> str:
        """End QEMU now, whatever else is under way."""
        for kind in ("starting", "stopping", "restarting", "resetting"):
            if await self._cancel(kind, "kill") and kind == "starting":
                return "its start was cancelled"
        with self.operate("stopping"):
            machine = self._machine()
            self.stop_asked = True
            begun = time.monotonic()

            def step(name: str, text: str) -> None:
                machine.log.say(text)
                tell(name, text, time.monotonic() - begun)

            await finish(stop.force(machine, step))
        await self.gone.wait()
        return machine_end(self.name)

    async def reset(self) -> None:
        """Press the reset button; with a policy against reboots this one is let through."""
        machine = self._machine()
        session = machine.talk()
        with self.operate("resetting"):
            guarded = machine.plan.lifecycle.on_reboot != "restart"
            if guarded:
                await session.execute("set-action", {"reboot": "reset"}, timeout=RESET_TIMEOUT)
            try:
                await session.execute("system_reset", timeout=RESET_TIMEOUT)
            finally:
                if guarded:
                    await quietly_set(machine, {"reboot": "shutdown"})

    def session(self) -> Session:
        """The session with QEMU. Raises: PhaseError while there is none, or it does not answer."""
        return self._machine().talk()

    def consoles(self) -> Mapping[str, Console]:
        """The serial ports. Raises: PhaseError."""
        return self._machine().consoles

    def _machine(self) -> Machine:
        if self.machine is None:
            raise PhaseError(f"{self.name} is {self.state}", hint="try again in a moment")
        return self.machine

    async def _cancel(self, kind: str, by: str) -> bool:
        """Cancel the operation under way if it is a `kind`; wait until it has been undone."""
        operation = self.operation
        if operation is None or operation.kind != kind:
            return False
        self.cancelled_by = by
        operation.task.cancel()
        await operation.done.wait()
        return True

    def note_state(self, state: str) -> None:
        """The machine's state from now on; `since` counts from a change."""
        if state != self.state:
            self.state, self.since = state, time.time()
            self._changed(self)

    def release(self) -> None:
        """The machine is not running (any more): give back its lock and be gone."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
        self.gone.set()
        self._changed(self)

    async def leave(self) -> None:
        """Let go of a machine that goes on: the next supervisor adopts it."""
        if self.machine is not None:
            await self.machine.close()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


async def _tell_end(machine: Machine, inbox: asyncio.Queue[Event | Gone | Lost]) -> None:
    try:
        await machine.process.wait()
    finally:
        inbox.put_nowait(Gone())


async def quietly_set(machine: Machine, actions: Mapping[str, str]) -> None:
    """`set-action` that may fail: QEMU may be gone by now."""
    with contextlib.suppress(QlaunchError):
        await machine.talk().execute("set-action", actions, timeout=RESET_TIMEOUT)


def evolve_created(plan: Any) -> Any:
    """The plan for a second start: what it made the first time is there now."""
    disks = tuple(evolve(disk, create=None) for disk in plan.disks)
    firmware = evolve(plan.firmware, create=None) if plan.firmware else None
    return evolve(plan, disks=disks, firmware=firmware)


def machine_end(name: str) -> str:
    """How the machine ended last, as noted."""
    last = machines.last_end(name)
    return str(last["reason"]) if last else "ended"
