"""The verbs on machines, against a supervisor of canned answers."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qlaunch import errors
from qlaunch.cli.main import main
from qlaunch.control import words
from qlaunch.store import paths
from tests.cli_peer import (
    PATIENCE,
    Peer,
    machine,
    supervisor,
    write_profile,
    write_state,
)

STEP = {"machine": "xp", "step": "disk hda", "text": "made 20GiB qcow2", "seconds": 0.012}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with supervisor() as peer:
        yield peer


def ps_reply(*machines: dict[str, Any]) -> dict[str, Any]:
    return {"supervisor": {"pid": 1, "version": "0", "since": 0.0}, "machines": list(machines)}


# ---- ps and status ------------------------------------------------------------------------------


def test_ps_without_a_supervisor_is_an_empty_list_and_starts_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["ps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"supervisor": None, "machines": []}
    assert not os.path.exists(paths.runtime_dir())


def test_ps_shows_aligned_columns(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.result(
        "ps",
        ps_reply(
            machine("xp"), machine("longer", pid=7, warnings=["no KVM"], network=["default (netd)"])
        ),
    )
    monkeypatch.setattr("time.time", lambda: 720.0)
    assert main(["ps"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "NAME    STATE     SINCE   PID     MEM  CPU  NETWORK         CONNECT",
        "xp      running  12 min  4711  64 MiB   3%  -               spice+unix:///run/xp.sock",
        "longer  running  12 min     7  64 MiB   3%  default (netd)  spice+unix:///run/longer.sock",
    ]
    assert output.err == "longer: no KVM\n"


def test_ps_formats_and_filters(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.result("ps", ps_reply(machine("web-1"), machine("web-2"), machine("db")))
    assert main(["ps", "web-*", "--format", "{name} {pid} {display}{title}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "web-1 4711 spice+unix:///run/web-1.sock",
        "web-2 4711 spice+unix:///run/web-2.sock",
    ]
    assert main(["ps", "--format", "{nome}"]) == 2
    assert main(["ps", "nobody"]) == 4


def test_ps_all_adds_what_does_not_run_and_why(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile("xp")
    write_profile("old")
    write_state("old", "last.json", json.dumps({"reason": "the guest powered off", "when": 1.0}))
    write_state("torn", "last.json", "{")
    write_profile("torn")
    peer.result("ps", ps_reply(machine("xp")))
    assert main(["ps", "-a", "--json", "xp", "old", "torn"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["machines"]}
    assert {name: each["state"] for name, each in listed.items()} == {
        "xp": "running",
        "old": "stopped",
        "torn": "stopped",
    }
    assert (listed["old"]["reason"], listed["old"]["since"]) == ("the guest powered off", 1.0)


def test_ps_all_shows_a_machine_that_was_started_from_a_file_elsewhere(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state("elsewhere", "last.json", json.dumps({"reason": "guest-shutdown", "when": 1.0}))
    write_state("never", "leases.json", "{}")
    peer.result("ps", ps_reply())
    assert main(["ps", "-a", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["machines"]}
    assert listed["elsewhere"]["reason"] == "guest-shutdown"
    assert "never" not in listed


def test_ps_shows_machines_that_run_in_the_foreground(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    peer.result("ps", ps_reply(machine("xp")))
    with supervisor(paths.run_socket("ci")) as foreground:
        foreground.result("ps", ps_reply(machine("ci")))
        assert main(["ps", "--format", "{name}"]) == 0
    assert capsys.readouterr().out.split() == ["xp", "ci"]


def test_status_is_an_outline_in_the_order_of_the_supervisor(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    status = {
        "name": "xp",
        "state": "running",
        "disks": [{"id": "hda", "size": 20 << 30}, {"id": "hdb", "empty": None}],
        "cpu": {"model": "host", "pinned": False},
        "display": ["spice+unix:///a", "vnc://b"],
        "nothing": {},
    }
    peer.result("status", status)
    assert main(["status", "xp"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "name     xp",
        "state    running",
        "disks",
        "  - id    hda",
        "    size  20 GiB",
        "  - id     hdb",
        "cpu",
        "  model   host",
        "  pinned  no",
        "display  spice+unix:///a, vnc://b",
    ]
    assert main(["status", "xp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == status


@pytest.mark.parametrize("with_supervisor", [True, False])
def test_status_of_a_stopped_machine_says_why_it_ended(
    with_supervisor: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile("old")
    write_state("old", "last.json", json.dumps({"reason": "killed", "when": 5.0}))
    if with_supervisor:
        with supervisor():
            assert main(["status", "old", "--json"]) == 0
    else:
        assert main(["status", "old", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["reason"], status["since"]) == ("stopped", "killed", 5.0)


@pytest.mark.parametrize("verb", ["status", "console", "down", "logs", "view", "wait"])
def test_an_unknown_machine_is_not_found(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_profile("xp-old")
    assert main([verb, "xp-odl"]) == 4
    assert "did you mean 'xp-old'?" in capsys.readouterr().err


# ---- up and down --------------------------------------------------------------------------------


def test_up_sends_the_profile_and_tells_each_step(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = write_profile("xp")
    monkeypatch.setenv("MARK", "seen")
    warning = {"level": "warning", "where": "cpu", "message": "slow", "hint": "use KVM"}
    result = {"name": "xp", "pid": 7, "display": ["spice+unix:///a"], "warnings": [warning]}
    peer.result("up", result, [STEP])
    assert main(["up", "xp", "--set", "cpu.count=2", "--set", "a=b=c", "--paused"]) == 0
    ((verb, args),) = peer.asked
    assert (verb, args["profile"], args["set"]) == ("up", profile, ["cpu.count=2", "a=b=c"])
    assert (args["paused"], args["env"]["MARK"]) == (True, "seen")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "xp  disk hda   made 20GiB qcow2                                12 ms",
        "xp: warning: cpu: slow",
        "  hint: use KVM",
        "    view: qlaunch view xp   console: qlaunch console xp   stop: qlaunch down xp",
    ]


def test_up_starts_several_at_once_and_tells_which_one_failed(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        write_profile(name)
    # Nobody passes before all three have come.
    together = threading.Barrier(3, timeout=PATIENCE)

    def answer(sock: socket.socket, args: dict[str, Any]) -> None:
        name = Path(args["profile"]).stem
        together.wait()
        if name == "b":
            reply: dict[str, Any] = {"error": errors.ConflictError("b runs already").to_dict()}
        else:
            reply = {"result": {"name": name, "pid": 1}}
        sock.sendall(words.encode(reply))

    peer.on("up", answer)
    assert main(["up", "a", "b", "c", "--json"]) == 5
    replies = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["name"]: "error" in each for each in replies} == {
        "a": False,
        "b": True,
        "c": False,
    }


def test_a_folder_with_a_profile_needs_no_name(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["up"]) == 2
    (tmp_path / "qlaunch.toml").write_text("schema = 1\n")
    peer.result("up", {"name": "lab"})
    assert main(["up"]) == 0
    path = str(tmp_path / "qlaunch.toml")
    assert peer.asked[0][1]["profile"] == path
    peer.result("ps", ps_reply(machine("lab", profile=path), machine("other")))
    peer.result("down", {"name": "lab", "how": "acpi"})
    assert main(["down"]) == 0
    assert peer.asked[-1][1]["name"] == "lab"


@pytest.mark.parametrize("override", ["cpu.count", "=2"])
def test_an_override_without_key_or_value_is_refused(override: str) -> None:
    write_profile("xp")
    assert main(["up", "xp", "--set", override]) == 2


def test_down_takes_patterns_and_times(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.result("ps", ps_reply(machine("web-1"), machine("web-2"), machine("db")))
    peer.result("down", {"how": "acpi"}, [{**STEP, "machine": "web-1"}])
    assert main(["down", "web-*", "--timeout", "5min"]) == 0
    asked = [args for verb, args in peer.asked if verb == "down"]
    assert sorted(args["name"] for args in asked) == ["web-1", "web-2"]
    assert {args["timeout"] for args in asked} == {300.0}
    assert "web-2 is down (acpi)" in capsys.readouterr().err
    assert main(["down", "mail-*"]) == 4


@pytest.mark.parametrize("verb", ["down", "restart", "kill", "reset", "pause", "resume"])
def test_what_does_not_run_is_in_the_wrong_phase(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile("xp")
    assert main([verb, "xp"]) == 5
    assert capsys.readouterr().err.startswith("qlaunch: xp is not running\n")


def test_a_supervisor_that_ends_just_now_is_none(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(_: socket.socket, __: dict[str, Any]) -> None:
        os.unlink(paths.control_socket())

    write_profile("xp")
    peer.on("down", leave)
    assert main(["down", "xp"]) == 5
    assert "xp is not running" in capsys.readouterr().err


def test_a_supervisor_that_hangs_up_leaves_the_outcome_unknown(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    peer.on("down", lambda _, __: None)
    assert main(["down", "xp", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "session-lost"


def test_an_environment_that_is_not_utf8_stops_nobody(peer: Peer) -> None:
    write_profile("xp")
    os.environb[b"ODD"] = b"\xff"
    try:
        peer.result("up", {"name": "xp"})
        assert main(["up", "xp"]) == 0
    finally:
        del os.environb[b"ODD"]
    assert "ODD" not in peer.asked[0][1]["env"]
    assert main(["type", "xp", "\udcff"]) == 2


def test_wait_prints_the_state(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.result("wait", {"state": "running"})
    assert main(["wait", "xp", "--for", "running", "--timeout", "90"]) == 0
    assert capsys.readouterr().out == "running\n"
    assert peer.asked == [("wait", {"name": "xp", "for": "running", "timeout": 90.0})]
    peer.error("wait", errors.TimedOutError("xp is still paused"))
    assert main(["wait", "xp", "--for", "running"]) == 7


def test_waiting_for_the_end_of_what_does_not_run_is_over_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_profile("xp")
    assert main(["wait", "xp"]) == 0
    assert capsys.readouterr().out == "stopped\n"
