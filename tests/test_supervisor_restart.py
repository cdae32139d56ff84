"""`supervisor restart`: another supervisor in the same process, and nobody notices."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qlaunch.control import client
from qlaunch.errors import UsageError
from qlaunch.store import machines, paths
from tests.rig import PATIENCE, Rig, end, is_locked, nothing_left, qlaunch, until

pytestmark = pytest.mark.qemu


def restart() -> dict[str, Any]:
    words = ("supervisor", "restart", "--json")
    process = qlaunch(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err.decode()
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_a_restart_is_in_place_and_keeps_every_machine(rig: Rig) -> None:
    pids = {name: rig.up(name)["pid"] for name in ("demo", "other")}
    rig.ready()
    supervisor, before = rig.supervisor(), rig.ask("supervisor")
    for _ in range(3):
        found = restart()
        assert found["pid"] == supervisor
        assert found["since"] > before["since"]
        assert found["machines"] == ["demo", "other"]
        assert {row["name"]: row["pid"] for row in rig.ask("ps")["machines"]} == pids
        assert is_locked("demo")
    rig.responds()
    descriptors = len(list(Path(f"/proc/{supervisor}/fd").iterdir()))
    restart()
    until(lambda: len(list(Path(f"/proc/{supervisor}/fd").iterdir())) <= descriptors + 1, "fds")


def test_a_child_from_before_is_reaped_and_its_end_is_known(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.up("other")
    rig.supervisor()
    restart()
    end(pid)
    rig.ask("wait", name="demo")
    last = machines.last_end("demo")
    assert last is not None
    assert last["reason"] == "QEMU was ended by SIGKILL"
    until(lambda: not Path(f"/proc/{pid}").exists(), "the child to be reaped")
    assert nothing_left() == []


def test_who_asks_meanwhile_waits_and_is_answered(rig: Rig) -> None:
    rig.up()
    supervisor = rig.supervisor()
    asked = [rig.later_client("ps") for _ in range(8)]
    restart()
    asked += [rig.later_client("ps") for _ in range(8)]
    for each in asked:
        rows = each.result(PATIENCE)["machines"]
        assert [row["name"] for row in rows] == ["demo"]
    assert rig.supervisor() == supervisor


def test_a_restart_takes_a_moment_only(rig: Rig) -> None:
    rig.up()
    rig.supervisor()
    begun = time.monotonic()
    with client.open_connection(start=False) as connection:
        connection.ask("supervisor", {"action": "restart"})
        assert connection.socket.recv(1) == b""
    rig.ask("ps")
    assert time.monotonic() - begun < PATIENCE


def test_a_restart_when_none_runs_starts_one(rig: Rig) -> None:
    assert restart()["machines"] == []


def test_what_it_cannot_do_is_told(rig: Rig) -> None:
    with pytest.raises(UsageError, match="cannot 'dance'"):
        rig.ask("supervisor", action="dance")
    assert paths.control_socket()
