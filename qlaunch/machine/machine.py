"""A running machine: its QEMU, the session with it, and what stands around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from attrs import Factory, define

from qlaunch.aio import finish
from qlaunch.argv.cables import set_link
from qlaunch.errors import CommandError, PhaseError, QlaunchError, SessionLostError, TimedOutError
from qlaunch.host.process import Process
from qlaunch.machine.console import Console
from qlaunch.machine.gateway import Gateway
from qlaunch.machine.log import MachineLog
from qlaunch.plan.model import Plan
from qlaunch.qmp.events import Expectation
from qlaunch.qmp.session import Session
from qlaunch.store import files, machines

if TYPE_CHECKING:
    from qlaunch.machine.cables import Cables

STATUS_TIMEOUT = 2.0
RESET_TIMEOUT = 10.0
# Within which the firmware resets the machine again, if it does; on a busy host it comes late.
FIRMWARE_RESET_TIME = 10.0
# After its last one.
FIRMWARE_QUIET_TIME = 2.0
# How long swtpm may take to end by itself after QEMU.
HELPER_TIMEOUT = 2.0
# For what must not stay after a start that failed.
TERM_TIMEOUT = 1.0
KILL_TIMEOUT = 10.0


@define(kw_only=True, eq=False)
class Machine:
    """Owns one QEMU process. `session` is None when QEMU lives and does not answer."""

    plan: Plan
    log: MachineLog
    process: Process
    session: Session | None
    gateway: Gateway
    cables: Cables | None = None
    consoles: dict[str, Console] = Factory(dict)
    helpers: list[Process] = Factory(list)
    started: float = 0.0
    landlock: int = 0
    tcp: bool = True

    @property
    def name(self) -> str:
        return self.plan.name

    def talk(self) -> Session:
        """The session. Raises: PhaseError when QEMU does not answer."""
        if self.session is None:
            raise PhaseError(
                f"{self.name}: QEMU (pid {self.process.pid}) does not answer",
                hint=f"`qlaunch kill {self.name}` ends it",
            )
        return self.session

    async def change_plan(self, plan: Plan, *, lasting: bool = True) -> None:
        """The machine is now as `plan` says; that is on the disk when this returns, and with
        `lasting` still so after a power cut.

        Raises: HostError. `plan` counts all the same: it is what QEMU does.
        """
        self.plan = plan
        await finish(asyncio.to_thread(machines.save_plan, plan, lasting=lasting))

    async def run_state(self) -> str:
        """QEMU's own word for what it does (`running`, `paused`, `io-error`, ...), or
        `unresponsive`."""
        if self.session is None:
            return "unresponsive"
        try:
            answer: dict[str, Any] = await self.session.execute(
                "query-status", timeout=STATUS_TIMEOUT
            )
        except (TimedOutError, SessionLostError, CommandError):
            return "unresponsive"
        return str(answer["status"])

    async def begin(
        self,
        *,
        paused: bool = False,
        password: str | None = None,
        continued: bool = False,
        before_go: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """From QEMU's greeting to a running guest: passwords, boot order, balloon, clients, go.

        A guest that is `continued` from its saved memory knows how much of it it has.
        """
        session = self.talk()
        await self._connect_consoles()
        if password is not None:
            for protocol in ("spice", "vnc"):
                if getattr(self.plan.display, protocol):
                    await session.execute(
                        "set_password", {"protocol": protocol, "password": password}
                    )
        await self._boot_order_after_reset(session)
        # Memory brings the links of its moment along.
        await self.set_links(*(("up", "down") if continued else ("down",)))
        board = self.plan.board
        if board.memory_current < board.memory and not continued:
            await self._balloon(session, board.memory_current)
        self._let_clients_in(session)
        if before_go is not None:
            await before_go()
        if not paused:
            await session.execute("cont")

    async def set_links(self, *wanted: str) -> None:
        """Put the cables in or pull them out as the plan says, where it says one of `wanted`."""
        for nic in self.plan.nics:
            if nic.link in wanted and nic.backend != "none":
                command = set_link(nic, up=nic.link == "up")
                await self.talk().execute(command.name, command.arguments)

    async def reopen(self) -> None:
        """Serial ports and display clients again, for a QEMU that an earlier supervisor began."""
        await self._connect_consoles()
        self._let_clients_in(self.talk())

    async def _connect_consoles(self) -> None:
        for ident, console in self.consoles.items():
            if not console.connected:
                await console.connect(self.plan.chardev(f"{ident}-chr").path)

    def _let_clients_in(self, session: Session) -> None:
        self.gateway.open(session)

    async def reset(self, later: Callable[[Coroutine[Any, Any, None]], None], *, go: bool) -> None:
        """Press the reset button, whatever the policy against reboots says; `go` lets a machine
        run that was stopped. What must be seen to afterwards goes to `later`."""
        session = self.talk()
        if self.plan.lifecycle.on_reboot == "restart":
            await self._press_reset(session, go=go)
            return
        with contextlib.ExitStack() as stack:
            again = stack.enter_context(session.expect("RESET", match={"guest": True}))
            await session.execute("set-action", {"reboot": "reset"}, timeout=RESET_TIMEOUT)
            try:
                await self._press_reset(session, go=go)
            except QlaunchError:
                await self.heed_policy()
                raise
            later(self._after_firmware(again, stack.pop_all()))

    async def _after_firmware(self, again: Expectation, listening: contextlib.ExitStack) -> None:
        """Put the policy against reboots back in force once the firmware has done its own resets.

        SeaBIOS (1.16, on both boards) does one as soon as it runs, in several ways one after the
        other until one works: on a busy host that makes up to four. Other firmware does none.
        """
        limit = FIRMWARE_RESET_TIME
        with listening:
            while not self.process.ended:
                try:
                    await again.get(timeout=limit)
                    limit = FIRMWARE_QUIET_TIME
                except TimedOutError:
                    if limit == FIRMWARE_QUIET_TIME or await self.run_state() != "paused":
                        break
                except SessionLostError:
                    return
        await self.heed_policy()

    async def heed_policy(self) -> None:
        """Have QEMU stop at a guest's reboot where the profile says so, if it still answers."""
        if self.plan.lifecycle.on_reboot != "restart":
            with contextlib.suppress(QlaunchError):
                stops = {"reboot": "shutdown"}
                await self.talk().execute("set-action", stops, timeout=RESET_TIMEOUT)

    async def _press_reset(self, session: Session, *, go: bool) -> None:
        await session.execute("system_reset", timeout=RESET_TIMEOUT)
        if go:
            await session.execute("cont", timeout=RESET_TIMEOUT)

    async def _boot_order_after_reset(self, session: Session) -> None:
        """Give the devices the boot order that counts from the guest's first reset on.

        The firmware reads the order when the guest starts and at each reset: what is set now,
        between the two, leaves the first boot alone.
        """
        later = self.plan.boot.later
        # An index may be used once only, so all are taken back before any is given.
        settings = [*((device, -1) for device in later), *later.items()]
        for device, index in settings:
            path = f"/machine/peripheral/{device}"
            arguments = {"path": path, "property": "bootindex", "value": index}
            await session.execute("qom-set", arguments)

    async def _balloon(self, session: Session, size: int) -> None:
        try:
            await session.execute("balloon", {"value": size})
        except CommandError as error:
            self.log.say(f"memory stays at its full size: {error.message}")

    async def close(self) -> None:
        """Let go of everything; the process must have ended, or is left to another supervisor."""
        self.gateway.close()
        if self.cables is not None:
            self.cables.close()
        for console in self.consoles.values():
            console.close()
        if self.session is not None:
            await self.session.close()
        for helper in self.helpers:
            helper.close()
        self.process.close()
        self.log.close()

    async def clear_away(self) -> None:
        """Remove what stood around a QEMU that has ended: helpers, sockets."""
        for helper in self.helpers:
            await end_process(helper, HELPER_TIMEOUT)
        await self.gateway.ended()
        if self.cables is not None:
            await self.cables.clear_away()
        shutil.rmtree(self.plan.places.runtime, ignore_errors=True)
        await self.close()


def describe_end(machine: Machine, shutdown: str | None, since: int) -> str:
    """How the machine ended, in a line: QEMU's reason, or its signal and last words."""
    status = machine.process.exit_status
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"QEMU was ended by {signal.Signals(-status).name}"
        return f"QEMU was ended by signal {-status}"
    if shutdown:
        return shutdown
    if status:
        from qlaunch.machine.log import last_words

        return f"QEMU ended with status {status}: {last_words(machine.log.qemu_words(since))}"
    return "QEMU ended"


async def quietly(machine: Machine, command: str, timeout: float) -> bool:
    """Send `command` and say whether QEMU took it; a QEMU that is gone or silent did not."""
    try:
        await machine.talk().execute(command, timeout=timeout)
    except QlaunchError:
        return False
    return True


def ensure_folder(path: str) -> None:
    """Make a folder of ours, private. Raises: HostError."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise files.no_write(path, error) from error


async def end_process(process: Process, patience: float = 0.0) -> None:
    """See to it that `process` ends: by itself within `patience`, by TERM, by KILL."""
    steps = ((None, patience), (signal.SIGTERM, TERM_TIMEOUT), (signal.SIGKILL, KILL_TIMEOUT))
    try:
        for number, seconds in steps:
            if process.ended:
                return
            if number is not None:
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await process.wait(timeout=seconds)
    finally:
        process.close()
