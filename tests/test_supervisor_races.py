"""Several at once: starts, stops, supervisors. One wins, and the others are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from qlaunch.control import client
from qlaunch.errors import BusyError, ConflictError, QlaunchError
from qlaunch.store import paths
from tests.rig import (
    TOP,
    Rig,
    is_alive,
    listens,
    mute_qemu,
    nothing_left,
    raw,
    request,
    until,
    write_profile,
)

pytestmark = pytest.mark.qemu


def outcome(future: Future[Any]) -> Any:
    try:
        return future.result(timeout=50)
    except QlaunchError as error:
        return error


def test_of_two_starts_of_one_machine_one_wins_and_the_other_is_told(rig: Rig) -> None:
    path = write_profile("demo")
    rig.supervisor()
    ends = [outcome(future) for future in [rig.later("up", profile=path) for _ in range(4)]]
    lost = [end for end in ends if isinstance(end, QlaunchError)]
    assert len(lost) == 3
    for error in lost:
        assert isinstance(error, ConflictError)
        assert "demo is " in error.message or "machine demo" in error.message
    assert rig.row()["state"] == "running"


def test_a_start_of_a_machine_that_runs_is_told_its_pid(rig: Rig) -> None:
    pid = rig.up()["pid"]
    with pytest.raises(ConflictError, match=rf"demo is running already \(pid {pid}\)"):
        rig.up()


def test_two_profiles_with_one_name_are_told_apart(rig: Rig, own_place: Path) -> None:
    first = write_profile("web", folder=str(own_place / "one"))
    second = write_profile("web", folder=str(own_place / "two"))
    rig.ask("up", profile=first)
    with pytest.raises(ConflictError, match="web is running already") as caught:
        rig.ask("up", profile=second)
    assert first in str(caught.value.hint)
    assert rig.ask("up", profile=second, name="web2")["name"] == "web2"


def test_eight_machines_start_at_once(rig: Rig) -> None:
    names = [f"m{number}" for number in range(8)]
    profiles = [write_profile(name) for name in names]
    starts = [rig.later("up", profile=path) for path in profiles]
    assert sorted(outcome(start)["name"] for start in starts) == names
    rows = rig.ask("ps")["machines"]
    assert [row["state"] for row in rows] == ["running"] * 8
    stops = [rig.later("kill", name=name) for name in names]
    assert [outcome(stop)["name"] for stop in stops] == names
    assert [nothing_left(name) for name in names] == [[]] * 8


@pytest.mark.parametrize("verb", ["down", "kill"])
def test_a_stop_cancels_a_start(rig: Rig, verb: str) -> None:
    path = write_profile("demo")
    start = rig.later("up", profile=path, set=[f"machine.emulator={mute_qemu()}"])
    until(lambda: rig.row().get("state") == "starting", "the start")
    assert rig.ask(verb, name="demo")["how"] == "its start was cancelled"
    error = outcome(start)
    assert isinstance(error, BusyError)
    assert error.message == f"demo: starting was cancelled by `{verb}`"
    assert nothing_left() == []


def test_a_second_stop_is_told_of_the_first(rig: Rig) -> None:
    first = slow_stop(rig)
    with pytest.raises(BusyError, match="demo is stopping"):
        rig.ask("down", name="demo")
    with pytest.raises(BusyError, match="demo is stopping"):
        rig.ask("reset", name="demo")
    rig.kill()
    assert isinstance(outcome(first), BusyError)


def test_a_kill_ends_a_stop_that_takes_long_and_says_so(rig: Rig) -> None:
    first = slow_stop(rig)
    assert rig.ask("kill", name="demo")["how"] in ("host-qmp-quit", "QEMU was ended by SIGKILL")
    assert outcome(first).message == "demo: stopping was cancelled by `kill`"
    assert nothing_left() == []


def slow_stop(rig: Rig) -> Future[Any]:
    """A graceful stop under way of a guest that does not hear the power button."""
    rig.up()
    rig.ready()
    # Without the button's enable bit the guest never learns of it.
    rig.ask("hmp", name="demo", line="o /w 0x602 0")
    stop = rig.later("down", name="demo")
    until(lambda: "power button" in rig.machine_log(), "the button")
    return stop


def test_forty_supervisors_race_and_one_wins() -> None:
    argv = [sys.executable, "-P", "-m", "qlaunch.supervisor", "--ready-fd"]
    starters = []
    for _ in range(40):
        ready, tell = os.pipe()
        starters.append((ready, subprocess.Popen([*argv, str(tell)], pass_fds=[tell], cwd=TOP)))
        os.close(tell)
    # With a client it does not end before the last one has come.
    until(lambda: listens(paths.control_socket()), "the winner")
    words = []
    with raw(request("wait", name="demo", **{"for": "running"})):
        for ready, _ in starters:
            with os.fdopen(ready, "rb") as pipe:
                words.append(pipe.read())
    client.ask("supervisor", {"action": "stop"}, start=False)
    assert [process.wait(30) for _, process in starters] == [0] * 40
    assert sorted(words) == [b"held"] * 39 + [b"ready"]


def test_who_comes_while_the_supervisor_ends_is_served(rig: Rig) -> None:
    for _ in range(5):
        stopping = rig.later_client("supervisor", action="stop")
        asked = [rig.later_client("ps") for _ in range(4)]
        assert outcome(stopping)["machines"] == []
        found = [outcome(future) for future in asked]
        assert [each["machines"] for each in found] == [[]] * 4, found


def test_a_supervisor_that_hangs_at_its_end_does_not_keep_the_next_one_waiting_for_ever(
    rig: Rig,
) -> None:
    pid = rig.supervisor()
    os.kill(pid, signal.SIGSTOP)
    os.unlink(paths.control_socket())
    later = rig.later("ps")
    os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGTERM)
    assert outcome(later)["machines"] == []
    assert not is_alive(pid)
