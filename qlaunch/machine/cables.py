"""What network cards are plugged into: TAPs of a network service, passt, and the doors to guests.

A TAP is there for as long as QEMU has it, so nothing of it is kept here. passt is a process of
ours, one a card. QEMU listens for it: where it ends, another takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import Factory, define, evolve

from qlaunch import records
from qlaunch.aio import Spawner, finish
from qlaunch.argv import cables as words
from qlaunch.errors import ConflictError, HostError, NotFoundError, QlaunchError
from qlaunch.host.process import Process, ProcessId
from qlaunch.host.sockets import bind_unix, connect_unix
from qlaunch.machine import reach
from qlaunch.machine.doors import Doors
from qlaunch.machine.handles import Opened
from qlaunch.machine.log import MachineLog, last_words
from qlaunch.machine.machine import Machine, end_process
from qlaunch.machine.network import service_of
from qlaunch.machine.secrets import environment_for_qemu
from qlaunch.network.client import Attached
from qlaunch.plan.model import Nic, Plan
from qlaunch.plan.nics import own_forwards
from qlaunch.qmp.session import Session
from qlaunch.store import machines

# How long passt may take until it has bound its ports; measured: 10 to 40 ms.
PASST_TIMEOUT = 10.0
_POLL = 0.002
Step = Callable[[str, str, float], None]


@define(kw_only=True, eq=False)
class Cables:
    """The cables of one machine's network cards."""

    name: str
    log: MachineLog
    group: Spawner
    nics: dict[str, Nic] = Factory(dict)
    passts: dict[str, Process] = Factory(dict)
    _doors: Doors | None = None

    @property
    def doors(self) -> Doors:
        if self._doors is None:
            self._doors = Doors(self.log.say, self.group, self._dial)
        return self._doors

    async def _dial(self, ident: str, port: int) -> socket.socket:
        nic = self.nics.get(ident)
        if nic is None:
            raise NotFoundError(f"{self.name} has no card {ident}")
        return await reach.dial(self.name, nic, port)

    # ---- a start --------------------------------------------------------------------------------

    async def open(self, plan: Plan, opened: Opened, step: Step) -> None:
        """Plug every card in before QEMU is started; what it needs goes to `opened`.

        Raises: what the network service says, ConflictError naming who has a port, HostError.
        """
        for nic in plan.nics:
            begun = time.monotonic()
            self.nics[nic.id] = nic
            if nic.attachment is not None:
                attached = await self.attach(nic)
                opened.stack.callback(attached.close)
                opened.cables[nic.id] = words.Cable(
                    fds=tuple(map(str, attached.fds)), vhost_fds=tuple(map(str, attached.vhost_fds))
                )
                at = f", {attached.ipv4}" if attached.ipv4 else ""
                text = f"{nic.id} on {nic.attachment.network} ({nic.backend}){at}"
                step("network", text, time.monotonic() - begun)
            elif nic.backend == "passt":
                listener = await self.start_passt(nic)
                opened.stack.callback(listener.close)
                opened.cables[nic.id] = words.Cable(fds=(str(listener.fileno()),))

    async def attach(self, nic: Nic) -> Attached:
        """Plug the card into its network; the descriptors of its TAP are the caller's."""
        assert nic.attachment is not None
        self.doors.change(nic.id, own_forwards(nic))
        self.nics[nic.id] = nic
        try:
            service = await service_of(nic.backend, start=True)
            return await service.attach(self.name, nic.id, nic.attachment)
        except BaseException:
            self.doors.change(nic.id, ())
            raise

    def saved(self) -> dict[str, Any]:
        """The processes of passt, for the note of what runs."""
        return {ident: records.to_plain(each.id) for ident, each in self.passts.items()}

    # ---- passt ----------------------------------------------------------------------------------

    async def start_passt(self, nic: Nic) -> socket.socket:
        """A socket for QEMU to listen on, with passt already waiting there."""
        assert nic.netdev is not None
        listener = bind_unix(nic.netdev["addr"]["path"])
        try:
            await self.renew_passt(nic)
        except BaseException:
            listener.close()
            raise
        return listener

    async def renew_passt(self, nic: Nic) -> None:
        """Have a new passt for the card; one that is there ends first.

        Raises: HostError, or ConflictError, with passt's own last words.
        """
        await self.end_passt(nic.id)
        assert nic.netdev is not None
        self.nics[nic.id] = nic
        since = self.log.position()
        with await connect_unix(nic.netdev["addr"]["path"]) as client:
            number = client.fileno()
            client.setblocking(True)  # noqa: FBT003  # its name for it
            process = Process.spawn(
                words.passt(nic, number),
                pass_fds=[number],
                stdout_fd=self.log.fd,
                stderr_fd=self.log.fd,
                env=environment_for_qemu(os.environ, []),
                cwd="/",
            )
        self.passts[nic.id] = process
        try:
            await _until_ready(process)
        except TimeoutError:
            await finish(self.end_passt(nic.id))
            raise HostError(f"{nic.id}: passt does not start") from None
        except BaseException:
            await finish(self.end_passt(nic.id))
            raise
        if process.ended:
            await self.end_passt(nic.id)
            raise _passt_error(nic, self.log.qemu_words(since))

    async def end_passt(self, ident: str) -> None:
        """End the card's passt, if it has one."""
        process = self.passts.pop(ident, None)
        if process is not None:
            await end_process(process)

    # ---- cards that come, change and go ---------------------------------------------------------

    async def hand_over(self, nic: Nic, session: Session) -> words.Cable | None:
        """Open what the card is plugged into and give it to a QEMU that runs (`getfd`).

        Raises: as `open`; CommandError, SessionLostError. `forget` is the caller's then.
        """
        self.nics[nic.id] = nic
        if nic.attachment is not None:
            attached = await self.attach(nic)
            try:
                cable = words.names(nic, vhost=bool(attached.vhost_fds))
                for fd, name in zip(attached.fds, cable.fds, strict=True):
                    await session.send_fd(fd, name)
                for fd, name in zip(attached.vhost_fds, cable.vhost_fds, strict=False):
                    await session.send_fd(fd, name)
            finally:
                attached.close()
            return cable
        if nic.backend == "passt":
            cable = words.names(nic)
            with await self.start_passt(nic) as listener:
                await session.send_fd(listener.fileno(), cable.fds[0])
            return cable
        return None

    async def forget(self, nic: Nic) -> None:
        """The card is gone: so are its doors, its passt, and what the network kept for it."""
        self.nics.pop(nic.id, None)
        self.doors.change(nic.id, ())
        await self.end_passt(nic.id)
        if nic.backend == "passt" and nic.netdev is not None:
            with contextlib.suppress(OSError):
                os.unlink(nic.netdev["addr"]["path"])
        if nic.attachment is not None:
            try:
                service = await service_of(nic.backend)
                await service.detach(self.name, nic.id)
            except NotFoundError:
                return
            except QlaunchError as error:
                self.log.say(f"{nic.id}: the network service was not told: {error.message}")

    # ---- an earlier supervisor's machine --------------------------------------------------------

    async def adopt(self, nics: Iterable[Nic], saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over the cables of cards that QEMU has: passt is started where it has ended."""
        for nic in nics:
            if nic.id in self.nics:
                continue
            self.nics[nic.id] = nic
            try:
                if nic.attachment is not None:
                    self.doors.change(nic.id, own_forwards(nic))
                elif nic.backend == "passt":
                    process = _recorded(saved.get(nic.id))
                    if process is not None:
                        self.passts[nic.id] = process
                    else:
                        await self.renew_passt(nic)
            except QlaunchError as error:
                self.log.say(f"{nic.id}: {error.message}")

    def close(self) -> None:
        """Let go of all; the machine and its passts go on."""
        if self._doors is not None:
            self._doors.close()
        for process in self.passts.values():
            process.close()

    async def clear_away(self) -> None:
        """End what stood around a QEMU that has ended."""
        for ident in list(self.passts):
            await self.end_passt(ident)


async def note_passts(machine: Machine) -> None:
    """Keep which processes the passts are now, so that the next supervisor finds them.

    Raises: HostError.
    """
    assert machine.cables is not None
    record = await asyncio.to_thread(machines.load_run, machine.name)
    if record is not None:
        fresh = evolve(record, passts=machine.cables.saved())
        if fresh != record:
            await finish(asyncio.to_thread(machines.save_run, machine.name, fresh))


def _recorded(plain: Mapping[str, Any] | None) -> Process | None:
    if plain is None:
        return None
    try:
        return Process.adopt(records.from_plain(ProcessId, plain))
    except records.RecordError:
        return None


async def _until_ready(process: Process) -> None:
    """Wait until passt has bound its ports, or has ended. Raises: TimeoutError."""
    async with asyncio.timeout(PASST_TIMEOUT):
        while not (process.ended or _is_confined(process.pid)):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(_POLL)


def _is_confined(pid: int) -> bool:
    """Whether passt has confined itself, which it does last: its ports are bound by then. It says
    so nowhere else in the foreground; its pid file it could not write as another user."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return "\nSeccomp:\t2" in file.read()
    except OSError:
        return False


def _passt_error(nic: Nic, said: list[str]) -> QlaunchError:
    words_of_passt = last_words([line for line in said if "to syslog" not in line])
    text = f"{nic.id}: passt ended at once: {words_of_passt}"
    taken = "bind" in words_of_passt or "in use" in words_of_passt
    return (ConflictError if taken else HostError)(text, hint="`qlaunch logs` shows all it said")
