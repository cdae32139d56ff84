"""The supervisor's own life: it ends when it is idle, sleeps when nothing happens, and there may be
others beside it, in the foreground."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from pathlib import Path
from typing import IO

import pytest

from qlaunch.control import client
from qlaunch.errors import ConflictError, NoSupervisorError
from qlaunch.store import machines, paths
from tests.rig import (
    PATIENCE,
    Rig,
    end,
    is_alive,
    listens,
    mute_qemu,
    nothing_left,
    qlaunch,
    until,
    write_profile,
)

pytestmark = pytest.mark.qemu


def test_an_idle_supervisor_ends_by_itself_and_the_next_client_is_served(rig: Rig) -> None:
    first = rig.supervisor()
    until(lambda: not is_alive(first), "its end")
    assert not os.path.exists(paths.control_socket())
    with pytest.raises(NoSupervisorError):
        client.ask("ps", {}, start=False)
    assert rig.supervisor() != first


def test_a_supervisor_with_a_machine_does_not_end(rig: Rig) -> None:
    rig.up()
    pid = rig.supervisor()
    waiting = rig.later("wait", name="demo", timeout=2.5)
    with pytest.raises(Exception, match="not stopped"):
        waiting.result(timeout=30)
    assert rig.supervisor() == pid


def test_a_supervisor_sleeps_while_nothing_happens(rig: Rig) -> None:
    for name in ("m0", "m1"):
        rig.up(name)
        rig.ready(name)
        rig.ask("pause", name=name)
    pid = rig.supervisor()
    before = wake_ups(pid)
    with pytest.raises(TimeoutError):
        rig.later("wait", name="m0").result(timeout=3)
    # The question itself wakes it a few times; a timer would do so for ever.
    assert wake_ups(pid) - before < 30
    assert descriptors(pid) < 60


def wake_ups(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("voluntary_ctxt_switches:")[2].split()[0])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_descriptors_are_given_back(rig: Rig) -> None:
    rig.up("other")
    rig.up()
    rig.kill()
    pid = rig.supervisor()
    before = descriptors(pid)
    for _ in range(4):
        rig.up()
        rig.ready()
        rig.ask("screenshot", name="demo")
        rig.kill()
    assert descriptors(pid) <= before + 1


# ---- in the foreground --------------------------------------------------------------------------


class Foreground:
    """`qlaunch run` and what it says."""

    def __init__(self, *words: str) -> None:
        path = write_profile("demo")
        self.process = qlaunch("run", path, *words, stderr=subprocess.PIPE, bufsize=0)
        self.said = ""

    def __enter__(self) -> Foreground:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._pipe.close()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self.process.stderr is not None
        return self.process.stderr

    def expect(self, text: str) -> None:
        while text not in self.said:
            assert select.select([self._pipe], [], [], PATIENCE)[0], self.said
            chunk = self._pipe.read(4096) or b""
            assert chunk, self.said
            self.said += chunk.decode()

    def ends(self) -> int:
        self.said += self._pipe.read().decode()
        return self.process.wait(PATIENCE)


def test_run_ends_with_the_guest_and_says_how(rig: Rig) -> None:
    with Foreground() as run:
        run.expect("demo runs; Ctrl-C stops it")
        with rig.console() as console:
            console.expect("READY\r\n")
            console.send("q")
        assert run.ends() == 0
        assert "demo ended: guest-shutdown" in run.said
    assert nothing_left() == []
    assert not os.path.exists(paths.run_socket("demo"))


def test_run_ends_badly_when_qemu_does(rig: Rig) -> None:
    with Foreground() as run:
        run.expect("demo runs")
        end(int(client.ask("ps", {}, name="demo")["machines"][0]["pid"]))
        assert run.ends() == 1
        assert "SIGKILL" in run.said


def test_run_tells_a_service_manager_when_it_is_ready_and_when_it_stops(
    rig: Rig, own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(str(own_place / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(own_place / "notify"))
        with Foreground() as run:
            while (told := manager.recv(4096)) != b"READY=1\nSTATUS=demo runs":
                assert told.startswith(b"STATUS=demo: ")
            rig.ready()
            run.process.send_signal(signal.SIGTERM)
            assert manager.recv(4096).startswith(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=120000000")
            assert manager.recv(4096) == b"STATUS=demo: power button pressed"
            assert run.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_graceful_stop(rig: Rig, number: signal.Signals) -> None:
    with Foreground() as run:
        run.expect("demo runs")
        rig.ready()
        run.process.send_signal(number)
        run.expect("power button pressed")
        assert run.ends() == 0
    assert nothing_left() == []


def test_a_second_signal_forces_it(rig: Rig) -> None:
    with Foreground() as run:
        run.expect("demo runs")
        rig.ready()
        # Without the button's enable bit the guest never learns of it.
        with client.open_connection(name="demo") as connection:
            connection.ask("hmp", {"name": "demo", "line": "o /w 0x602 0"})
        run.process.send_signal(signal.SIGINT)
        run.expect("power button pressed")
        run.process.send_signal(signal.SIGINT)
        assert run.ends() == 0
    assert nothing_left() == []


def test_a_signal_while_it_starts_undoes_the_start(rig: Rig) -> None:
    with Foreground("--set", f"machine.emulator={mute_qemu()}") as run:
        run.expect("made disk0.qcow2")
        run.process.send_signal(signal.SIGINT)
        assert run.ends() != 0
        assert "Traceback" not in run.said
    assert nothing_left() == []


def test_run_says_why_it_cannot_start(rig: Rig) -> None:
    with Foreground("--set", 'qemu.args=["-no-such-option"]') as run:
        assert run.ends() == 1
        assert "-no-such-option: invalid option" in run.said
        assert "Traceback" not in run.said
    assert nothing_left() == []


def test_what_runs_in_the_foreground_is_seen_and_stopped_by_all(rig: Rig) -> None:
    with Foreground() as run:
        run.expect("demo runs")
        rig.up("other")
        rows = {row["name"]: row["state"] for row in rig.ask("ps")["machines"]}
        assert rows == {"demo": "running", "other": "running"}
        with pytest.raises(ConflictError, match=r"machine demo is held|in use by"):
            rig.up()
        rig.ready()
        assert rig.ask("down", name="demo")["how"] == "guest-shutdown"
        assert run.ends() == 0


def test_a_foreground_that_hangs_does_not_keep_ps_from_answering(rig: Rig) -> None:
    with Foreground() as run:
        run.expect("demo runs")
        rig.up("other")
        run.process.send_signal(signal.SIGSTOP)
        with client.open_connection() as connection:
            connection.socket.settimeout(10)
            rows = connection.ask("ps", {})["machines"]
        assert [row["name"] for row in rows] == ["other"]
        run.process.send_signal(signal.SIGCONT)
        rig.ready()
        rig.ask("kill", name="demo")
        assert run.ends() == 0


@pytest.mark.fault
def test_a_machine_whose_foreground_was_killed_is_adopted(rig: Rig) -> None:
    with Foreground() as run:
        run.expect("demo runs")
        rig.up("other")
        pid = client.ask("ps", {}, name="demo")["machines"][0]["pid"]
        end(run.process.pid)
        assert rig.row()["pid"] == pid
        assert not listens(paths.run_socket("demo"))
        rig.ask("kill", name="demo")
    assert nothing_left() == []


def test_run_refuses_a_machine_that_runs(rig: Rig) -> None:
    pid = rig.up()["pid"]
    with Foreground() as run:
        assert run.ends() == 5
        assert f"demo runs already (pid {pid})" in run.said
    assert machines.load_run("demo") is not None
