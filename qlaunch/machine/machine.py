"""A running machine: its QEMU, the session with it, and what stands around it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from typing import Any

from attrs import Factory, define

from qlaunch.errors import CommandError, PhaseError, QlaunchError, SessionLostError, TimedOutError
from qlaunch.host.process import Process
from qlaunch.machine.console import Console
from qlaunch.machine.gateway import Gateway
from qlaunch.machine.log import MachineLog
from qlaunch.plan.model import Plan
from qlaunch.qmp.session import Session

STATUS_TIMEOUT = 2.0


@define(kw_only=True, eq=False)
class Machine:
    """Owns one QEMU process. `session` is None when QEMU lives and does not answer."""

    plan: Plan
    log: MachineLog
    process: Process
    session: Session | None
    gateway: Gateway
    consoles: dict[str, Console] = Factory(dict)
    helpers: list[Process] = Factory(list)
    started: float = 0.0

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

    async def run_state(self) -> str:
        """QEMU's own word for what it does (`running`, `paused`, `io-error`, ...), or
        `unresponsive`."""
        if self.session is None:
            return "unresponsive"
        try:
            answer: dict[str, Any] = await self.session.execute(
                "query-status", timeout=STATUS_TIMEOUT
            )
        except (TimedOutError, SessionLostError):
            return "unresponsive"
        return str(answer["status"])

    async def begin(self, *, paused: bool = False, password: str | None = None) -> None:
        """From QEMU's greeting to a running guest: passwords, boot order, balloon, clients, go."""
        session = self.talk()
        for ident, console in self.consoles.items():
            await console.connect(self.plan.chardev(f"{ident}-chr").path)
        if password is not None:
            for protocol in ("spice", "vnc"):
                if getattr(self.plan.display, protocol):
                    await session.execute(
                        "set_password", {"protocol": protocol, "password": password}
                    )
        await self._boot_order_after_reset(session)
        board = self.plan.board
        if board.memory_current < board.memory:
            await self._balloon(session, board.memory_current)
        self.gateway.open(session, password=self.plan.display.password is not None)
        if not paused:
            await session.execute("cont")

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

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def close(self) -> None:
        """Let go of everything; the process must have ended, or is left to another supervisor."""
        self.gateway.close()
        for console in self.consoles.values():
            console.close()
        if self.session is not None:
            await self.session.close()
        for helper in self.helpers:
            helper.close()
        self.process.close()
        self.log.close()

    def remove_sockets(self) -> None:
        """Remove the folder of sockets of a machine that has ended."""
        shutil.rmtree(self.plan.places.runtime, ignore_errors=True)


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
    """Make a folder of ours, private."""
    os.makedirs(path, mode=0o700, exist_ok=True)
