"""The user's own network service: started when somebody needs it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from qlaunch.errors import HostError, TimedOutError
from qlaunch.network.client import REQUEST_TIMEOUT, Service, probe, rootless_socket
from qlaunch.store import paths

START_ATTEMPTS = 3
READY = "ready"


async def start() -> Service:
    """The user's own service, which is started unless it answers.

    Raises: HostError with what it says, TimedOutError.
    """
    found = await probe("rootless", rootless_socket())
    attempts = START_ATTEMPTS
    while found is None and attempts:
        attempts -= 1  # one that is just ending may be gone before we ask it
        await _start()
        found = await probe("rootless", rootless_socket())
    if found is None:
        raise HostError("your network service ended as soon as it was there", hint=_see())
    return found


def log() -> str:
    """What it and its pasta say goes there."""
    return os.path.join(paths.state_dir(), "network.log")


def _see() -> str:
    return f"see {log()}"


async def _start() -> None:
    with _spawned() as told:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                said = await asyncio.get_running_loop().sock_recv(told, 1000)
        except TimeoutError:
            raise TimedOutError("your network service does not start", hint=_see()) from None
    words = said.decode(errors="replace")
    if words != READY:
        raise HostError(words or "your network service does not start", hint=_see())


def _spawned() -> socket.socket:
    """Start it in the background; it says `READY` there, or what is wrong."""
    paths.ensure_private(paths.runtime_dir())
    os.makedirs(paths.state_dir(), mode=0o700, exist_ok=True)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003  # its name for it
    # -P keeps the current folder off the module path: a stray file there must not be run.
    words = [sys.executable, "-P", "-m", "qlaunch.network.rootless"]
    try:
        with theirs, open(log(), "ab") as file:
            process = subprocess.Popen(
                [*words, "--ready-fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
            )
    except OSError as error:
        ours.close()
        raise HostError(f"your network service cannot be started: {error.strerror}") from error
    # Popen warns of a child that is left running: here that is the purpose.
    process.returncode = 0
    return ours
