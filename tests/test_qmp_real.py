"""QMP sessions with a real QEMU that has no machine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qlaunch.errors import CommandError, SessionLostError, TimedOutError
from qlaunch.qmp.session import Session
from tests.prerequisites import both_qemus

pytestmark = [pytest.mark.qemu, both_qemus]

END_TIMEOUT = 5.0  # seconds


@asynccontextmanager
async def qemu_at(binary: str, path: str) -> AsyncIterator[Process]:
    """A QEMU whose monitor listens at `path`; killed at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(path)
        listener.listen(4)
        qemu = await asyncio.create_subprocess_exec(
            *(binary, "-no-user-config", "-nodefaults", "-machine", "none", "-S"),
            *("-display", "none", "-compat", "deprecated-input=reject"),
            "-chardev",
            f"socket,id=qmp,fd={listener.fileno()},server=on,wait=off",
            *("-mon", "chardev=qmp,mode=control"),
            pass_fds=[listener.fileno()],
            stdin=DEVNULL,
        )
    try:
        yield qemu
    finally:
        if qemu.returncode is None:
            qemu.kill()
        await asyncio.wait_for(qemu.wait(), END_TIMEOUT)


@asynccontextmanager
async def session_with(binary: str, folder: Path) -> AsyncIterator[tuple[Session, Process]]:
    path = str(folder / "qmp.sock")
    async with qemu_at(binary, path) as qemu:
        session = await Session.connect(path, name="xp")
        try:
            yield session, qemu
        finally:
            await session.close()


async def test_a_session_talks_with_qemu(qemu_binary: str, runtime_dir: Path) -> None:
    async with session_with(qemu_binary, runtime_dir) as (session, qemu):
        assert session.peer_pid == qemu.pid
        assert (await session.execute("query-version"))["qemu"]["major"] >= 7
        assert len(await session.execute("query-qmp-schema")) > 500
        with pytest.raises(CommandError, match="Device 'x' not found") as caught:
            await session.execute("device_del", {"id": "x"})
        assert caught.value.error_class == "DeviceNotFound"
        with session.expect("SHUTDOWN") as events:
            await session.execute("quit")
            assert (await events.get(timeout=2)).data["reason"] == "host-qmp-quit"
        await asyncio.wait_for(session.wait_lost(), 2)
        assert await asyncio.wait_for(qemu.wait(), END_TIMEOUT) == 0


async def test_a_second_session_gets_the_monitor_when_the_first_closes(
    qemu_binary: str, runtime_dir: Path
) -> None:
    path = str(runtime_dir / "qmp.sock")
    async with session_with(qemu_binary, runtime_dir) as (first, qemu):
        with pytest.raises(TimedOutError, match="did not greet"):
            await Session.connect(path, name="xp", timeout=0.1)
        await first.close()
        second = await Session.connect(path, name="xp")
        assert second.peer_pid == qemu.pid
        await second.close()


async def test_descriptors_arrive_in_qemu(
    qemu_binary: str, runtime_dir: Path, tmp_path: Path
) -> None:
    async with session_with(qemu_binary, runtime_dir) as (session, qemu):
        with (tmp_path / "disk").open("wb") as disk:
            await session.send_fd(disk.fileno(), "mem")
            number = await session.add_fd(disk.fileno(), opaque="disk0")
            assert await session.add_fd(disk.fileno(), fdset=number) == number
        await session.execute("closefd", {"fdname": "mem"})
        (fdset,) = await session.execute("query-fdsets")
        assert fdset["fdset-id"] == number
        for entry in fdset["fds"]:
            assert os.readlink(f"/proc/{qemu.pid}/fd/{entry['fd']}") == str(tmp_path / "disk")
        # QEMU 7.2 lets go of removed descriptors only while the guest runs.
        await session.execute("cont")
        await session.remove_fd(number)
        assert await session.execute("query-fdsets") == []


async def test_a_descriptor_that_was_given_up_keeps_its_place(
    qemu_binary: str, runtime_dir: Path, tmp_path: Path
) -> None:
    async with session_with(qemu_binary, runtime_dir) as (session, qemu):
        with (tmp_path / "1").open("wb") as first, (tmp_path / "2").open("wb") as second:
            qemu.send_signal(signal.SIGSTOP)
            with pytest.raises(TimedOutError):
                await session.add_fd(first.fileno(), fdset=1, timeout=0.1)
            qemu.send_signal(signal.SIGCONT)
            await session.add_fd(second.fileno(), fdset=2)
        for fdset in await session.execute("query-fdsets"):
            (entry,) = fdset["fds"]
            link = os.readlink(f"/proc/{qemu.pid}/fd/{entry['fd']}")
            assert link == str(tmp_path / str(fdset["fdset-id"]))


async def test_a_killed_qemu_is_a_lost_session(qemu_binary: str, runtime_dir: Path) -> None:
    async with session_with(qemu_binary, runtime_dir) as (session, qemu):
        called = asyncio.Event()
        session.on_lost(called.set)
        qemu.kill()
        await asyncio.wait_for(session.wait_lost(), 2)
        await asyncio.wait_for(called.wait(), 1)
        with pytest.raises(SessionLostError):
            await session.execute("query-status")


async def test_a_qemu_that_stands_still_is_a_time_out_and_goes_on_afterwards(
    qemu_binary: str, runtime_dir: Path
) -> None:
    async with session_with(qemu_binary, runtime_dir) as (session, qemu):
        qemu.send_signal(signal.SIGSTOP)
        with pytest.raises(TimedOutError, match="did not answer query-name"):
            await session.execute("query-name", timeout=0.1)
        qemu.send_signal(signal.SIGCONT)
        assert (await session.execute("query-status"))["status"] in ("prelaunch", "running")


async def test_a_session_with_a_qemu_that_stands_still_can_be_closed(
    qemu_binary: str, runtime_dir: Path
) -> None:
    async with session_with(qemu_binary, runtime_dir) as (session, qemu):
        qemu.send_signal(signal.SIGSTOP)
        with pytest.raises(TimedOutError):
            await session.execute("qom-set", {"value": "x" * 1_000_000}, timeout=0.1)
        await asyncio.wait_for(session.close(), 1)
