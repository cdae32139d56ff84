"""QEMU in a systemd scope of its own, with a real systemd: see tests/lab."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab import HOME, PYTHON, RUNTIME, UID, Lab
from tests.lab.person import PATIENCE, SCOPE, Person, read_console, until, user_of

pytestmark = pytest.mark.systemd

LIMITS = {
    "MemoryMax": str(512 << 20),
    "CPUQuotaPerSecUSec": "1.500000s",
    "AllowedCPUs": "0",
    "IOWeight": "50",
    "TasksMax": "200",
}


@pytest.fixture(params=["user", "system"])
def person(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Person]:
    with user_of(lab, root=request.param == "system") as person:
        yield person


@pytest.fixture
def user(lab: Lab) -> Iterator[Person]:
    with user_of(lab, root=False) as person:
        yield person


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
    until(lambda: person.lab.is_gone(supervisor))
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
