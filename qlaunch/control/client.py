"""The client's end of the control socket: blocking, small, quick to import.

Starts the supervisor when it is needed and not there. On the thin client's path.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys

from qlaunch.control import words
from qlaunch.errors import NoSupervisorError, QlaunchError, SessionLostError, from_dict
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing costs the thin client 3 ms
    from collections.abc import Callable
    from typing import Any, BinaryIO

    Progress = Callable[[dict[str, Any]], None]

REPEATABLE = frozenset(
    {"ps", "status", "up", "down", "kill", "wait", "pause", "resume", "supervisor"}
)
SERVICE = "qlaunch.service"
_PATH_LIMIT = 107
START_ATTEMPTS = 5
# Sixty machines may have to be adopted first, and one of them may not answer.
START_TIMEOUT = 60.0


class Connection:
    """One request on its way. Use as a context manager; leaving it hangs up."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, verb: str, args: dict[str, Any], progress: Progress | None = None) -> Any:
        """Send the request and wait for its end; `progress` is called for each progress line.

        Raises: the QlaunchError that the supervisor answered; SessionLostError when it hung up.
        """
        # A request that is too long is refused before it is read to its end: the answer is there.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(words.request(verb, args))
        while True:
            reply = json.loads(self._line())
            if "progress" not in reply:
                break
            if progress:
                progress(reply["progress"])
        if "error" in reply:
            raise from_dict(reply["error"])
        return reply["result"]

    def rest(self) -> bytes:
        """What arrived after the reply already: the first bytes of a console."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _line(self) -> bytes:
        chunks = [self._buffer]
        while b"\n" not in chunks[-1]:
            try:
                chunk = self.socket.recv(1 << 16)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise SessionLostError(
                    "the supervisor hung up", hint="`qlaunch ps` shows what is so"
                )
            chunks.append(chunk)
        line, self._buffer = b"".join(chunks).split(b"\n", 1)
        return line


def connect(name: str | None = None) -> Connection | None:
    """A connection to the supervisor that hosts `name` (a foreground one first, then the user's);
    None when there is none. Raises: NoSupervisorError when it is there but not to be reached."""
    for path in ([paths.run_socket(name)] if name else []) + [paths.control_socket()]:
        sock = _connect(path)
        if sock is not None:
            return Connection(sock)
    return None


def _connect(path: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = -1
    try:
        if len(path.encode()) > _PATH_LIMIT:
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
            path = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise NoSupervisorError(
            f"cannot reach the supervisor at {path}: {error.strerror}"
        ) from error
    finally:
        if folder >= 0:
            os.close(folder)
    return sock


def ask(
    verb: str,
    args: dict[str, Any],
    *,
    name: str | None = None,
    progress: Progress | None = None,
    start: bool = True,
) -> Any:
    """Ask the supervisor, starting it first when `start` and none runs.

    Raises: what `Connection.ask` raises; NoSupervisorError when there is none.
    """
    with open_connection(name=name, start=start) as connection:
        try:
            return connection.ask(verb, args, progress)
        except SessionLostError:
            # It was stopped or killed just when we came. What it began has been undone, or the next
            # one finds it: to ask again is right for all that says what shall be, not what to do.
            if not start or verb not in REPEATABLE:
                raise
    with open_connection(name=name, start=True) as connection:
        return connection.ask(verb, args, progress)


def open_connection(*, name: str | None = None, start: bool = True) -> Connection:
    """A connection to the supervisor. Raises: NoSupervisorError."""
    connection = connect(name)
    # One that is just ending may take a connection and be gone before ours: then it is our turn.
    attempts = START_ATTEMPTS if start else 0
    while connection is None and attempts:
        attempts -= 1
        start_supervisor()
        connection = connect(name)
    if connection is None:
        raise NoSupervisorError("no supervisor is running", hint="`qlaunch up NAME` starts one")
    return connection


def start_supervisor() -> None:
    """Start the user's supervisor in the background and wait until it listens; as a service of
    systemd where `qlaunch service install` was said, and where that works.

    Raises: NoSupervisorError with the supervisor's last words.
    """
    import subprocess

    if _start_service():
        return
    paths.ensure_private(paths.runtime_dir())
    log_path = os.path.join(paths.state_dir(), "supervisor.log")
    ready, tell = os.pipe()
    try:
        with _open_log(log_path) as log:
            started_at = log.tell()
            # -P keeps the current folder off the module path: a stray file there must not be run.
            argv = [sys.executable, "-P", "-m", "qlaunch.supervisor", "--ready-fd", str(tell)]
            supervisor = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[tell],
                start_new_session=True, cwd="/",
            )  # fmt: skip
            # Popen warns of a child that is left running: here that is the purpose.
            supervisor.returncode = 0
    except OSError as error:
        os.close(ready)
        raise NoSupervisorError(f"the supervisor did not start: {error.strerror}") from error
    finally:
        os.close(tell)
    if _answer(ready) not in (b"ready", b"held"):
        raise NoSupervisorError(
            f"the supervisor did not start: {_tail(log_path, started_at)}",
            hint=f"its log is {log_path}",
        )


def _start_service() -> bool:
    """Start the service that is installed, if one is. Returns: whether it listens for us now."""
    managers = ("system", "user") if os.getuid() == 0 else ("user",)
    for manager in managers:
        folders = paths.unit_folders(manager)
        if any(os.path.exists(os.path.join(folder, SERVICE)) for folder in folders):
            break
    else:
        return False
    import subprocess

    runtime = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}
    try:
        subprocess.run(
            ["systemctl", f"--{manager}", "--quiet", "start", SERVICE],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=START_TIMEOUT, env={**runtime, **os.environ},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False  # systemd is going down, or had to start it too often: without it, then
    # The service may have been installed with other folders than ours.
    return os.path.exists(paths.control_socket())


def _open_log(path: str) -> BinaryIO:
    """The supervisor's log; where there can be none (a full disk), it does without."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return open(path, "ab", opener=_private)
    except OSError:
        return open(os.devnull, "ab")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _answer(ready: int) -> bytes:
    """What the supervisor says once it listens; nothing when it ends or hangs before."""
    import select

    with os.fdopen(ready, "rb") as pipe:
        is_there = select.select([pipe], [], [], START_TIMEOUT)[0]
        return pipe.read(16) if is_there else b""


def _tail(path: str, start: int) -> str:
    """The last line of the log after `start`."""
    try:
        with open(path, "rb") as log:
            log.seek(start)
            lines = log.read()[-4096:].decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def error_of(error: QlaunchError) -> dict[str, object]:
    """`{"error": {...}}` as `--json` prints it."""
    return {"error": error.to_dict()}
