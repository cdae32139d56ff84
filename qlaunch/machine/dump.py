"""A guest's memory in a file, for crash analysis (`crash`, WinDbg by way of volatility)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from qlaunch.aio import finish
from qlaunch.errors import CommandError, HostError, TimedOutError, UsageError
from qlaunch.machine.machine import Machine
from qlaunch.qmp.events import Event, Expectation
from qlaunch.qmp.session import Session
from qlaunch.store.files import no_write, sync_dir
from qlaunch.units import short_size

FORMATS = ("kdump-zlib", "kdump-lzo", "kdump-snappy", "elf", "win-dmp")
POLL = 0.2
QUERY_TIMEOUT = 10.0
# Of a guest with much memory, on a slow disk.
DUMP_TIMEOUT = 3600.0
# Of the disk, beyond the dump.
SPARE = 16 << 20
Progress = Callable[[int, int], None]


async def dump(machine: Machine, path: str, form: str, progress: Progress) -> int:
    """Write the guest's memory to the new file `path`; the guest stands still meanwhile.

    QEMU cannot give it up half-way: for who does not want to wait it is written and removed.

    Returns: the file's size in bytes.
    Raises: UsageError, HostError when the file cannot be made or the disk is full, CommandError.
    """
    session = machine.talk()
    known = (await session.execute("query-dump-guest-memory-capability"))["formats"]
    if form not in known:
        usable = ", ".join(each for each in FORMATS if each in known)
        raise UsageError(f"this QEMU writes no {form}", hint=f"it can: {usable}")
    file = _create(path, machine.plan.board.memory)
    try:
        await finish(_dump(session, file, form, progress))
        await asyncio.to_thread(os.fsync, file)
        size = os.fstat(file).st_size
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(file)
    sync_dir(os.path.dirname(path))
    return size


def _create(path: str, most: int) -> int:
    """Raises: HostError."""
    folder = os.path.dirname(path)
    try:
        facts = os.statvfs(folder)
        free = facts.f_bavail * facts.f_frsize
        if free < most + SPARE:
            raise HostError(
                f"{folder} has {short_size(free)} free; the dump may need {short_size(most)}",
                hint="name a file in another folder: a full disk would stop the guest, too",
            )
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise HostError(f"{path} exists already; it is not replaced") from None
    except OSError as error:
        raise no_write(path, error) from error


async def _dump(session: Session, file: int, form: str, progress: Progress) -> None:
    with session.expect("DUMP_COMPLETED") as ends:
        # The compressed formats are written here and there, so it has to be a file and no pipe.
        await session.send_fd(file, "dump")
        arguments = {"paging": False, "protocol": "fd:dump", "detach": True}
        arguments |= {} if form == "elf" else {"format": form}
        await session.execute("dump-guest-memory", arguments)
        async with asyncio.timeout(DUMP_TIMEOUT):
            event = await _end(session, ends, progress)
    if error := event.data.get("error"):
        raise CommandError(f"the dump failed: {error}")


async def _end(session: Session, ends: Expectation, progress: Progress) -> Event:
    while True:
        try:
            return await ends.get(POLL)
        except TimedOutError:
            state = await session.execute("query-dump", timeout=QUERY_TIMEOUT)
            progress(int(state["completed"]), int(state["total"]))
