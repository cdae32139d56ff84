"""QEMU in a systemd scope of its own, with a real systemd: see tests/lab."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from attrs import frozen

from tests import prerequisites
from tests.lab import HOME, PYTHON, ROOT_HOME, RUNTIME, UID, Lab, LabError

pytestmark = pytest.mark.systemd

PATIENCE = 20.0
PROFILE = """
schema = 1
[machine]
type = "pc"
accel = "tcg"
smm = false
[memory]
size = "32MiB"
balloon = false
[display]
spice = false
[usb]
controller = "none"
[[disk]]
id = "disk0"
bus = "ide"
template = "@demo"
size = "1MiB"
[[serial]]
id = "serial0"
[lifecycle]
on_crash = "restart"
[limits]
memory = "512MiB"
cpu_quota = 150
cpus = "0"
io_weight = 50
tasks = 200
"""
LIMITS = {
    "MemoryMax": str(512 << 20),
    "CPUQuotaPerSecUSec": "1.500000s",
    "AllowedCPUs": "0",
    "IOWeight": "50",
    "TasksMax": "200",
}
SCOPE = "qlaunch-demo.scope"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """One lab for all tests here. No test leaves anything in it."""
    with ExitStack() as stack:
        try:
            here = stack.enter_context(Lab())
        except LabError as error:
            prerequisites.require("systemd", False, f"no systemd can be booted here: {error}")
            raise
        yield here


@frozen
class Person:
    """Somebody in the lab who uses qlaunch: the ordinary user, or root."""

    lab: Lab
    root: bool

    @property
    def manager(self) -> str:
        return "--system" if self.root else "--user"

    def run(self, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.lab.run(*argv, root=self.root, **more)

    def qlaunch(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.run(PYTHON, "-P", "-m", "qlaunch", *words, **more)

    def ask(self, *words: str, **more: Any) -> dict[str, Any]:
        """What a verb says with --json."""
        answer: dict[str, Any] = json.loads(self.qlaunch(*words, "--json", **more).stdout)
        return answer

    def show(self, *names: str) -> dict[str, str]:
        """Properties of the machine's scope."""
        asked = self.run("systemctl", self.manager, "show", SCOPE, "-p", ",".join(names))
        return dict(line.split("=", 1) for line in asked.stdout.splitlines())

    def state(self) -> str:
        return self.show("ActiveState")["ActiveState"]

    def group(self, pid: int) -> str:
        """The control group of a process of the lab."""
        lines = self.lab.path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("0::"))

    @contextmanager
    def scope(self, *command: str, **properties: str) -> Iterator[subprocess.Popen[str]]:
        """A stranger's scope that has the machine's name."""
        words = [f"--property={name}={value}" for name, value in properties.items()]
        start = ("systemd-run", self.manager, "--scope", f"--unit={SCOPE}", *words, *command)
        argv = self.lab.command(start, root=self.root)
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert SCOPE in process.stderr.readline()
            yield process
            self.run("systemctl", self.manager, "stop", SCOPE, check=False)


@contextmanager
def user_of(lab: Lab, *, root: bool) -> Iterator[Person]:
    person, home = Person(lab, root), ROOT_HOME if root else HOME
    write = "mkdir -p ~/.config/qlaunch/profiles && cat >~/.config/qlaunch/profiles/demo.toml"
    argv = lab.command(["sh", "-c", write], root=root)
    subprocess.run(argv, input=PROFILE, text=True, check=True)
    yield person
    person.qlaunch("kill", "demo", check=False)
    person.qlaunch("supervisor", "stop", check=False)
    person.run("rm", "-rf", f"{home}/.local", f"{home}/.config")
    left = ("pgrep", "-f", "qlaunch.supervisor|qemu-system")
    until(lambda: not person.run(*left, check=False).stdout)
    until(lambda: person.state() == "inactive")


@pytest.fixture(params=["user", "system"])
def person(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Person]:
    with user_of(lab, root=request.param == "system") as person:
        yield person


@pytest.fixture
def user(lab: Lab) -> Iterator[Person]:
    with user_of(lab, root=False) as person:
        yield person


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again; each question starts a program, so no pause is needed."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def read_console(person: Person, wanted: str) -> None:
    """Read the machine's console until it says `wanted`."""
    argv = person.lab.command([PYTHON, "-P", "-m", "qlaunch", "console", "demo"], root=person.root)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as console:
        assert console.stdout
        text = b""
        while wanted.encode() not in text:
            byte = console.stdout.read(1)
            assert byte, text
            text += byte
        console.terminate()


# ---- a machine and its scope --------------------------------------------------------------------


def test_a_machine_runs_in_a_scope_of_its_own_that_carries_its_limits(person: Person) -> None:
    started = person.ask("up", "demo")
    assert started["warnings"] == []
    wanted = {"ActiveState": "active", "Slice": "qlaunch.slice", **LIMITS}
    assert person.show(*wanted) == wanted
    assert person.group(started["pid"]).endswith(f"/qlaunch.slice/{SCOPE}")
    assert person.lab.path(f"/proc/{started['pid']}/comm").read_text() == "qemu-system-x86\n"
    assert f"/user@{UID}.service/" in person.group(started["pid"]) or person.root


def test_what_qemu_inherits_comes_through_systemd_run(person: Person) -> None:
    person.ask("up", "demo")
    read_console(person, "READY")  # from its disk, to its serial port: both are descriptors


def test_a_machine_outlives_its_supervisor_and_is_found_again(person: Person) -> None:
    pid = person.ask("up", "demo")["pid"]
    supervisor = person.ask("supervisor", "status")["pid"]
    assert SCOPE not in person.group(supervisor)
    person.run("kill", "-KILL", str(supervisor))
    until(lambda: not person.lab.path(f"/proc/{supervisor}/cmdline").exists())
    assert person.state() == "active"
    found = person.ask("status", "demo")
    assert (found["state"], found["pid"]) == ("running", pid)
    assert person.ask("supervisor", "status")["pid"] != supervisor
    person.qlaunch("kill", "demo")
    until(lambda: person.state() == "inactive")


def test_down_ends_the_scope_and_the_next_up_has_one_at_once(person: Person) -> None:
    for _ in range(3):
        started = person.ask("up", "demo")
        assert (started["warnings"], SCOPE in person.group(started["pid"])) == ([], True)
        read_console(person, "READY")  # a power button pressed before that is lost
        person.qlaunch("down", "demo")
    until(lambda: person.state() == "inactive")
    assert person.show("LoadState") == {"LoadState": "not-found"}


def test_a_machine_that_crashed_is_restarted_in_a_scope(user: Person) -> None:
    first = user.ask("up", "demo")["pid"]
    user.run("kill", "-KILL", str(first))
    until(lambda: user.ask("status", "demo")["pid"] not in (None, first))
    again = user.ask("wait", "demo", "--for", "running", "--timeout", "20s")
    assert again["state"] == "running"
    status = user.ask("status", "demo")
    assert status["warnings"] == []
    assert SCOPE in user.group(status["pid"])


def test_what_qemu_says_against_its_arguments_is_told_and_no_scope_stays(person: Person) -> None:
    bad = 'qemu.args=["-device", "nonsense"]'
    failed = person.qlaunch("up", "demo", "--set", bad, check=False)
    assert failed.returncode == 1
    assert "QEMU ended at once: -device nonsense: 'nonsense' is not a valid" in failed.stderr
    assert "scope" not in failed.stderr
    until(lambda: person.state() == "inactive")
    assert person.show("LoadState") == {"LoadState": "not-found"}


# ---- where there is no scope to be had ----------------------------------------------------------


def test_a_failed_scope_of_the_same_name_is_cleared_away(person: Person) -> None:
    with person.scope("sleep", "60", RuntimeMaxSec="50ms") as stranger:
        stranger.wait(PATIENCE)
    until(lambda: person.state() == "failed")
    started = person.ask("up", "demo")
    assert started["warnings"] == []
    assert SCOPE in person.group(started["pid"])


def test_a_scope_in_use_is_left_alone_and_the_machine_runs_without_one(user: Person) -> None:
    with user.scope("sleep", "60") as stranger:
        started = user.ask("up", "demo")
        assert stranger.poll() is None
        assert SCOPE not in user.group(started["pid"])
        told = {"no scope of its own", "its limits have no effect", SCOPE, "already"}
        _assert_told(user, started, told)
        user.qlaunch("kill", "demo")


def test_a_manager_that_dies_at_the_start_costs_the_scope_and_not_the_machine(user: Person) -> None:
    with _dying_manager(user) as environ:
        started = user.ask("up", "demo", environ=environ)
        assert SCOPE not in user.group(started["pid"])
        told = {"its limits have no effect: Failed to "}  # connect, or start: as it happens
        _assert_told(user, started, told, environ=environ)


def test_without_systemd_run_a_machine_starts_and_says_what_is_missing(user: Person) -> None:
    user.run("sh", "-c", "mkdir ~/.local; ln -s /usr/bin/qemu-* ~/.local/")
    environ = {"PATH": f"{HOME}/.local"}
    started = user.ask("up", "demo", environ=environ)
    assert SCOPE not in user.group(started["pid"])
    assert "limits need systemd" in started["warnings"][0]["message"]


def test_without_the_variables_of_a_session_the_users_systemd_is_found(user: Person) -> None:
    started = user.ask("up", "demo", environ={"XDG_RUNTIME_DIR": ""})
    assert started["warnings"] == []
    assert SCOPE in user.group(started["pid"])


def _assert_told(
    user: Person, started: dict[str, Any], words: set[str], environ: Mapping[str, str] | None = None
) -> None:
    """The warning is in the answer, in the status and in the log."""
    status = user.ask("status", "demo", environ=environ)
    log = user.qlaunch("logs", "demo", environ=environ).stdout
    assert status["warnings"] == started["warnings"]
    (warning,) = started["warnings"]
    for word in words:
        assert word in warning["message"]
        assert word in log


@contextmanager
def _dying_manager(user: Person) -> Iterator[dict[str, str]]:
    """A user manager that takes every connection and hangs up: the variables of its session."""
    runtime = f"{RUNTIME}/dying"
    code = (
        "import os, socket\n"
        f"os.makedirs({runtime + '/systemd'!r}, mode=0o700)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        f"s.bind({runtime + '/systemd/private'!r})\n"
        "s.listen()\n"
        "print('listens', flush=True)\n"
        "while True: s.accept()[0].close()\n"
    )
    argv = user.lab.command([PYTHON, "-I", "-c", code])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "listens\n"
        environ = {"XDG_RUNTIME_DIR": runtime}
        try:
            yield environ
        finally:
            user.qlaunch("kill", "demo", check=False, environ=environ)
            user.qlaunch("supervisor", "stop", check=False, environ=environ)
            process.terminate()
    user.run("rm", "-r", runtime)
