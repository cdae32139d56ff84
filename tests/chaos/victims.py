"""Blows: what is killed, stopped or cut off, and where."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path

from attrs import Factory, define, field, frozen

from qlaunch.control import client
from qlaunch.errors import QlaunchError
from qlaunch.machine.steps import VARIABLE
from qlaunch.store import machines
from tests import leftovers
from tests.chaos.guest import NAME
from tests.rig import TOP, end, is_alive

# What a blow strikes. A freeze ends after a moment; `power` and `full` (no byte is left for images,
# state and logs) need a file system of their own.
KILLS = ("supervisor", "qemu", "both", "client", "qemu-img")
FREEZES = ("freeze-supervisor", "freeze-qemu", "freeze-client")
POWER, FULL = "power", "full"
FREEZE = 0.3
_POLL = 0.002
_STEP = re.compile(r'\bstep\("([a-z-]+: [a-z ]+)"')
# include/uapi/linux/fs.h: the log is not written out, as when the power fails.
_EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2


@frozen
class Blow:
    """`victim` is struck at the step `step`, or `delay` seconds after the verb began."""

    victim: str
    step: str | None
    delay: float

    def __str__(self) -> str:
        where = f"at '{self.step}'" if self.step else f"after {self.delay:.3f} s"
        return f"{self.victim} {where}"


def all_steps() -> tuple[str, ...]:
    """Every named step in the code."""
    found = set()
    for path in sorted((TOP / "qlaunch").rglob("*.py")):
        found.update(_STEP.findall(path.read_text(encoding="utf-8")))
    return tuple(sorted(found))


@define
class Power:
    """An ext4 file system in a file, whose power can fail: a place for everything that must last.

    Only root can have one.
    """

    image: Path
    folder: Path
    cuts: int = 0
    _mounted: bool = field(default=False, init=False)

    def make(self, size: int = 96 << 20) -> None:
        with self.image.open("wb") as file:
            file.truncate(size)
        command = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard", str(self.image)]
        subprocess.run(command, check=True, capture_output=True)
        self.folder.mkdir()
        self.mount()

    def mount(self) -> None:
        """Mount it; after a cut, a copy of it: who has taken our mounts into a name space of theirs
        keeps the old one alive, and it would be the same dead file system again."""
        if self.cuts:
            copy = self.image.with_suffix(f".{self.cuts}")
            subprocess.run(["cp", "--sparse=always", str(self.image), str(copy)], check=True)
            self.image.unlink()
            self.image = copy
        command = ["mount", "-o", "loop", str(self.image), str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)
        self._mounted = True

    def fail(self) -> None:
        """From now on nothing is written."""
        self.cuts += 1
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def fill(self) -> None:
        """From now on there is no space."""
        left = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for size in (left.f_bfree * left.f_frsize, 1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        end = os.fstat(file.fileno()).st_size
                        os.posix_fallocate(file.fileno(), end, size)

    def empty(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def unmount(self) -> None:
        if not self._mounted:
            return
        until = time.monotonic() + 20
        while subprocess.run(["umount", str(self.folder)], check=False).returncode:
            if time.monotonic() > until:
                subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
                break
            time.sleep(0.05)
        self._mounted = False


@define
class Scene:
    """The processes of one history."""

    ident: str
    client: subprocess.Popen[bytes] | None = None
    supervisor: int = 0
    _calm: threading.Event = Factory(threading.Event)

    def start_supervisor(self, step: str | None, script: str = "") -> None:
        """Another supervisor, that stops at `step`. `script` starts one instead of the usual."""
        self._calm.set()
        if self.supervisor and is_alive(self.supervisor):
            end(self.supervisor)
        with contextlib.suppress(QlaunchError, OSError):
            while (connection := client.connect()) is not None:
                with connection:
                    end(int(connection.ask("supervisor", {})["pid"]))
        if step:
            os.environ[VARIABLE] = f"{step}@stop"
        try:
            if script:
                start_by(script)
            self.find_supervisor()
        finally:
            os.environ.pop(VARIABLE, None)

    def find_supervisor(self) -> int:
        """The supervisor of now; one is started when there is none."""
        with client.open_connection() as connection:
            self.supervisor = int(connection.ask("supervisor", {})["pid"])
        return self.supervisor

    def qemu(self) -> int:
        """The machine's process, 0 when there is none."""
        for pid, command in leftovers.find(self.ident).items():
            if f"guest={NAME}," in command and is_alive(pid):
                return pid
        return 0

    # ---- striking -------------------------------------------------------------------------------

    def await_moment(self, blow: Blow, limit: float) -> bool:
        """Wait for the step (or the delay). Returns: whether it came before the verb was done."""
        assert self.client is not None
        until = time.monotonic() + (limit if blow.step else blow.delay)
        while time.monotonic() < until:
            if blow.step and state_of(self.supervisor) == "T":
                return True
            if not is_alive(self.client.pid) and not blow.step:
                return False
            if not is_alive(self.client.pid) and not self.has_jobs():
                return state_of(self.supervisor) == "T"
            time.sleep(_POLL)
        return not blow.step

    def has_jobs(self) -> bool:
        """Whether something is merged or removed in the background, or nobody can say."""
        if state_of(self.supervisor) == "T":
            return True
        with contextlib.suppress(QlaunchError, OSError):
            if (connection := client.connect()) is not None:
                with connection:
                    connection.socket.settimeout(0.5)
                    return bool(connection.ask("jobs", {"name": NAME})["jobs"])
        return is_alive(self.supervisor)

    def strike(self, blow: Blow, power: Power | None) -> None:
        """Strike, and let a supervisor that waits at its step go on if it still lives."""
        assert self.client is not None
        victim, qemu = blow.victim, self.qemu()
        if victim == POWER:
            assert power is not None
            power.fail()
            self.end_all()
            return
        if victim == FULL:
            assert power is not None
            power.fill()
        pids = {
            "supervisor": [self.supervisor],
            "qemu": [qemu],
            "both": [qemu, self.supervisor],
            "client": [self.client.pid],
            "qemu-img": self.tools(),
        }.get(victim.removeprefix("freeze-"), [])
        for pid in filter(None, pids):
            if victim.startswith("freeze-"):
                _signal(pid, signal.SIGSTOP)
            elif pid == self.client.pid:
                self.client.kill()  # its exit status is waited for
            else:
                end(pid)
        if victim == "freeze-supervisor" or victim not in FREEZES:
            if victim in FREEZES:
                time.sleep(FREEZE)
            _signal(self.supervisor, signal.SIGCONT)
        else:
            _signal(self.supervisor, signal.SIGCONT)
            time.sleep(FREEZE)
            for pid in filter(None, pids):
                _signal(pid, signal.SIGCONT)

    def disarm(self) -> None:
        """The step may be ahead of the supervisor still, in what it does later: let it pass."""
        self._calm = threading.Event()
        threading.Thread(target=_let_pass, args=(self.supervisor, self._calm), daemon=True).start()

    def tools(self) -> list[int]:
        found = leftovers.find(self.ident)
        return [pid for pid, command in found.items() if "qemu-img" in command.split(" ", 1)[0]]

    def end_all(self) -> None:
        """Every process of the history ends, as when the power fails."""
        if self.client is not None:
            self.client.kill()
            self.client.wait()
        while pids := [pid for pid in leftovers.find(self.ident) if is_alive(pid)]:
            for pid in pids:
                end(pid)


def _let_pass(supervisor: int, calm: threading.Event) -> None:
    while state_of(supervisor) not in ("", "Z", "X"):
        if state_of(supervisor) == "T":
            _signal(supervisor, signal.SIGCONT)
            return
        if calm.wait(0.05):
            return


def start_by(script: str) -> None:
    """Start a supervisor by a module of the tests, and wait until it listens."""
    import sys

    child = subprocess.Popen(
        [sys.executable, "-m", script], cwd=TOP, stdin=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 30
    while (connection := client.connect()) is None:
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(0.01)
    connection.socket.close()
    child.returncode = 0  # it is left running


def state_of(pid: int) -> str:
    """The letter that the kernel has for what the process does; nothing when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def log_of(name: str = NAME) -> str:
    path = Path(machines.log_path(name))
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
