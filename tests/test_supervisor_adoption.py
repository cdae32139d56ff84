"""Supervisors that end, in whatever way and at whatever moment: no machine is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qlaunch.control import client
from qlaunch.errors import QlaunchError
from qlaunch.store import machines, paths
from tests.rig import (
    Rig,
    answer,
    end,
    is_alive,
    mute_qemu,
    nothing_left,
    raw,
    request,
    until,
    write_profile,
)

pytestmark = [pytest.mark.qemu, pytest.mark.fault]
ROUNDS = 12


def state_file(name: str, machine: str = "demo") -> Path:
    return Path(paths.machine_state(machine)) / name


# ---- between two supervisors --------------------------------------------------------------------


def test_the_next_supervisor_takes_over_after_a_kill(rig: Rig) -> None:
    pid = rig.up("demo", "display.vnc=true")["pid"]
    rig.ready()
    before = rig.row()
    rig.kill_supervisor()
    after = rig.row()
    assert (after["pid"], after["state"]) == (pid, "running")
    assert after["display"] == before["display"]
    assert all(os.path.exists(uri.partition("://")[2]) for uri in after["display"])
    assert abs(after["since"] - before["since"]) < 1
    with rig.console() as console:
        console.expect("READY\r\n")  # from the log: the guest does not say it again
        console.send("+")
        console.expect(r"count=1\r")
    assert rig.ask("down", name="demo")["how"] == "guest-shutdown"
    assert nothing_left() == []


def test_machines_run_on_when_the_supervisor_is_told_to_stop(rig: Rig) -> None:
    names = ["m0", "m1", "m2"]
    pids = {name: rig.up(name)["pid"] for name in names}
    for number in (signal.SIGTERM, None):
        if number is None:
            client.ask("supervisor", {"action": "stop"}, start=False)
        else:
            os.kill(rig.supervisor(), number)
        rig.wait_supervisor_ends()
        assert all(is_alive(pid) for pid in pids.values())
        assert all(state_file("run.json", name).exists() for name in names)
        rows = rig.ask("ps")["machines"]
        assert {row["name"]: row["pid"] for row in rows} == pids
        assert {row["state"] for row in rows} == {"running"}


def test_a_machine_that_ended_meanwhile_is_stopped(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.kill_supervisor()
    end(pid)
    assert rig.row() == {}
    last = machines.last_end("demo")
    assert last is not None
    assert last["reason"] == "ended while no supervisor looked"
    assert nothing_left() == []


def test_an_end_that_comes_after_the_adoption_is_noticed(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.kill_supervisor()
    rig.row()
    waiting = rig.later("wait", name="demo")
    end(pid)
    waiting.result(timeout=30)
    assert nothing_left() == []


def test_qemu_that_hangs_is_adopted_as_unresponsive_and_can_be_killed(rig: Rig) -> None:
    pid = rig.up()["pid"]
    os.kill(pid, signal.SIGSTOP)
    rig.kill_supervisor()
    row = rig.row()
    assert (row["pid"], row["state"]) == (pid, "unresponsive")
    rig.kill()
    assert not is_alive(pid)
    assert nothing_left() == []


def test_qemu_that_hung_at_its_adoption_is_talked_to_when_it_can_be(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.ready()
    os.kill(pid, signal.SIGSTOP)
    rig.kill_supervisor()
    assert rig.row()["state"] == "unresponsive"
    os.kill(pid, signal.SIGCONT)
    until(lambda: rig.row()["state"] == "running", "the conversation")
    with rig.console() as console:
        console.send("+")
        console.expect(r"count=1\r")
    assert rig.ask("down", name="demo")["how"] == "guest-shutdown"


def test_a_paused_start_stays_paused_over_a_new_supervisor(rig: Rig) -> None:
    rig.up(paused=True)
    rig.kill_supervisor()
    assert rig.row()["state"] == "prelaunch"
    rig.ask("resume", name="demo")
    rig.ready()


def test_a_restart_after_a_crash_works_for_an_adopted_machine(rig: Rig) -> None:
    pid = rig.up("demo", "lifecycle.on_crash=restart")["pid"]
    rig.kill_supervisor()
    assert rig.row()["pid"] == pid
    end(pid)
    until(lambda: rig.row().get("pid") not in (None, pid), "the new start")
    rig.ready()


# ---- damaged files ------------------------------------------------------------------------------

DAMAGE = {
    "torn": b'{"version": 1, "nam',
    "empty": b"",
    "binary": bytes(range(256)),
    "other version": b'{"version": 99}',
    "other shape": b'{"version": 1, "process": [], "name": 3}',
    "a list": b"[]",
}


def test_a_damaged_note_about_a_running_machine_loses_nothing(rig: Rig) -> None:
    pid = rig.up()["pid"]
    for what, damage in DAMAGE.items():
        rig.kill_supervisor()
        state_file("run.json").write_bytes(damage)
        row = rig.row()
        assert (row["pid"], row["state"]) == (pid, "running"), what
        assert state_file("run.json.damaged").read_bytes() == damage
    rig.kill_supervisor()
    assert rig.row()["pid"] == pid
    rig.kill()
    assert nothing_left() == []


def test_a_note_with_a_damaged_process_is_made_good(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.kill_supervisor()
    state_file("run.json").write_text('{"version": 1, "process": {"pid": "x"}}', encoding="utf-8")
    assert rig.row()["pid"] == pid


@pytest.mark.parametrize("damage", ["torn", "other version"])
def test_a_damaged_plan_of_a_running_machine_leaves_it_killable(rig: Rig, damage: str) -> None:
    pid = rig.up()["pid"]
    rig.kill_supervisor()
    state_file("plan.json").write_bytes(DAMAGE[damage])
    row = rig.row()
    assert (row["state"], is_alive(pid)) == ("unresponsive", True)
    with pytest.raises(QlaunchError, match=rf"QEMU \(pid {pid}\)"):
        rig.ask("down", name="demo")
    rig.kill_supervisor()
    assert rig.row()["state"] == "unresponsive"
    rig.kill()
    assert not is_alive(pid)
    assert nothing_left() == []
    assert state_file("plan.json.damaged").read_bytes() == DAMAGE[damage]


def test_damaged_leases_are_set_aside_and_named(rig: Rig) -> None:
    state_file("").mkdir(parents=True)
    for what, damage in DAMAGE.items():
        damaged = damage.replace(b'"name": 3', b'"macs": 3')
        state_file("leases.json").write_bytes(damaged)
        warnings = rig.up()["warnings"]
        assert [warning["where"] for warning in warnings] == [str(state_file("leases.json"))], what
        assert str(state_file("leases.json.damaged")) in warnings[0]["hint"]
        assert state_file("leases.json.damaged").read_bytes() == damaged
        assert rig.row()["warnings"] == warnings
        rig.kill()


def test_everything_damaged_at_once(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.kill_supervisor()
    for name in ("run.json", "plan.json", "leases.json", "last.json"):
        state_file(name).write_bytes(DAMAGE["binary"])
    assert rig.row()["state"] == "unresponsive"
    rig.kill()
    assert not is_alive(pid)
    assert rig.up()["pid"]


# ---- killed at any moment -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_supervisor_killed_while_machines_start_leaves_them_whole_or_gone(rig: Rig) -> None:
    chance = random.Random(20260101)
    path = write_profile("demo")
    rig.supervisor()
    usual = float(rig.up()["seconds"])
    rig.kill()
    for _ in range(ROUNDS):
        shutil.rmtree(paths.machine_data("demo"), ignore_errors=True)
        pid = rig.supervisor()
        with raw(request("up", profile=path)) as connection:
            wait_a_moment(connection, chance.uniform(0, 1.2 * usual))
            end(pid)
        check_true(rig)
    assert rig.up()["pid"]


@pytest.mark.parametrize("step", ["disk", "qemu"])
def test_a_supervisor_killed_at_a_step_of_a_start(rig: Rig, step: str) -> None:
    path = write_profile("demo")
    pid = rig.supervisor()
    with raw(request("up", profile=path)) as connection:
        while answer(connection)["progress"]["step"] != step:
            pass
        end(pid)
    check_true(rig)
    assert rig.up()["pid"]


def test_a_supervisor_killed_while_qemu_is_silent_leaves_it_to_be_killed(rig: Rig) -> None:
    path = write_profile("demo")
    script = Path(mute_qemu())
    text = script.read_text(encoding="utf-8").replace("exec tail -f /dev/null --pid=$PPID", SILENT)
    script.write_text(text.replace("/bin/sh", "/bin/bash"), encoding="utf-8")
    pid = rig.supervisor()
    with raw(request("up", profile=path, set=[f"machine.emulator={script}"])) as connection:
        assert answer(connection)["progress"]["step"] == "disk"
        until(lambda: b'"pid"' in read(state_file("run.json")), "QEMU's note")
        end(pid)
    assert rig.row()["state"] == "unresponsive"
    rig.kill()
    assert nothing_left() == []


SILENT = "exec sleep 1000"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_supervisor_killed_while_machines_stop_leaves_them_whole_or_gone(rig: Rig) -> None:
    chance = random.Random(20260102)
    for verb in ("down", "kill") * (ROUNDS // 2):
        pid = rig.up()["pid"]
        rig.ready()
        supervisor = rig.supervisor()
        with raw(request(verb, name="demo")) as connection:
            wait_a_moment(connection, chance.uniform(0, 0.1))
            end(supervisor)
        check_true(rig)
        if rig.row():
            rig.kill()
        assert not is_alive(pid)
        assert nothing_left() == []


def wait_a_moment(connection: Any, seconds: float) -> None:
    """Wait for so long, but not longer than the request takes."""
    connection.settimeout(max(seconds, 0.001))
    data = b""
    try:
        while b'"result"' not in data and (chunk := connection.recv(4096)):
            data += chunk
    except TimeoutError:
        pass


def check_true(rig: Rig) -> None:
    """What `ps` says is so, and the disk is well."""
    row = rig.row()
    if row:
        assert (row["state"], is_alive(row["pid"])) == ("running", True)
        assert rig.ask("qmp", name="demo", command="query-status")["return"]["running"]
        rig.responds()
        rig.kill()
    assert nothing_left_but_parts() == []
    for image in Path(paths.machine_data("demo")).glob("*.qcow2"):
        subprocess.run(["qemu-img", "check", "-q", str(image)], check=True)


def test_sockets_of_a_start_that_was_cut_off_before_it_was_noted_are_removed(rig: Rig) -> None:
    rig.up()
    rig.kill()
    pid = rig.supervisor()
    end(pid)
    folder = Path(paths.machine_runtime("demo"))
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "spice.sock"))
    assert rig.row() == {}
    assert not folder.exists()


def nothing_left_but_parts() -> list[str]:
    """A half-made image stays until the next start, under a name that nobody takes for an image."""
    return [entry for entry in nothing_left() if ".part-" not in entry]


def read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
