"""QEMU that dies or hangs, at its start, while it runs and at its stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from qlaunch.errors import CommandError, LaunchError, PhaseError, QlaunchError, TimedOutError
from qlaunch.machine import launch
from qlaunch.store import paths
from tests import rig as rigs
from tests.rig import Rig, end, is_alive, mute_qemu, nothing_left, until, write_profile

pytestmark = [pytest.mark.qemu, pytest.mark.fault]


def last_end(name: str = "demo") -> str:
    path = Path(paths.machine_state(name)) / "last.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["reason"])


@pytest.mark.parametrize(
    "args, words",
    [
        ('"-no-such-option"', "-no-such-option: invalid option"),
        ('"-device", "no-such-device"', "'no-such-device' is not a valid device model name"),
        ('"-drive", "file=/no/such/file"', "Could not open '/no/such/file': No such file"),
    ],
)
def test_qemu_that_dies_at_once_says_why_and_leaves_nothing(
    rig: Rig, args: str, words: str
) -> None:
    write_profile("demo", f"[qemu]\nargs = [{args}]\n")
    with pytest.raises(LaunchError) as caught:
        rig.up()
    assert words in caught.value.message
    assert nothing_left() == []
    assert rig.row() == {}


def test_an_emulator_that_is_killed_at_once_is_told(rig: Rig) -> None:
    script = Path(mute_qemu())
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("exec tail", "kill -9 $$; exec tail"), encoding="utf-8")
    with pytest.raises(LaunchError, match="QEMU ended at once"):
        rig.up("demo", f"machine.emulator={script}")
    assert "signal 9" in rig.machine_log()
    assert nothing_left() == []


@pytest.mark.usefixtures("quick_greeting")
def test_qemu_that_says_nothing_is_ended_after_its_time() -> None:
    with rigs.in_process() as rig:
        with pytest.raises(TimedOutError, match="said nothing for 1 s"):
            rig.up("demo", f"machine.emulator={mute_qemu()}")
        assert nothing_left() == []


@pytest.fixture
def quick_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GREETING_TIMEOUT", 1.0)


def test_qemu_that_is_killed_is_noted_as_failed(rig: Rig) -> None:
    pid = rig.up()["pid"]
    waiting = rig.later("wait", name="demo")
    end(pid)
    waiting.result(timeout=30)
    assert last_end() == "QEMU was ended by SIGKILL"
    assert nothing_left() == []
    assert rig.up()["pid"] != pid


def test_a_guest_that_powers_off_did_not_fail(rig: Rig) -> None:
    rig.up()
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send("q")
    rig.ask("wait", name="demo")
    assert last_end() == "guest-shutdown"


def test_a_shutdown_that_is_read_late_is_no_crash(rig: Rig) -> None:
    pid = rig.up("demo", "lifecycle.on_crash=restart")["pid"]
    rig.ready()
    supervisor = rig.supervisor()
    monitor = rig.ask("status", name="demo")["sockets"]["monitor"]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        # QEMU's last event and its end are both there when the supervisor looks again.
        with socket.socket(socket.AF_UNIX) as mine, mine.makefile("r") as answers:
            mine.connect(monitor)
            mine.sendall(b'{"execute": "qmp_capabilities"}{"execute": "quit"}')
            assert answers.read()
    finally:
        os.kill(supervisor, signal.SIGCONT)
    rig.ask("wait", name="demo")
    assert not is_alive(pid)
    assert last_end() == "host-qmp-quit"


def test_qemu_that_hangs_is_shown_so_soon_and_can_be_killed(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.up("other")
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert rig.row()["state"] == "unresponsive"
    assert time.monotonic() - begun < 5
    assert rig.row("other")["state"] == "running"
    assert rig.ask("kill", name="demo")["how"] == "QEMU was ended by SIGKILL"
    assert nothing_left() == []


def test_qemu_that_hung_for_a_while_is_well_again(rig: Rig) -> None:
    pid = rig.up()["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert rig.row()["state"] == "unresponsive"
    os.kill(pid, signal.SIGCONT)
    assert rig.row()["state"] == "running"


def test_a_graceful_stop_does_not_end_qemu_that_hangs_for_a_while(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.ready()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TimedOutError, match="still runs"):
        rig.ask("down", name="demo", timeout=3)
    assert is_alive(pid)
    os.kill(pid, signal.SIGCONT)
    rig.ask("down", name="demo")
    assert nothing_left() == []


def test_who_asks_qemu_that_hangs_is_told_that_it_does_not_answer(rig: Rig) -> None:
    pid = rig.up()["pid"]
    os.kill(pid, signal.SIGSTOP)
    with rig.connect() as connection:
        asked = rigs.request("qmp", name="demo", command="query-status")
        connection.socket.sendall(asked)  # and hangs up: nobody waits for QEMU then
    os.kill(pid, signal.SIGCONT)
    until(lambda: rig.row()["state"] == "running", "an answer")


def test_a_crash_is_answered_with_a_new_start_if_the_profile_says_so(rig: Rig) -> None:
    pid = rig.up("demo", "lifecycle.on_crash=restart")["pid"]
    end(pid)
    again = until(lambda: rig.row().get("pid") not in (None, pid) and rig.row()["pid"], "a start")
    assert again != pid
    rig.ready()
    rig.kill()
    assert rig.row() == {}
    assert nothing_left() == []


def test_a_machine_that_crashes_all_the_time_is_started_ten_times_a_minute(rig: Rig) -> None:
    rig.up("demo", "lifecycle.on_crash=restart")
    seen = set()
    while pid := until(lambda: running_pid(rig) or not rig.row(), "a start or the end"):
        if pid is True:
            break
        seen.add(pid)
        end(int(pid))
    assert len(seen) == 11
    assert str(last_end()).startswith("QEMU was ended by SIGKILL; not started again: 10 times")
    assert nothing_left() == []


def running_pid(rig: Rig) -> int | None:
    row = rig.row()
    return int(row["pid"]) if row.get("state") == "running" and is_alive(row["pid"]) else None


def test_a_start_by_policy_that_fails_is_the_end(rig: Rig) -> None:
    write_profile("demo", '[lifecycle]\non_crash = "restart"\n')
    pid = rig.up()["pid"]
    Path(paths.machine_data("demo"), "disk0.qcow2").unlink()
    end(pid)
    until(lambda: rig.row() == {}, "the end")
    assert "not started again" in last_end()
    assert nothing_left() == []


def test_a_monitor_command_that_ends_qemu_is_no_crash(rig: Rig) -> None:
    rig.up("demo", "lifecycle.on_crash=restart")
    rig.ask("qmp", name="demo", command="quit")
    rig.ask("wait", name="demo")
    assert last_end() == "host-qmp-quit"


def test_the_first_errors_words_win_over_later_warnings(rig: Rig) -> None:
    with pytest.raises(QlaunchError, match="bad"):
        rig.up("demo", 'qemu.args=["-global","bad"]')
    assert nothing_left() == []


def test_verbs_that_need_a_guest_say_when_there_is_none_yet(rig: Rig) -> None:
    path = write_profile("demo")
    rig.later("up", profile=path, set=[f"machine.emulator={mute_qemu()}"])
    until(lambda: rig.row().get("state") == "starting", "the start")
    for verb in ("pause", "screenshot", "console"):
        with pytest.raises(PhaseError, match="demo is starting"):
            rig.ask(verb, name="demo")
    rig.kill()


def test_an_answer_that_is_an_error_is_told_in_qemus_words(rig: Rig) -> None:
    rig.up()
    with pytest.raises(CommandError, match="Device 'nothing' not found"):
        rig.ask("qmp", name="demo", command="device_del", arguments={"id": "nothing"})
