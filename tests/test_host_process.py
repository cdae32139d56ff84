"""Processes: started, waited for, found again, never mistaken for others."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from attrs import evolve

from qlaunch.errors import HostError, NotFoundError, TimedOutError
from qlaunch.host.pidfd import Pidfd
from qlaunch.host.process import Process, ProcessId
from qlaunch.host.procfs import boot_id, describe, start_ticks
from qlaunch.host.tool import run_tool
from qlaunch.host.usage import cpu_percent, usage
from qlaunch.records import from_plain, to_plain

PIDFD_TELLS_STATUS = (6, 15)
SHOW = """
import os, sys
print("words", file=sys.stderr)
assert sys.stdin.read() == ""
leads = os.getsid(0) == os.getpid()
os.write(int(sys.argv[1]), f"{os.environ['WORD']} {os.getcwd()} {leads}".encode())
"""


@asynccontextmanager
async def running(*argv: str) -> AsyncIterator[Process]:
    process = Process.spawn(argv or ("sleep", "1000"))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait(5)
        process.close()


@contextmanager
def child(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process that somebody else has started, as far as `Process` knows."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as started:
        yield started


def gone(*argv: str) -> int:
    """The number of a process that is no more."""
    with child(*argv) as started:
        pass
    return started.pid


@pytest.mark.parametrize(
    "script,status", [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", -9), ("kill -15 $$", -15)]
)
async def test_the_exit_status_of_a_child_is_told(script: str, status: int) -> None:
    async with Process.spawn(["sh", "-c", script]) as process:
        assert await process.wait(5) == status
        assert (process.ended, process.exit_status) == (True, status)
        assert await process.wait() == status
        assert not process.send_signal(signal.SIGTERM)


async def test_a_wait_has_a_limit_and_can_be_repeated() -> None:
    async with running() as process:
        with pytest.raises(TimeoutError):
            await process.wait(0.01)
        assert (process.ended, process.exit_status) == (False, None)
        assert process.send_signal(signal.SIGTERM)
        assert await process.wait(5) == -signal.SIGTERM


async def test_several_tasks_may_wait_and_one_may_give_up() -> None:
    async with running() as process:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(process.wait()) for _ in range(3)]
            quitter = group.create_task(process.wait())
            await asyncio.sleep(0)
            quitter.cancel()
            await asyncio.sleep(0)
            process.send_signal(signal.SIGKILL)
        assert [task.result() for task in waiting] == [-9, -9, -9]


async def test_closing_ends_a_wait_and_leaves_the_process_alone() -> None:
    async with running() as owner:
        other = Process.adopt(owner.id)
        assert other is not None
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(other.wait())
            await asyncio.sleep(0)
            other.close()
            other.close()
        assert waiting.result() is None
        assert not owner.ended


async def test_a_process_gets_its_descriptors_environment_and_session(own_place: Path) -> None:
    reading, writing = os.pipe()
    error = os.memfd_create("error")
    process = Process.spawn(
        [sys.executable, "-c", SHOW, str(writing)],
        pass_fds=[writing],
        stderr_fd=error,
        env={"WORD": "hello", "PATH": os.environ["PATH"]},
        cwd=str(own_place),
    )
    os.close(writing)
    async with process:
        assert await process.wait(5) == 0
    assert os.read(reading, 1000).decode() == f"hello {own_place} True"
    assert os.pread(error, 1000, 0) == b"words\n"
    os.close(reading)
    os.close(error)


@pytest.mark.parametrize("argv", [["/no/such/program"], ["/etc/passwd"], ["a\0b"]])
def test_what_cannot_be_started_is_told(argv: list[str]) -> None:
    with pytest.raises(HostError, match="cannot be started"):
        Process.spawn(argv)


async def test_a_child_may_be_left_running_without_a_warning() -> None:
    process = Process.spawn(["sleep", "1000"])
    identity = process.id
    process.close()
    del process
    gc.collect()
    again = Process.adopt(identity)
    assert again is not None
    again.send_signal(signal.SIGKILL)
    assert await again.wait(5) == -signal.SIGKILL
    again.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(identity.pid, os.WNOHANG)


async def test_a_child_that_was_left_is_reaped_by_the_next_start() -> None:
    process = Process.spawn(["sleep", "1000"])
    with Pidfd.of(process.pid) as left:
        process.close()
        left.send_signal(signal.SIGKILL)
        assert select.select([left], [], [], 5)[0]
        async with running("true") as other:
            await other.wait(5)
        assert left.reaped or left.inode is None


async def test_an_adopted_process_is_waited_for_and_tells_its_status(own_place: Path) -> None:
    os.mkfifo(own_place / "go")
    script = f"sh -c 'read word <{own_place}/go; exit 7' & echo $!; wait"
    with child("sh", "-c", script) as parent:
        assert parent.stdout is not None
        saved = to_plain(ProcessId.of(int(parent.stdout.readline())))
        process = Process.adopt(from_plain(ProcessId, saved))
        assert process is not None
        async with process, asyncio.TaskGroup() as group:
            waiting = group.create_task(process.wait(10))
            (own_place / "go").write_text("now\n")
        kernel = tuple(int(word) for word in platform.release().split(".")[:2])
        assert waiting.result() == (7 if kernel >= PIDFD_TELLS_STATUS else None)
        assert Process.adopt(process.id) is None


async def test_another_process_with_the_same_number_is_not_taken_for_it() -> None:
    async with running() as process:
        identity = process.id
        assert identity == ProcessId.of(process.pid)
        strangers = [
            evolve(identity, start=identity.start + 1),
            evolve(identity, boot_id="another boot"),
            evolve(identity, pid=os.getpid()),
        ]
        if identity.inode is not None:
            strangers.append(evolve(identity, inode=identity.inode + 1))
        assert [stranger.open() for stranger in strangers] == [None] * len(strangers)
        pidfd = identity.open()
        assert pidfd is not None
        pidfd.close()


def test_a_zombie_counts_as_ended() -> None:
    with child("true") as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        identity = ProcessId(pid=zombie.pid, start=start_ticks(zombie.pid), boot_id=boot_id())
        assert identity.open() is None


def test_no_process_has_no_identity() -> None:
    pid = gone("true")
    for look in (ProcessId.of, Pidfd.of, start_ticks):
        with pytest.raises(ProcessLookupError):
            look(pid)
    with pytest.raises(NotFoundError):
        usage(pid)
    assert str(describe(pid)) == f"a process, pid {pid}"


async def test_a_process_is_described_by_its_program_whatever_its_name_holds(
    own_place: Path,
) -> None:
    odd = own_place / "a) R (\n b"
    odd.symlink_to("/bin/sleep")
    async with running(str(odd), "1000") as process:
        assert describe(process.pid).name == "a) R (? b"
        assert start_ticks(process.pid) > 0


async def test_a_tool_tells_what_it_printed_and_is_heard_to_the_last_byte() -> None:
    output = await run_tool(["sh", "-c", "echo a; echo b >&2; exit 3"], timeout=5)
    assert (output.status, output.stdout, output.stderr) == (3, "a\n", "b\n")
    assert output.last_words == "b"
    heard: list[bytes] = []
    await run_tool(["seq", "20000"], timeout=5, on_output=heard.append)
    assert b"".join(heard).endswith(b"19999\n20000\n")


async def test_a_tool_that_takes_too_long_is_killed(own_place: Path) -> None:
    with pytest.raises(TimedOutError, match="sleep did not end within"):
        await run_tool(["sleep", "1000"], timeout=0.05)


def test_usage_of_a_process_is_told() -> None:
    before = usage(os.getpid(), want_pss=True)
    assert before.rss > before.pss  # type: ignore[operator]
    after = evolve(before, cpu_seconds=before.cpu_seconds + 1)
    assert cpu_percent(before, after, 2.0) == pytest.approx(50.0)
    assert cpu_percent(before, evolve(after, started=0.0), 2.0) == 0.0
