"""The memory of a machine brought back from its file, into the QEMU that runs or into a new one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

from qlaunch.aio import finish
from qlaunch.errors import CommandError, HostError, QlaunchError, TimedOutError
from qlaunch.host.qcow2_write import STREAM_AT, create_overlay, read_wrapped
from qlaunch.machine import live
from qlaunch.machine.memory import BANDWIDTH, FD_NAME, TAG, Progress
from qlaunch.qmp.session import Session

LOAD_JOB = "qlaunch-load"
LOAD_TIMEOUT = 3600.0
_POLL, _POLL_MOST = 0.001, 0.1


class MemoryLoadError(CommandError):
    """The memory could not be loaded. This QEMU is in no state to go on; a new one may be."""


def check_file(path: str) -> int:
    """A descriptor of the memory file at `path`. Raises: HostError, RefusedError."""
    fd = live.open_file(path, os.O_RDONLY)
    try:
        read_wrapped(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def load_in_process(
    session: Session,
    path: str,
    *,
    node: str = "memory",
    step: Callable[[str], None] = lambda name: None,
) -> None:
    """Load the memory file at `path` into the stopped machine; the file stays as it is.

    Raises: RefusedError, HostError when the file cannot be used: nothing has happened then;
    MemoryLoadError: the machine must not go on in this QEMU then.
    """
    os.close(check_file(path))
    nodes = _names(node)
    sets: list[int] = []
    made: list[str] = []
    try:
        for command in await _load_nodes(session, path, nodes, sets):
            await _add(session, command)
            made.append(str(command["node-name"]))
        step("revert: memory added")
        await _run_load(session, node)
    finally:
        await finish(_remove(session, made, sets))


def _names(node: str) -> list[str]:
    return [f"{node}-raw-file", f"{node}-raw", f"{node}-cow-file", f"{node}-cow", node]


async def remove_left(session: Session, *, node: str = "memory") -> None:
    """Take away the nodes of a load that was cut off, as far as QEMU lets them go."""
    await _remove(session, _names(node), [])


async def _add(session: Session, node: dict[str, Any]) -> None:
    try:
        await session.execute("blockdev-add", node)
    except CommandError as error:
        # Not built in, or not allowed here (kernel.io_uring_disabled).
        if "aio" not in node:
            raise MemoryLoadError(f"the memory could not be added: {error.message}") from error
        plain = {key: value for key, value in node.items() if key != "aio"}
        await _add(session, plain)


async def _load_nodes(
    session: Session, path: str, names: list[str], sets: list[int]
) -> list[dict[str, Any]]:
    """The nodes over a memory file. QEMU counts references in it while it loads; that goes to an
    overlay which is thrown away."""
    raw_file, raw, cow_file, cow, top = names
    overlay = f"{path}.load"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(overlay)  # of a load that was cut off
    size = os.stat(path).st_size
    create_overlay(overlay, size=size, backing=None, backing_format=None)
    try:
        sets.append(await live.hand_over(session, path, write=False))
        sets.append(await live.hand_over(session, overlay, write=True))
    finally:
        os.unlink(overlay)
    return [
        # Read in pieces of 32 KiB, one after the other: with io_uring 400 MiB take 0.2 s, by way
        # of the thread pool 0.7 s (QEMU 7.2).
        {"driver": "file", "node-name": raw_file, "filename": f"/dev/fdset/{sets[0]}",
         "read-only": True, "auto-read-only": False, "aio": "io_uring"},
        {"driver": "raw", "node-name": raw, "file": raw_file, "read-only": True},
        {"driver": "file", "node-name": cow_file, "filename": f"/dev/fdset/{sets[1]}",
         "cache": {"direct": False, "no-flush": True}},
        {"driver": "qcow2", "node-name": cow, "file": cow_file, "backing": raw,
         "cache": {"direct": False, "no-flush": True}},
        {"driver": "qcow2", "node-name": top, "file": cow, "backing": None,
         "cache": {"direct": False, "no-flush": True}},
    ]  # fmt: skip


async def _run_load(session: Session, node: str) -> None:
    arguments = {"job-id": LOAD_JOB, "tag": TAG, "vmstate": node, "devices": [node]}
    try:
        await session.execute("snapshot-load", arguments)
        async with asyncio.timeout(LOAD_TIMEOUT):
            while True:
                jobs: list[dict[str, Any]] = await session.execute("query-jobs")
                mine = next((job for job in jobs if job["id"] == LOAD_JOB), None)
                if mine is None or mine["status"] == "concluded":
                    break
                await asyncio.sleep(_POLL)
        if mine is not None:
            await session.execute("job-dismiss", {"id": LOAD_JOB})
    except TimeoutError:
        raise MemoryLoadError(f"the memory was not loaded in {LOAD_TIMEOUT:g} s") from None
    except CommandError as error:
        raise MemoryLoadError(f"the memory could not be loaded: {error.message}") from error
    if mine is not None and mine.get("error"):
        raise MemoryLoadError(f"the memory could not be loaded: {mine['error']}")


async def _remove(session: Session, nodes: list[str], sets: list[int]) -> None:
    with contextlib.suppress(QlaunchError):
        for name in reversed(nodes):
            with contextlib.suppress(CommandError):
                await session.execute("blockdev-del", {"node-name": name})
        for number in sets:
            await live.take_back(session, number)


async def load_incoming(session: Session, path: str, *, progress: Progress | None = None) -> None:
    """Load the memory file at `path` into a QEMU that was started with `-incoming defer`. The guest
    is stopped afterwards.

    Raises: RefusedError, HostError for the file; CommandError with QEMU's words, SessionLostError
    when it ended over it, TimedOutError.
    """
    fd = check_file(path)
    try:
        os.lseek(fd, STREAM_AT, os.SEEK_SET)
        await session.execute("migrate-set-parameters", {"max-bandwidth": BANDWIDTH})
        await session.send_fd(fd, FD_NAME)
    finally:
        os.close(fd)
    await session.execute("migrate-incoming", {"uri": f"fd:{FD_NAME}"})
    pause = _POLL
    try:
        async with asyncio.timeout(LOAD_TIMEOUT):
            while (state := await _incoming(session))["status"] != "completed":
                ram = state.get("ram") or {}
                if progress is not None:
                    progress(int(ram.get("transferred", 0)), int(ram.get("total", 0)))
                await asyncio.sleep(pause)
                pause = min(_POLL_MOST, pause * 1.5)
    except TimeoutError:
        raise TimedOutError(f"the memory was not loaded in {LOAD_TIMEOUT:g} s") from None


async def _incoming(session: Session) -> dict[str, Any]:
    state: dict[str, Any] = await session.execute("query-migrate")
    state.setdefault("status", "none")
    if state["status"] in ("failed", "cancelled"):
        raise HostError(
            f"the saved memory could not be loaded: {state.get('error-desc') or state['status']}"
        )
    return state
