"""A real supervisor with real machines, as a client sees them: on the control socket.

    def test_a_machine_comes_up(rig: Rig) -> None:
        rig.up("demo")
        assert rig.row("demo")["state"] == "running"
        rig.ask("kill", name="demo")

Everything lives in the test's own XDG folders; what is left at the end is ended, and `nothing_left`
says whether anything is. The demo guest runs under TCG: it is ready within 0.3 s everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qlaunch.control import client, words
from qlaunch.errors import NoSupervisorError, QlaunchError, SessionLostError
from qlaunch.store import machines, paths
from qlaunch.supervisor.server import Server

TOP = Path(__file__).parent.parent
# For what takes a moment; a slow computer is no failure.
PATIENCE = 30.0
_POLL = 0.01

PROFILE = """schema = 1
guest = "other"
[machine]
type = "pc"
accel = "tcg"
smm = false
[cpu]
model = "qemu64"
[memory]
size = "32MiB"
balloon = false
[video]
model = "std"
[usb]
controller = "none"
[[disk]]
id = "disk0"
bus = "ide"
template = "@demo"
size = "1MiB"
[[serial]]
id = "serial0"
"""


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until `condition()` is true and return what it says."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(_POLL)
    return found


def write_profile(name: str, more: str = "", *, folder: str | None = None, text: str = "") -> str:
    """The demo guest's profile as `name`, with `more` at its end; returns its path."""
    where = Path(folder or os.path.join(paths.config_dir(), "profiles"))
    where.mkdir(parents=True, exist_ok=True)
    path = where / f"{name}.toml"
    path.write_text((text or PROFILE) + more, encoding="utf-8")
    return str(path)


def mute_qemu() -> str:
    """The path of an emulator that answers questions but, told to run a machine, says nothing."""
    script = Path(paths.config_dir()) / "mute-qemu"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(
        "#!/bin/sh\n"
        'case "$*" in *guest=*) exec tail -f /dev/null --pid=$PPID;; esac\n'
        'exec qemu-system-x86_64 "$@"\n',
        encoding="utf-8",
    )
    script.chmod(0o700)
    return str(script)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def end(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; after SIGKILL, wait for the end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        if number == signal.SIGKILL:
            assert select.select([handle], [], [], PATIENCE)[0], f"{pid} does not end"
    finally:
        os.close(handle)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def listens(path: str) -> bool:
    """Whether somebody takes connections on the unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0


class Console:
    """A client of the serial console."""

    def __init__(self, connection: client.Connection, first: bytes) -> None:
        self.socket = connection.socket
        self.received = first
        self.socket.settimeout(PATIENCE)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until the pattern has come, and consume it."""
        while True:
            text = self.received.decode("latin-1")
            if match := re.search(pattern, text):
                self.received = self.received[match.end() :]
                return match
            data = self.socket.recv(65536)
            assert data, f"the console ended; waited for {pattern!r} in {text!r}"
            self.received += data

    def says(self, pattern: str) -> bool:
        """Whether the guest answers to a question now."""
        self.send("?")
        try:
            self.expect(pattern)
        except TimeoutError:
            return False
        return True

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def wait_end(self) -> bytes:
        """Read to the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                self.received += data
        return self.received


class Rig:
    """Talks to the user's supervisor, which it starts as any client does."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(64)
        self._supervisors: set[int] = set()

    # ---- asking ---------------------------------------------------------------------------------

    def connect(self, name: str | None = None) -> client.Connection:
        connection = client.open_connection(name=name)
        connection.socket.settimeout(PATIENCE)
        return connection

    def ask(self, verb: str, **args: Any) -> Any:
        """What the supervisor answers. Raises: its error."""
        name = args.get("name") if verb != "up" else None
        with self.connect(name) as connection:
            return connection.ask(verb, args)

    def later(self, verb: str, **args: Any) -> Future[Any]:
        """`ask` at the same time as other things."""
        return self._pool.submit(self.ask, verb, **args)

    def later_client(self, verb: str, **args: Any) -> Future[Any]:
        """The same as the program's verbs do it: asked again when the supervisor just ends."""
        return self._pool.submit(client.ask, verb, args)

    def up(self, name: str = "demo", *overrides: str, profile: str = "", **args: Any) -> Any:
        """Start the demo guest as `name`; its profile is written if there is none."""
        path = profile or os.path.join(paths.config_dir(), "profiles", f"{name}.toml")
        if not os.path.exists(path):
            write_profile(name)
        return self.ask("up", profile=path, set=list(overrides), **args)

    def kill(self, name: str = "demo") -> None:
        self.ask("kill", name=name)

    def row(self, name: str = "demo") -> dict[str, Any]:
        """The machine's line of `ps`; empty when it is not in it."""
        # Not `ask`: a supervisor without machines may just be ending, and any client asks again.
        rows = client.ask("ps", {}, name=name)["machines"]
        return next((row for row in rows if row["name"] == name), {})

    def console(self, name: str = "demo", **args: Any) -> Console:
        connection = self.connect(name)
        try:
            connection.ask("console", {"name": name, **args})
        except BaseException:
            connection.socket.close()
            raise
        return Console(connection, connection.rest())

    def ready(self, name: str = "demo") -> None:
        """Wait until the demo guest listens."""
        with self.console(name) as console:
            console.expect("READY\r\n")

    def responds(self, name: str = "demo") -> None:
        """Wait until the demo guest answers; what it printed may have been lost."""
        with self.console(name) as console:
            console.socket.settimeout(0.5)
            console.received = b""
            until(lambda: console.says(r"up=\d+ boots=\d+"), f"an answer of {name}")

    # ---- the supervisor -------------------------------------------------------------------------

    def supervisor(self) -> int:
        """Its pid; it is started if need be."""
        pid = int(self.ask("supervisor")["pid"])
        self._supervisors.add(pid)
        return pid

    def kill_supervisor(self) -> None:
        end(self.supervisor())

    def log(self) -> str:
        """The supervisor's own log, which is empty as long as there is no bug."""
        path = Path(paths.state_dir()) / "supervisor.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def machine_log(self, name: str = "demo") -> str:
        return Path(machines.log_path(name)).read_text(encoding="utf-8", errors="replace")

    def wait_supervisor_ends(self) -> None:
        until(lambda: not listens(paths.control_socket()), "the supervisor's end")
        until(lambda: not self._lock_is_held(), "the supervisor's lock")

    def _lock_is_held(self) -> bool:
        path = os.path.join(paths.runtime_dir(), "supervisor.lock")
        try:
            with open(path, "rb") as file:
                pid = int(file.read() or b"0")
        except (FileNotFoundError, ValueError):
            return False
        return bool(pid) and is_alive(pid)

    # ---- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End every machine and the supervisor."""
        with contextlib.suppress(QlaunchError, OSError):
            for row in self.ask("ps")["machines"]:
                if row["pid"]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(row["pid"], signal.SIGCONT)
                with contextlib.suppress(QlaunchError):
                    self.ask("kill", name=row["name"])
        with contextlib.suppress(NoSupervisorError, SessionLostError, OSError):
            client.ask("supervisor", {"action": "stop"}, start=False)
        with contextlib.suppress(AssertionError):
            self.wait_supervisor_ends()
        self._pool.shutdown(wait=True, cancel_futures=True)


def nothing_left(name: str = "demo") -> list[str]:
    """What is left of a machine that does not run: sockets, records, half-made files, processes."""
    left = []
    runtime = Path(paths.machine_runtime(name))
    left += [str(path) for path in runtime.rglob("*")] if runtime.exists() else []
    state = Path(paths.machine_state(name))
    left += [str(path) for path in state.glob("*") if path.name == "run.json" or "tmp" in path.name]
    data = Path(paths.machine_data(name))
    left += [str(path) for path in data.glob(".*")] if data.exists() else []
    left += [f"{path} runs {name}" for path in Path("/proc").glob("[0-9]*") if _runs(path, name)]
    left += [f"{name} is locked"] if is_locked(name) else []
    return left


def _runs(process: Path, name: str) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
        environ = (process / "environ").read_bytes()
    except OSError:
        return False
    mine = os.environ["QLAUNCH_TEST_ID"].encode()
    return f"\0guest={name},".encode() in command and mine in environ


def is_locked(name: str) -> bool:
    if not os.path.exists(os.path.join(paths.machine_state(name), "lock")):
        return False
    try:
        os.close(machines.lock(name))
    except QlaunchError:
        return True
    return False


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    """A `Rig` for the block; whatever it started is ended afterwards."""
    here = Rig()
    try:
        yield here
    finally:
        here.close()


@contextlib.contextmanager
def in_process() -> Iterator[Rig]:
    """A `Rig` whose supervisor is a thread of this process, where its constants can be changed."""
    server: list[Server] = []
    ready = threading.Event()

    async def serve() -> None:
        server.append(Server(paths.control_socket()))
        paths.ensure_private(paths.runtime_dir())
        server[0].listen()
        told = asyncio.Event()
        task = asyncio.ensure_future(server[0].serve(adopt=True, ready=told))
        await told.wait()
        ready.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        with rig() as here:
            yield here
    finally:
        thread.join(PATIENCE)


@contextlib.contextmanager
def raw(line: bytes = b"") -> Iterator[socket.socket]:
    """A bare connection to the supervisor, which has been sent `line`."""
    with client.open_connection() as connection:
        connection.socket.settimeout(PATIENCE)
        if line:
            connection.socket.sendall(line)
        yield connection.socket


def answer(connection: socket.socket) -> dict[str, Any]:
    """The next line of an answer."""
    data = b""
    while not data.endswith(b"\n"):
        chunk = connection.recv(1)
        assert chunk, f"hung up after {data!r}"
        data += chunk
    found: dict[str, Any] = json.loads(data)
    return found


def request(verb: str, **args: Any) -> bytes:
    return words.request(verb, args)


def qlaunch(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The program in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "qlaunch", *arguments], cwd=TOP, **options)
