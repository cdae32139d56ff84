"""Short-lived helper programs (qemu-img and the like): limited in time, reaped, never left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from qlaunch.aio import finish
from qlaunch.errors import HostError, TimedOutError
from qlaunch.facts.confinement import Confinement
from qlaunch.host.process import Process
from qlaunch.host.procfs import printable

KILL_TIMEOUT = 10.0
_MOST_OUTPUT = 1 << 20


@frozen
class Output:
    """What a program printed, and how it ended."""

    status: int | None
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The last line that it wrote about its failure, or else on its output."""
        lines = self.stderr.splitlines() or self.stdout.splitlines()
        return next((printable(line.strip()) for line in reversed(lines) if line.strip()), "")


async def run_tool(
    argv: Sequence[str],
    *,
    timeout: float,
    pass_fds: Sequence[int] = (),
    on_output: Callable[[bytes], None] | None = None,
    confinement: Confinement | None = None,
) -> Output:
    """Run `argv` to its end and return what it printed; with `on_output`, stdout goes there. With
    a `confinement` it may touch nothing else (see `Process.spawn`).

    When it takes longer than `timeout` seconds, or the caller is cancelled, it is killed and
    reaped first. When this process is killed it ends too: nobody would wait for what it writes.

    Raises: HostError when it cannot be started, TimedOutError when it takes too long.
    """
    with _memory("stdout") as stdout, _memory("stderr") as stderr, contextlib.ExitStack() as stack:
        target = stdout if on_output is None else _pipe(stack, on_output)
        process = Process.spawn(
            _with_us(argv),
            pass_fds=pass_fds,
            stdout_fd=target,
            stderr_fd=stderr,
            env=_plain_words(),
            confinement=confinement,
            dies_with_us=True,
        )
        stack.callback(process.close)
        try:
            status = await process.wait(timeout)
        except TimeoutError:
            name = os.path.basename(argv[0])
            raise TimedOutError(f"{name} did not end within {timeout:g} seconds") from None
        finally:
            if not process.ended:
                await finish(kill(process))
        return Output(status, _content(stdout), _content(stderr))


def _with_us(argv: Sequence[str]) -> Sequence[str]:
    """`argv` so that the kernel kills it when we end (prctl(2), PR_SET_PDEATHSIG), where util-linux
    is there."""
    setpriv, program = shutil.which("setpriv"), shutil.which(argv[0])
    if setpriv is None or program is None:
        return argv
    return (setpriv, "--pdeathsig", "KILL", "--", program, *argv[1:])


async def kill(process: Process) -> None:
    """End `process` at once and wait until it is gone; a few seconds at most."""
    process.send_signal(signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await process.wait(KILL_TIMEOUT)


def _plain_words() -> dict[str, str]:
    # Its messages are looked at, so they must not come in the user's language.
    return {**os.environ, "LC_ALL": "C.UTF-8"}


@contextlib.contextmanager
def _memory(name: str) -> Iterator[int]:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _content(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, _MOST_OUTPUT, max(0, size - _MOST_OUTPUT)).decode(errors="replace")


def _pipe(stack: contextlib.ExitStack, on_output: Callable[[bytes], None]) -> int:
    """The writing end of a pipe that feeds `on_output`, to the last byte when `stack` unwinds."""
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(writing, True)
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:  # we hold the writing end too, so this ends with "would block"
                on_output(os.read(reading, 65536))

    loop.add_reader(reading, readable)
    stack.callback(readable)
    stack.callback(loop.remove_reader, reading)
    return writing


def failure(what: str, output: Output) -> HostError:
    """The error for a program that failed at `what`: its own last words are in the message."""
    words = output.last_words or f"it ended with status {output.status}"
    return HostError(f"{what}: {words}")


def percentages(progress: Callable[[float], None]) -> Callable[[bytes], None]:
    """What `qemu-img -p` prints, told to `progress` as numbers up to 100."""

    def heard(data: bytes) -> None:
        found = re.findall(rb"\(([0-9.]+)/100%\)", data)
        if found:
            progress(float(found[-1]))

    return heard
