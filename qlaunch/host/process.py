"""Processes that this one started or found again, each held by a pidfd."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType

from qlaunch.errors import HostError
from qlaunch.facts.confinement import Confinement
from qlaunch.host.landlock import start_confined
from qlaunch.host.pidfd import Pidfd, ProcessId
from qlaunch.host.procfs import parent

__all__ = ["Pidfd", "Process", "ProcessId"]

REAP_TIMEOUT = 0.2
"""How long the exit status of a process that is not our child may take to be told."""

_left_running: set[int] = set()
# Statuses that were taken before anybody asked.
_statuses: dict[int, int] = {}


class Process:
    """One process, ours or adopted. Close it when it is no longer of interest; it goes on."""

    def __init__(
        self, pidfd: Pidfd, identity: ProcessId, child: subprocess.Popen[bytes] | None
    ) -> None:
        self.id = identity
        self._pidfd = pidfd
        self._child = child
        self._status: int | None = None
        self._adopted_child = identity.pid in _left_running
        self._ended = False
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        stdout_fd: int | None = None,
        stderr_fd: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        confinement: Confinement | None = None,
        dies_with_us: bool = False,
    ) -> Process:
        """Start `argv` in a session of its own, stdin empty, with `pass_fds` under their numbers.

        It outlives this process, unless it `dies_with_us` by a death signal that it sets itself.
        What has no descriptor of its own goes to /dev/null. With a `confinement` it may touch
        nothing else, as far as this kernel can see to that.

        Raises: HostError when it cannot be started.
        """
        _reap_left_running()
        nothing = subprocess.DEVNULL

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                list(argv),
                stdin=nothing,
                stdout=nothing if stdout_fd is None else stdout_fd,
                stderr=nothing if stderr_fd is None else stderr_fd,
                close_fds=True,
                pass_fds=tuple(pass_fds),
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )

        try:
            if confinement is None:
                child = start()
            else:
                child = start_confined(confinement, start, stay=dies_with_us)
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            raise HostError(f"{argv[0]} cannot be started: {words}") from error
        # Our child keeps its number until we reap it, so this is race-free.
        pidfd = Pidfd.of(child.pid)
        return cls(pidfd, ProcessId.of(child.pid), child)

    @classmethod
    def adopt(cls, identity: ProcessId) -> Process | None:
        """The process that an earlier supervisor started, None when it has ended.

        When that supervisor was this process before its exec, it is our child and we reap it.
        """
        pidfd = identity.open()
        if pidfd is not None and parent(identity.pid) == os.getpid():
            _left_running.add(identity.pid)
            _statuses.pop(identity.pid, None)
        return None if pidfd is None else cls(pidfd, identity, None)

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its number, for messages and look-ups; never for a signal."""
        return self.id.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended. Cheap, asks the kernel; after `close`, what was known then."""
        if not self._ended and not self._closed and self._pidfd.ended:
            self._note_end()
        return self._ended

    @property
    def exit_status(self) -> int | None:
        """Its exit status, or minus a signal's number; None while it lives or if nobody tells."""
        if self.ended and self._status is None and self._child is None and not self._closed:
            self._status = self._pidfd.exit_status()
        return self._status

    def send_signal(self, number: int) -> bool:
        """Send it a signal; False when it has ended.

        Raises: PermissionError when it belongs to somebody else.
        """
        return not self.ended and not self._closed and self._pidfd.send_signal(number)

    async def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end and return its exit status, None where nobody tells us.

        A child of ours is reaped. Any number of tasks may wait. `close` ends the wait, with None
        when it still lives.

        Raises: TimeoutError (the built-in one) when it lives longer than `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while not self.ended and not self._closed:
                await self._wait_readable()
        if self._child is None and self.exit_status is None and not self._closed:
            await self._wait_reaped()
        return self.exit_status

    def close(self) -> None:
        """Let go of it. It goes on, and may be adopted later; closing twice does no harm."""
        if self._closed:
            return
        self._on_readable()
        if self._child is not None and not self.ended:
            _left_running.add(self._child.pid)
            # Popen warns of a child it has to leave running: here that is the purpose.
            self._child.returncode = 0
        self._closed = True
        self._pidfd.close()

    def _note_end(self) -> None:
        self._ended = True
        if self._child is not None:
            self._status = self._child.poll()
        elif self.pid in _left_running:  # our child all the same, let go and found again
            self._status = _reap(self.pid)
        elif self._adopted_child:
            self._status = _statuses.pop(self.pid, None)

    async def _wait_readable(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        if self._loop is None:
            self._loop = loop
            loop.add_reader(self._pidfd.fileno(), self._on_readable)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._waiters:
                self._stop_reading()

    def _on_readable(self) -> None:
        self._stop_reading()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _stop_reading(self) -> None:
        if self._loop is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._pidfd.fileno())
            self._loop = None

    async def _wait_reaped(self) -> None:
        # A pidfd stays readable from the end on, so the hang-up that tells of the reaping needs an
        # epoll of its own, which asks for nothing else. Kernels before 6.9 never send it.
        if self._pidfd.inode is None:
            return
        loop = asyncio.get_running_loop()
        reaped = asyncio.Event()
        with select.epoll() as poll:
            poll.register(self._pidfd.fileno(), 0)
            loop.add_reader(poll.fileno(), reaped.set)
            try:
                async with asyncio.timeout(REAP_TIMEOUT):
                    await reaped.wait()
            except TimeoutError:
                pass  # its parent does not care; then nobody is told
            finally:
                loop.remove_reader(poll.fileno())


def _reap_left_running() -> None:
    for pid in tuple(_left_running):
        if (status := _reap(pid)) is not None:
            _statuses[pid] = status


def _reap(pid: int) -> int | None:
    """Take the exit status of a child that was let go, None while it lives."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        _left_running.discard(pid)
        return None
    if not ended:
        return None
    _left_running.discard(pid)
    return os.waitstatus_to_exitcode(status)
