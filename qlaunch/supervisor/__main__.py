"""`python -m qlaunch.supervisor`: the user's supervisor, in the background."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import time

from qlaunch.errors import BusyError
from qlaunch.store import files, paths
from qlaunch.supervisor.server import Server

# How long one that lost the race waits for the winner to listen.
WINNER_TIMEOUT = 20.0


def main() -> int:
    """Run until there is nothing to look after. Tells `--ready-fd` when it listens."""
    parser = argparse.ArgumentParser(prog="python -m qlaunch.supervisor")
    parser.add_argument("--ready-fd", type=int, default=-1)
    args = parser.parse_args()
    os.umask(0o077)
    paths.ensure_private(paths.runtime_dir())
    try:
        lock = files.take_lock(
            os.path.join(paths.runtime_dir(), "supervisor.lock"), what="the supervisor"
        )
    except BusyError:
        _tell(args.ready_fd, b"held" if _winner_listens() else b"")
        return 0
    try:
        asyncio.run(_serve(args.ready_fd))
    finally:
        os.close(lock)
    return 0


async def _serve(ready_fd: int) -> None:
    server, ready = Server(paths.control_socket()), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)

    async def tell() -> None:
        await ready.wait()
        _tell(ready_fd, b"ready")

    async with asyncio.TaskGroup() as group:
        teller = group.create_task(tell())
        try:
            await server.serve(adopt=True, ready=ready)
        finally:
            teller.cancel()


def _tell(ready_fd: int, word: bytes) -> None:
    if ready_fd >= 0:
        with contextlib.suppress(OSError):
            os.write(ready_fd, word)
            os.close(ready_fd)


def _winner_listens() -> bool:
    """Another supervisor has the lock: wait until it takes connections (or has ended again)."""
    deadline = time.monotonic() + WINNER_TIMEOUT
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(paths.control_socket())
            except OSError:
                time.sleep(0.02)
            else:
                return True
    return False


if __name__ == "__main__":
    sys.exit(main())
