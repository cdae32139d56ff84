"""The memory of a running machine, written to a file while it runs.

A memory file is QEMU's migration stream with qcow2 metadata around it (`host.qcow2_write`). So one
file serves both ways: the running QEMU loads it as a VM state, a new one as a migration
(`machine.memory_load`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from attrs import frozen

from qlaunch.aio import finish
from qlaunch.errors import CommandError, QlaunchError, RefusedError, TimedOutError
from qlaunch.host.newfile import write_error
from qlaunch.host.qcow2_write import STREAM_AT, wrap_stream
from qlaunch.host.reserve import give_back, reserve
from qlaunch.qmp.session import Session
from qlaunch.store import files

TAG = "qlaunch"
FD_NAME = "qlaunch-memory"
BANDWIDTH = 1 << 40  # bytes a second; QEMU's own limit is 128 MiB
# Video memory, firmware and the state of devices, besides the memory.
SPARE_ROOM = 256 << 20
STOP_TIMEOUT = 30.0
# A dead disk must not keep the guest stopped for ever; memory is written at disk speed.
SAVE_TIMEOUT = 3600.0
FIRST_PAGE_TIMEOUT = 60.0
CANCEL_TIMEOUT = 30.0
_BACKGROUND = "background-snapshot"
_POLL, _POLL_MOST = 0.001, 0.1

Progress = Callable[[int, int], None]


@frozen(kw_only=True)
class Report:
    """How memory was saved: in the background or with the guest stopped (`reason` says why), for
    how many seconds it was stopped, the bytes written and the seconds until all was on the disk."""

    background: bool
    reason: str
    stopped: float
    bytes: int
    seconds: float


async def check_allowed(session: Session) -> None:
    """Raises: RefusedError when there is a device whose state QEMU cannot save: NVMe for one."""
    state: dict[str, Any] = await session.execute("query-migrate")
    if reasons := state.get("blocked-reasons"):
        raise RefusedError(
            f"{session.name}: its memory cannot be saved: {reasons[0]}",
            hint="`snapshot create --disks-only` takes the disks alone",
        )


async def save_live(
    session: Session,
    path: str,
    *,
    switch: Callable[[], Awaitable[None]] | None,
    progress: Progress,
    resume: bool = True,
) -> Report:
    """Write the machine's memory to the new file `path`, as of one moment at which `switch` is
    awaited with the guest stopped.

    The guest goes on as soon as it can: at once where the kernel lets QEMU write the memory behind
    it, else at the end. One that did not run, or with `resume` false, stays stopped. On failure the
    file is gone and the guest runs if it ran.

    Raises: HostError, CommandError, SessionLostError, TimedOutError; what `switch` raises.
    """
    begun = time.monotonic()
    runs = await _status(session) == "running"
    with new_file(path) as fd:
        os.lseek(fd, STREAM_AT, os.SEEK_SET)
        background, reason = False, "it did not run"
        if runs and resume:
            background, reason = await _allow_background(session, fd)
        if not background:
            await _capability(session, on=False)
        await session.execute("migrate-set-parameters", {"max-bandwidth": BANDWIDTH})
        await session.send_fd(fd, FD_NAME)
        try:
            stopped = await _write(session, switch, progress, background, runs and resume)
        except BaseException:
            await finish(_undo(session, go=runs))
            raise
        # QEMU writes through a duplicate of our descriptor: they share the position.
        length = os.lseek(fd, 0, os.SEEK_CUR) - STREAM_AT
        await finish(asyncio.to_thread(wrap, fd, path, length))
    return Report(
        background=background,
        reason=reason,
        stopped=stopped,
        bytes=length,
        seconds=time.monotonic() - begun,
    )


@contextlib.contextmanager
def new_file(path: str) -> Iterator[int]:
    """A descriptor of the new memory file `path`, to be written from `STREAM_AT` on and then given
    to `wrap`. It is gone when the block fails. Raises: HostError."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        # One that was cut off earlier is nobody's: no snapshot names it.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(fd)


def wrap(fd: int, path: str, length: int) -> None:
    """Make the memory file `path` complete, whose stream has `length` bytes. Raises: HostError."""
    try:
        give_back(fd)
        wrap_stream(fd, tag=TAG, length=length)
        files.sync_dir(os.path.dirname(path))
    except OSError as error:
        raise write_error(path, error) from error


async def _status(session: Session) -> str:
    answer: dict[str, Any] = await session.execute("query-status")
    return str(answer["status"])


async def _allow_background(session: Session, fd: int) -> tuple[bool, str]:
    """Whether QEMU can write the memory to `fd` while the guest runs, and why not.

    It takes userfaultfd with write protection, which ordinary users often lack; and room for all
    of the memory: when writing fails, nobody lets the guest write to protected memory any more. A
    guest that waits for that in a device of QEMU's then stops QEMU for good (7.2, TCG).
    """
    memory: dict[str, Any] = await session.execute("query-memory-size-summary")
    needed = int(memory["base-memory"]) + int(memory.get("plugged-memory", 0)) + SPARE_ROOM
    if not await asyncio.to_thread(reserve, fd, needed):
        return False, "there is less room on the disk than the machine has memory"
    try:
        await _capability(session, on=True)
    except CommandError as error:
        return False, error.message
    return True, ""


async def _capability(session: Session, *, on: bool) -> None:
    """Say how the next save is to be done.

    It is not to be taken back when a save has ended: QEMU (7.2, 10.0) cleans up a moment later, and
    looks then whether it was one in the background. Told otherwise, it would leave the memory
    protected, and hang at the next write to it.
    """
    wanted = [{"capability": _BACKGROUND, "state": on}]
    await session.execute("migrate-set-capabilities", {"capabilities": wanted})


async def _write(
    session: Session,
    switch: Callable[[], Awaitable[None]] | None,
    progress: Progress,
    background: bool,
    go: bool,
) -> float:
    """Stop, `switch`, write. Returns: for how many seconds the guest was stopped."""
    begun = time.monotonic()
    await session.execute("stop", timeout=STOP_TIMEOUT)
    if switch is not None:
        await switch()
    await session.execute("migrate", {"uri": f"fd:{FD_NAME}"})
    if background:
        await _until_protected(session)
        if await _status(session) != "running":  # QEMU up to 8.0 lets it go on by itself
            await session.execute("cont")
        stopped = time.monotonic() - begun
        await _until_written(session, progress)
        return stopped
    await _until_written(session, progress)
    if go:
        # `postmigrate` is a state of its own; the guest goes on from it all the same.
        await session.execute("cont")
    return time.monotonic() - begun


async def _until_protected(session: Session) -> None:
    """Wait until the devices' state is out and the memory is protected: with its first page."""
    try:
        async with asyncio.timeout(FIRST_PAGE_TIMEOUT):
            while True:
                state = await _migration(session)
                ram = state.get("ram") or {}
                if state["status"] == "completed" or ram.get("normal", 0) + ram.get("duplicate", 0):
                    return
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise TimedOutError("QEMU does not begin to write the memory") from None


async def _until_written(session: Session, progress: Progress) -> None:
    pause = _POLL
    try:
        async with asyncio.timeout(SAVE_TIMEOUT):
            while (state := await _migration(session))["status"] != "completed":
                ram = state.get("ram") or {}
                total = int(ram.get("total", 0))
                progress(total - int(ram.get("remaining", total)), total)
                await asyncio.sleep(pause)
                pause = min(_POLL_MOST, pause * 1.5)
    except TimeoutError:
        raise TimedOutError(f"the memory was not written in {SAVE_TIMEOUT:g} s") from None


async def _migration(session: Session) -> dict[str, Any]:
    """`query-migrate`. Raises: CommandError when it has failed or was cancelled."""
    state: dict[str, Any] = await session.execute("query-migrate")
    state.setdefault("status", "none")
    if state["status"] in ("failed", "cancelled", "cancelling"):
        words = state.get("error-desc") or state["status"]
        raise CommandError(f"the memory could not be written: {words}")
    return state


async def _undo(session: Session, *, go: bool) -> None:
    with contextlib.suppress(QlaunchError):
        await abandon(session)
        if go and await _status(session) != "running":
            await session.execute("cont")


async def abandon(session: Session) -> None:
    """End a save that somebody began and left. Raises: CommandError, SessionLostError."""
    state: dict[str, Any] = await session.execute("query-migrate")
    if state.get("status") in ("setup", "active", "device", "pre-switchover", "cancelling"):
        await session.execute("migrate_cancel")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_TIMEOUT):
                await _until_cancelled(session)
    with contextlib.suppress(CommandError):
        await session.execute("closefd", {"fdname": FD_NAME})


async def _until_cancelled(session: Session) -> None:
    while True:
        state: dict[str, Any] = await session.execute("query-migrate")
        if state.get("status") not in ("setup", "active", "device", "cancelling"):
            return
        await asyncio.sleep(_POLL)
