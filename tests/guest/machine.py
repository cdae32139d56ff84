"""A machine with the Linux guest in it, driven as a user does: by the qlaunch command."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests import leftovers, prerequisites
from tests.definitions import PROGRAM, Done

# Seconds. A kernel that is emulated on a busy computer takes its time.
BOOT_LIMIT = 120.0
LIMIT = 60.0
# The longest that a test with a few boots may take: `pytestmark = [..., TIMEOUT]`.
TEST_LIMIT = 300
_KEPT_VARIABLES = ("PATH", "PYTHONPATH")

PROFILE = """\
schema = 1
guest = "{guest}"

[machine]
accel = "tcg"
{machine}
[cpu]
count = 1

[memory]
size = "256MiB"

[boot]
kernel = "{kernel}"
initrd = "{initrd}"
append = "console=ttyS0 quiet no_timer_check {words}"

[[serial]]
id = "serial0"

[[serial]]
id = "serial1"

"""


class Home:
    """The folders of one user of qlaunch, apart from all others, and the command in them."""

    def __init__(self, place: Path, cache: Path) -> None:
        self.place = place
        self.test_id = uuid.uuid4().hex
        self.prefix: tuple[str, ...] = ()
        folders = {
            "HOME": "home",
            "XDG_CONFIG_HOME": "config",
            "XDG_DATA_HOME": "data",
            "XDG_STATE_HOME": "state",
            "XDG_RUNTIME_DIR": "run",
        }
        for folder in folders.values():
            (place / folder).mkdir(mode=0o700)
        self.environment = {
            **{name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            "LC_ALL": "C.UTF-8",
            "XDG_CACHE_HOME": str(cache),
            "QLAUNCH_TEST_ID": self.test_id,
            **{name: str(place / folder) for name, folder in folders.items()},
        }

    def qlaunch(self, *words: str | Path, limit: float = LIMIT) -> Done:
        """Run one command to its end."""
        done = subprocess.run(
            [*self.prefix, *PROGRAM, *map(str, words)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            env=self.environment,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        """Start one command; its output, messages too, comes by a pipe."""
        return subprocess.Popen(
            [*self.prefix, *PROGRAM, *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
        )


@contextlib.contextmanager
def home(cache: Path) -> Iterator[Home]:
    """A home that is gone afterwards, and so must be what was started in it."""
    place = Path(tempfile.mkdtemp(prefix="ql-", dir="/tmp"))
    made = Home(place, cache)
    try:
        yield made
    finally:
        left = leftovers.reap(made.test_id, f"{place}/")
        shutil.rmtree(place, ignore_errors=True)
    assert not left, f"left running (and killed now): {left}"


def free_port() -> int:
    """A TCP port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Line:
    """A qlaunch command that talks for as long as it is wanted: a serial line, a log."""

    def __init__(self, user: Home, *words: str) -> None:
        self._process = user.start("--quiet", *words)
        self._heard = b""

    def send(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def expect(self, pattern: str, limit: float = LIMIT) -> re.Match[bytes]:
        """Wait until `pattern` was said; what stands before it is forgotten."""
        until = time.monotonic() + limit
        while not (found := re.search(pattern.encode(), self._heard)):
            self._hear(pattern, until - time.monotonic())
        self._heard = self._heard[found.end() :]
        return found

    def _hear(self, pattern: str, seconds: float) -> None:
        assert self._process.stdout
        file = self._process.stdout.fileno()
        ready = select.select([file], [], [], max(seconds, 0.0))[0]
        data = os.read(file, 1 << 16) if ready else b""
        said = self._heard[-2000:].decode(errors="replace")
        assert ready, f"{pattern!r} was not said in time, but:\n{said}"
        assert data, f"the command ended before {pattern!r}:\n{said}"
        self._heard += data

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.terminate()
        self._process.wait(LIMIT)


class Guest:
    """A machine of the profile that is written here; `up` starts it, leaving the context ends it.

    `said` are more tables of the profile, `words` go to the kernel's command line.
    """

    def __init__(
        self,
        user: Home,
        initrd: Path,
        said: str = "",
        *,
        words: str = "",
        name: str = "guest",
        guest: str = "linux",
        machine: str = "",
    ) -> None:
        self.home, self.name = user, name
        kernel = prerequisites.kernel()
        profile = user.place / f"config/qlaunch/profiles/{name}.toml"
        head = PROFILE.format(
            guest=guest, machine=machine, kernel=kernel, initrd=initrd, words=words
        )
        profile.parent.mkdir(parents=True, exist_ok=True)
        profile.write_text(head + said, encoding="utf-8")
        self._line: Line | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.hang_up()
        self.home.qlaunch("kill", self.name)

    def qlaunch(self, verb: str, *words: str | Path, limit: float = LIMIT) -> Done:
        """Run `verb` on the machine; it must succeed."""
        done = self.home.qlaunch(verb, self.name, *words, limit=limit)
        assert done.status == 0, f"{verb}: exit status {done.status}\n{done.err}"
        return done

    def up(self, *overrides: str) -> Done:
        """Start the machine without waiting for its guest; `overrides` are for `--set`."""
        self.hang_up()
        settings = [word for override in overrides for word in ("--set", override)]
        done = self.home.qlaunch("up", self.name, *settings)
        assert done.status == 0, done.err
        return done

    def boot(self, *overrides: str) -> str:
        """Start the machine, wait for its guest and return that start's id."""
        self.up(*overrides)
        return self.ready()

    def ready(self) -> str:
        """Wait until the guest is ready, once more after a restart, and return the start's id."""
        try:
            return self.line.expect(r"ask: ready (\w+)\n", BOOT_LIMIT)[1].decode()
        except AssertionError as error:
            folder = self.home.place / f"state/qlaunch/machines/{self.name}"
            for log in ("console-serial0.log", "log"):
                said = (folder / log).read_bytes()[-2000:].decode(errors="replace")
                error.add_note(f"{log}:\n{said}")
            raise

    @property
    def line(self) -> Line:
        """The serial line on which the guest takes commands."""
        if self._line is None:
            self._line = Line(self.home, "console", self.name, "--serial", "serial1")
        return self._line

    def hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def tell(self, command: str) -> int:
        """Have the guest run a line of shell; the number by which `answer` knows it."""
        number = next(self._numbers)
        self.line.send(f"{number} {command}\n")
        return number

    def answer(self, number: int, limit: float = LIMIT) -> tuple[int, str]:
        """The status of a command and what it printed, when it has ended."""
        found = self.line.expect(rf"(?s)begin {number}\n(.*?)end {number} (\d+)\n", limit)
        return int(found[2]), found[1].decode(errors="replace")

    def ask(self, command: str, limit: float = LIMIT) -> tuple[int, str]:
        """Run a line of shell in the guest; its status and what it printed."""
        return self.answer(self.tell(command), limit)

    def run(self, command: str, limit: float = LIMIT) -> str:
        """Run a line of shell in the guest, which must succeed; what it printed."""
        status, said = self.ask(command, limit)
        assert status == 0, f"{command}: status {status}\n{said}"
        return said.strip()

    def pci(self) -> set[str]:
        """The vendor and device of everything on the guest's PCI bus: `1af4:1042`."""
        found = self.run("grep -h PCI_ID= /sys/bus/pci/devices/*/uevent")
        return {line.removeprefix("PCI_ID=").lower() for line in found.splitlines()}

    def status(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.qlaunch("status", "--json").json
        return found

    def state(self) -> str:
        """The state that `ps` shows; `stopped` for a machine that it does not list."""
        listed = json.loads(self.home.qlaunch("ps", "--json").out)
        rows: Sequence[Mapping[str, Any]] = listed["machines"]
        return next((str(row["state"]) for row in rows if row["name"] == self.name), "stopped")

    def await_log(self, pattern: str, limit: float = LIMIT) -> None:
        """Wait until the machine's log says `pattern`."""
        log = Line(self.home, "logs", self.name, "--follow")
        try:
            log.expect(pattern, limit)
        finally:
            log.close()

    def await_state(self, wanted: str, limit: float = LIMIT) -> None:
        """Wait until `ps` shows the state; what announces it should have been waited for."""
        until = time.monotonic() + limit
        while (state := self.state()) != wanted:
            assert time.monotonic() < until, f"{self.name} is {state}, not {wanted}"
