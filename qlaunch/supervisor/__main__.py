"""`python -m qlaunch.supervisor`: the user's supervisor, in the background.

`--ready-fd FD` is from a client that waits; `--service user|system` is from systemd; `--lock-fd FD`
and `--listener-fd FD` are from itself: it has begun anew in place, for `supervisor restart`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time

from qlaunch.errors import BusyError, QlaunchError
from qlaunch.store import files, paths

# How long one that lost the race waits for the winner to listen, or to end.
WINNER_TIMEOUT = 20.0
WINNER_PAUSE = 0.02


def main() -> int:
    """Run until there is nothing to look after, as a service until it is told to end."""
    # By hand: argparse would stay in memory for as long as the supervisor lives.
    words = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    ready_fd, manager = int(words.get("--ready-fd", -1)), words.get("--service")
    lock: int | None = int(words.get("--lock-fd", -1))
    listener: int | None = int(words.get("--listener-fd", -1))
    os.umask(0o077)
    try:
        paths.ensure_private(paths.runtime_dir())
        lock = _lock(takes_over=manager is not None) if lock == -1 else lock
        if lock is None:
            _tell(ready_fd, b"held")
            return 0
        try:
            listener = _run(ready_fd, manager, listener)
            if listener is not None:
                _begin_anew(lock, listener, manager)
        finally:
            os.close(lock)
    except QlaunchError as error:
        sys.stderr.write(f"qlaunch supervisor: {error.message}\n")
        return error.exit_status
    return 0


def _begin_anew(lock: int, listener: int, manager: str | None) -> None:
    """Become the supervisor that is installed now: same process, same children, and whoever
    connects meanwhile waits in the listener's queue. Returns only when that cannot be."""
    argv = [sys.executable, "-P", "-m", "qlaunch.supervisor"]
    for fd in (lock, listener):
        os.set_inheritable(fd, True)  # noqa: FBT003 -- the standard library's way
    argv += ["--lock-fd", str(lock), "--listener-fd", str(listener)]
    argv += ["--service", manager] if manager is not None else []
    try:
        os.execv(sys.executable, argv)
    except OSError as error:
        sys.stderr.write(f"qlaunch supervisor: {sys.executable}: {error.strerror}\n")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(paths.control_socket())


def _lock(*, takes_over: bool) -> int | None:
    """The lock of the only supervisor; None when another one has it and takes connections, unless
    we are to take over from it: then it is told to end, and its machines run on.

    The one that has it may just be ending: then it is our turn. Raises: BusyError, HostError.
    """
    path = os.path.join(paths.runtime_dir(), "supervisor.lock")
    deadline = time.monotonic() + WINNER_TIMEOUT
    while True:
        try:
            return files.take_lock(path, what="the supervisor")
        except BusyError:
            if takes_over:
                _end_the_other()
            elif _somebody_listens():
                return None
            if time.monotonic() > deadline:
                raise
        time.sleep(WINNER_PAUSE)


def _end_the_other() -> None:
    from qlaunch.control import client

    with contextlib.suppress(QlaunchError):
        client.ask("supervisor", {"action": "stop"}, start=False)


def _somebody_listens() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(paths.control_socket())
        except BlockingIOError:
            return True  # with a full queue
        except OSError:
            return False
        return True


def _run(ready_fd: int, manager: str | None, listener: int | None) -> int | None:
    """Returns: the listener, when the supervisor is to begin anew."""
    # Of many that start at once all but one end before they come here: theirs is a short life.
    from qlaunch.supervisor import lean

    lean.leave_out_openssl()
    import asyncio

    from qlaunch.supervisor.server import Server

    lean.settle()

    async def serve() -> int | None:
        server = Server(paths.control_socket(), stays=manager is not None)
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        server.listen(listener)

        async def tell() -> None:
            await ready.wait()
            _tell(ready_fd, b"ready")

        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(tell())]
            if manager is not None:
                from qlaunch.supervisor.service import Service

                helpers.append(group.create_task(Service(server, manager).run(ready)))
            try:
                await server.serve(adopt=True, ready=ready)
            finally:
                for helper in helpers:
                    helper.cancel()
        return server.kept.detach() if server.kept is not None else None

    return asyncio.run(serve())


def _tell(ready_fd: int, word: bytes) -> None:
    if ready_fd >= 0:
        with contextlib.suppress(OSError):
            os.write(ready_fd, word)
            os.close(ready_fd)


if __name__ == "__main__":
    sys.exit(main())
