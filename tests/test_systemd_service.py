"""The supervisor as a service of a real systemd, and machines with units of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import HOME, PYTHON, ROOT_HOME, UID, Lab
from tests.lab.log import Log
from tests.lab.person import (
    PATIENCE,
    SCOPE,
    Person,
    person_of,
    read_console,
    until,
    user_of,
)

pytestmark = pytest.mark.systemd

SERVICE, UNIT = "qlaunch.service", "qlaunch@demo.service"
MANAGER = f"user@{UID}.service"


@contextmanager
def served(lab: Lab, *, root: bool) -> Iterator[Person]:
    """Somebody who has the service installed; it is gone afterwards."""
    with user_of(lab, root=root) as person:
        try:
            person.qlaunch("service", "install")
            yield person
        finally:
            person.qlaunch("kill", "*", check=False)
            person.qlaunch("service", "uninstall", check=False)
            person.run("systemctl", person.manager, "reset-failed", check=False)


@pytest.fixture(params=["user", "system"])
def person(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Person]:
    with served(lab, root=request.param == "system") as person:
        yield person


@pytest.fixture
def user(lab: Lab) -> Iterator[Person]:
    with served(lab, root=False) as person:
        yield person


def unit(person: Person, name: str, *properties: str) -> list[str]:
    words = ("show", "--value", name, *(f"--property={each}" for each in properties))
    return person.run("systemctl", person.manager, *words).stdout.splitlines()


def state(person: Person, name: str) -> str:
    return unit(person, name, "ActiveState")[0]


def main_pid(person: Person) -> int:
    return int(unit(person, SERVICE, "MainPID")[0])


def qemu(person: Person) -> int:
    return int(person.ask("status", "demo")["pid"])


def kill(person: Person, pid: int, number: str = "KILL") -> None:
    person.run("kill", f"-{number}", str(pid))


def drop_in(person: Person, name: str, *lines: str) -> None:
    """A drop-in beside the service, in force from now on."""
    home = ROOT_HOME if person.root else HOME
    folder = "/etc/systemd/system" if person.root else f"{home}/.config/systemd/user"
    text = "\\n".join(("[Service]", *lines))
    script = f"mkdir -p {folder}/{name}.d; printf '{text}\\n' >{folder}/{name}.d/test.conf"
    person.run("sh", "-c", script)
    person.run("systemctl", person.manager, "daemon-reload")


# ---- the service ---------------------------------------------------------------------------------


def test_the_service_is_installed_enabled_and_hosts_what_is_started(person: Person) -> None:
    found = person.ask("service", "status")
    assert found["supervisor"]["state"] == "active"
    assert found["supervisor"]["enabled"]
    assert len(found["units"]) == 3
    verify = person.run(
        "systemd-analyze", person.manager, "--man=no", "verify", *found["units"][:2]
    )
    assert (verify.stdout, verify.stderr) == ("", "")
    person.ask("up", "demo")
    assert person.ask("supervisor", "status")["pid"] == main_pid(person)
    assert person.ask("service", "status")["supervisor"]["says"] == "1 machine: demo"
    assert SERVICE in person.group(main_pid(person))
    assert SCOPE in person.group(qemu(person))


def test_a_killed_supervisor_is_started_again_and_the_machine_does_not_notice(
    person: Person,
) -> None:
    pid = person.ask("up", "demo")["pid"]
    for _ in range(3):
        supervisor = main_pid(person)
        kill(person, supervisor)
        until(lambda before=supervisor: main_pid(person) not in (0, before))  # type: ignore[misc]
        assert qemu(person) == pid
        assert person.ask("supervisor", "status")["pid"] == main_pid(person)
    until(lambda: state(person, SERVICE) == "active")


def test_a_restart_and_a_stop_of_the_service_keep_the_machine(person: Person) -> None:
    pid = person.ask("up", "demo")["pid"]
    supervisor = main_pid(person)
    person.run("systemctl", person.manager, "restart", SERVICE)
    assert main_pid(person) not in (0, supervisor)
    assert qemu(person) == pid
    person.run("systemctl", person.manager, "stop", SERVICE)
    assert person.state() == "active"
    assert qemu(person) == pid  # which starts the service again
    assert main_pid(person)


def test_a_restart_in_place_keeps_the_services_process(person: Person) -> None:
    pid, supervisor = person.ask("up", "demo")["pid"], main_pid(person)
    assert person.ask("supervisor", "restart")["pid"] == supervisor
    assert (main_pid(person), state(person, SERVICE)) == (supervisor, "active")
    assert qemu(person) == pid
    person.run("systemctl", person.manager, "restart", SERVICE)
    assert qemu(person) == pid


def test_a_supervisor_without_a_service_hands_over_to_it(lab: Lab) -> None:
    with user_of(lab, root=False) as user:
        pid = user.ask("up", "demo")["pid"]
        before = user.ask("supervisor", "status")["pid"]
        user.qlaunch("service", "install")
        assert main_pid(user) not in (0, before)
        assert qemu(user) == pid
        user.qlaunch("service", "uninstall")
        assert user.state() == "active"
        assert qemu(user) == pid
        assert "demo" in user.ask("supervisor", "status")["machines"]


def test_a_supervisor_that_hangs_is_replaced(user: Person) -> None:
    drop_in(user, SERVICE, "WatchdogSec=2")
    user.run("systemctl", user.manager, "restart", SERVICE)
    pid = user.ask("up", "demo")["pid"]
    supervisor = main_pid(user)
    kill(user, supervisor, "STOP")
    until(lambda: main_pid(user) not in (0, supervisor))
    assert qemu(user) == pid


def test_a_machine_that_hangs_does_not_count_as_a_hanging_supervisor(user: Person) -> None:
    drop_in(user, SERVICE, "WatchdogSec=2")
    user.run("systemctl", user.manager, "restart", SERVICE)
    pid, supervisor = user.ask("up", "demo")["pid"], main_pid(user)
    kill(user, pid, "STOP")
    until(lambda: user.ask("status", "demo")["state"] == "unresponsive")
    since = float(unit(user, SERVICE, "WatchdogTimestampMonotonic")[0])
    until(lambda: float(unit(user, SERVICE, "WatchdogTimestampMonotonic")[0]) > since)
    assert main_pid(user) == supervisor
    assert "killed" in user.qlaunch("kill", "demo").stderr


def test_after_too_many_crashes_a_command_still_finds_the_machine(user: Person) -> None:
    drop_in(user, SERVICE, "Restart=no")
    pid = user.ask("up", "demo")["pid"]
    kill(user, main_pid(user))
    until(lambda: state(user, SERVICE) == "failed")
    drop_in(user, SERVICE, "Restart=no", "ExecStart=", "ExecStart=/bin/false")
    assert qemu(user) == pid  # by a supervisor without the service
    assert main_pid(user) == 0


def test_twelve_machines_are_found_again(user: Person) -> None:
    names = [f"m{number}" for number in range(12)]
    path = f"{HOME}/.config/qlaunch/profiles"
    for name in names:
        user.run("sh", "-c", f"sed '/^.limits/,$d' {path}/demo.toml >{path}/{name}.toml")
    try:
        user.qlaunch("up", *names)
        before = {row["name"]: row["pid"] for row in user.ask("ps")["machines"]}
        assert set(before) == set(names)
        supervisor = main_pid(user)
        kill(user, supervisor)
        until(lambda: main_pid(user) not in (0, supervisor))
        rows = user.ask("ps")["machines"]
        assert {row["name"]: row["pid"] for row in rows} == before
        assert {row["state"] for row in rows} == {"running"}
    finally:
        user.qlaunch("kill", *names)


# ---- a machine's unit ----------------------------------------------------------------------------


def test_a_machines_unit_starts_and_stops_it(person: Person) -> None:
    person.run("systemctl", person.manager, "enable", "--now", UNIT)
    pid = qemu(person)
    read_console(person, "READY")
    listed = person.ask("service", "status")["machines"]
    assert listed == [{"name": "demo", "state": "active", "enabled": True}]
    person.run("systemctl", person.manager, "restart", UNIT)
    assert (state(person, UNIT), qemu(person) != pid) == ("active", True)
    read_console(person, "READY")
    person.run("systemctl", person.manager, "stop", UNIT)
    assert person.state() == "inactive"
    assert "guest-shutdown" in person.qlaunch("ps", "-a").stdout


def test_a_machines_unit_takes_on_one_that_runs(user: Person) -> None:
    pid = user.ask("up", "demo")["pid"]
    user.run("systemctl", user.manager, "start", UNIT)
    assert (state(user, UNIT), qemu(user)) == ("active", pid)


def test_a_machines_unit_ends_with_the_machine_and_not_with_its_restart(user: Person) -> None:
    user.run("systemctl", user.manager, "start", UNIT)
    read_console(user, "READY")
    user.qlaunch("restart", "demo")
    assert state(user, UNIT) == "active"
    read_console(user, "READY")
    user.qlaunch("down", "demo")
    until(lambda: state(user, UNIT) == "inactive")
    user.run("systemctl", user.manager, "start", UNIT)
    assert user.ask("status", "demo")["state"] == "running"


def test_a_machines_unit_fails_when_it_cannot_start(user: Person) -> None:
    done = user.run("systemctl", user.manager, "start", "qlaunch@nobody.service", check=False)
    assert done.returncode
    assert state(user, "qlaunch@nobody.service") == "failed"


# ---- the end of the computer ---------------------------------------------------------------------


class Deaf:
    """A guest that does not hear its power button; `power_off` on its console ends it."""

    def __init__(self, person: Person) -> None:
        person.ask("up", "demo")
        read_console(person, "READY")
        person.qlaunch("hmp", "demo", "o /w 0x602 0")
        words = [PYTHON, "-P", "-m", "qlaunch", "console", "demo", "--take"]
        argv = person.lab.command(words, root=person.root)
        pipe = subprocess.PIPE
        self._console = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self.log = Log(person)

    def __enter__(self) -> Deaf:
        assert self._console.stdout
        assert self._console.stdout.read(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.log.__exit__()
        self._console.kill()
        with self._console:
            pass

    def power_off(self) -> None:
        assert self._console.stdin
        self._console.stdin.write(b"q")
        self._console.stdin.flush()


def test_the_end_of_a_session_waits_for_the_guest(user: Person) -> None:
    with Deaf(user) as guest:
        argv = user.lab.command(["systemctl", "stop", MANAGER], root=True)
        with subprocess.Popen(argv) as stopping:
            guest.log.wait("power button pressed (2 times)")
            assert stopping.poll() is None
            guest.power_off()
            assert "guest-shutdown" in guest.log.wait("ended:")
            assert stopping.wait(PATIENCE) == 0
        user.lab.run("systemctl", "start", MANAGER, root=True)
    assert main_pid(user)  # it is enabled


def test_units_start_and_stop_in_the_order_that_the_profiles_ask_for(user: Person) -> None:
    folder = f"{HOME}/.config/qlaunch/profiles"
    after = f"sed 's/^on_crash.*/after = [\"demo\"]/' {folder}/demo.toml >{folder}/web.toml"
    user.run("sh", "-c", after)
    user.run("systemctl", user.manager, "enable", "qlaunch@web", "qlaunch@demo")
    user.lab.run("systemctl", "restart", MANAGER, root=True)
    until(lambda: state(user, "qlaunch@web.service") == "active")
    read_console(user, "READY")
    read_console(user, "READY", "web")
    user.lab.run("systemctl", "restart", MANAGER, root=True)
    web, demo = (moments(user, name) for name in ("web", "demo"))
    assert demo["starting"] < web["starting"]
    assert web["ended"] < demo["power"]
    until(lambda: state(user, "qlaunch@web.service") == "active")


def moments(person: Person, name: str) -> dict[str, str]:
    """When the machine's log first says each word."""
    text = person.qlaunch("logs", name).stdout
    lines = [line.split() for line in text.splitlines() if " qlaunch: " in line]
    return {words[2].strip(":"): words[0] for words in reversed(lines)}


def test_a_too_short_patience_of_systemd_is_told_and_cuts_the_guest(user: Person) -> None:
    assert checks(user)["shutdown"]["level"] == "ok"
    root = Person(user.lab, root=True)
    drop_in(root, "user@.service", "TimeoutStopSec=3s")
    try:
        told = checks(user)["shutdown"]
        assert f"{MANAGER} is cut after 3s" in told["message"]
        assert "user@.service.d/qlaunch.conf" in told["hint"]
        assert "TimeoutStopSec=105s" in told["hint"]
        with Deaf(user) as guest:
            root.run("systemctl", "stop", MANAGER)
            guest.log.wait("power button pressed")
        assert not root.run("pgrep", "qemu-system", check=False).stdout
    finally:
        root.run("rm", "-r", "/etc/systemd/system/user@.service.d")
        root.run("systemctl", "daemon-reload")
        root.run("systemctl", "start", MANAGER)
    assert "ended while no supervisor looked" in user.qlaunch("ps", "-a").stdout


def checks(person: Person) -> dict[str, dict[str, str]]:
    """What `service status` finds, by its topics; `doctor` finds the same."""
    found: list[dict[str, str]] = person.ask("service", "status")["checks"]
    told = [each["message"] for each in person.ask("doctor", check=False)["checks"]]
    assert {each["message"] for each in found} <= set(told)
    return {each["topic"]: each for each in found}


@pytest.fixture(params=["user", "system"])
def owner(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Person]:
    """Somebody with the service, on a computer of their own that may be powered off."""
    del lab  # there can be one
    with Lab() as computer:
        person = person_of(computer, root=request.param == "system")
        person.qlaunch("service", "install")
        yield person


def test_a_poweroff_of_the_computer_waits_for_the_guest(owner: Person) -> None:
    with Deaf(owner) as guest:
        owner.lab.run("systemctl", "--no-block", "poweroff", root=True)
        guest.log.wait("power button pressed (2 times)")
        guest.power_off()
        assert "guest-shutdown" in guest.log.wait("ended:")
        owner.lab.wait_end()


@pytest.mark.parametrize("owner", ["user"], indirect=True)
def test_without_linger_machines_end_with_the_session(owner: Person) -> None:
    assert checks(owner)["linger"]["level"] == "ok"
    owner.ask("up", "demo")
    read_console(owner, "READY")
    with Log(owner) as log:
        owner.lab.run("loginctl", "disable-linger", "qlaunch-lab", root=True)
        told = owner.qlaunch("service", "status").stdout
        assert "linger is off" in told
        assert "loginctl enable-linger qlaunch-lab" in told
        assert "guest-shutdown" in log.wait("ended:")


def test_autostart_switches_the_unit_of_a_machine(person: Person) -> None:
    assert person.ask("autostart", "demo", "on")["autostart"] == ["demo"]
    words = ("systemctl", person.manager, "is-enabled", UNIT)
    assert person.run(*words).stdout.strip() == "enabled"
    assert person.ask("autostart", "demo", "off")["autostart"] == []
    assert person.run(*words, check=False).stdout.strip() == "disabled"
