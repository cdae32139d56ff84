"""The verbs on machines, against a supervisor of canned answers."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
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
    qlaunch,
    supervisor,
    write_profile,
    write_state,
)

STEP = {"machine": "xp", "step": "disk hda", "text": "made 20GiB qcow2", "seconds": 0.012}
PNG = b"\x89PNG\r\n\x1a\n picture"


@pytest.fixture
def peer() -> Iterator[Peer]:
    with supervisor() as peer:
        yield peer


def ps_reply(*machines: dict[str, Any]) -> dict[str, Any]:
    return {"supervisor": {"pid": 1, "version": "0", "since": 0.0}, "machines": list(machines)}


# ---- ps and status --------------------------------------------------------------------------------


def test_ps_without_a_supervisor_is_an_empty_list_and_starts_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["ps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"supervisor": None, "machines": []}
    assert not os.path.exists(paths.runtime_dir())


def test_ps_shows_aligned_columns(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.result("ps", ps_reply(machine("xp"), machine("longer", pid=7, warnings=["no KVM"])))
    monkeypatch.setattr("time.time", lambda: 720.0)
    assert main(["ps"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "NAME    STATE     SINCE   PID     MEM  CPU  CONNECT",
        "xp      running  12 min  4711  64 MiB   3%  spice+unix:///run/xp.sock",
        "longer  running  12 min     7  64 MiB   3%  spice+unix:///run/longer.sock",
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
        "disks": [{"id": "hda", "size": "20GiB"}, {"id": "hdb", "empty": None}],
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
        "    size  20GiB",
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


# ---- the guest ----------------------------------------------------------------------------------


def test_a_screenshot_replaces_the_file_in_one_step(
    peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer.result("screenshot", {"data": base64.b64encode(PNG).decode(), "width": 640})
    target = tmp_path / "shot.PNG"
    target.write_bytes(b"old")
    old = target.stat().st_ino
    assert main(["screenshot", "xp", str(target), "--json"]) == 0
    assert target.read_bytes() == PNG
    assert target.stat().st_ino != old
    assert os.listdir(tmp_path) == ["shot.PNG"]
    assert json.loads(capsys.readouterr().out) == {
        "name": "xp",
        "file": str(target),
        "width": 640,
    }


@pytest.mark.parametrize("file, form", [("a.ppm", "ppm"), ("a.png", "png"), (None, "png")])
def test_the_suffix_says_the_format(
    file: str | None, form: str, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    peer.result("screenshot", {"data": ""})
    assert main(["screenshot", "xp", *filter(None, [file])]) == 0
    assert peer.asked == [("screenshot", {"name": "xp", "format": form})]
    assert os.listdir(tmp_path) == [file or "xp.png"]


def test_a_screenshot_goes_to_standard_output(peer: Peer) -> None:
    peer.result("screenshot", {"data": base64.b64encode(PNG).decode()})
    with qlaunch("screenshot", "xp", "-", stdout=subprocess.PIPE) as process:
        picture, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, picture) == (0, PNG)


def test_a_screenshot_is_a_png_or_a_ppm(peer: Peer) -> None:
    assert main(["screenshot", "xp", "shot.jpg"]) == 2
    assert peer.asked == []


def test_keys_and_text_are_sent(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in ("send-key", "type"):
        peer.result(verb, {})
    assert main(["send-key", "xp", "ctrl-alt-delete", "a", "--hold", "500ms"]) == 0
    assert main(["type", "xp", "dir c:", "--enter"]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("gr\u00fc\u00df\n".encode())))
    assert main(["type", "xp", "-"]) == 0
    assert peer.asked == [
        ("send-key", {"name": "xp", "keys": ["ctrl-alt-delete", "a"], "hold": 0.5}),
        ("type", {"name": "xp", "text": "dir c:\n"}),
        ("type", {"name": "xp", "text": "gr\u00fc\u00df\n"}),
    ]


@pytest.mark.parametrize(
    "given, sent",
    [
        ([], {}),
        (['{"a": [1]}'], {"a": [1]}),
        (
            ["id=net0", "up=false", "n=3", "s=1GiB"],
            {"id": "net0", "up": False, "n": 3, "s": "1GiB"},
        ),
    ],
)
def test_qmp_takes_json_or_pairs(
    given: list[str], sent: dict[str, Any], peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    peer.result("qmp", {"a": [1]})
    assert main(["qmp", "xp", "set_link", *given]) == 0
    assert peer.asked == [("qmp", {"name": "xp", "command": "set_link", "arguments": sent})]
    assert capsys.readouterr().out == '{\n  "a": [\n    1\n  ]\n}\n'
    assert main(["qmp", "xp", "set_link", "--json"]) == 0
    assert capsys.readouterr().out == '{"a":[1]}\n'


@pytest.mark.parametrize("given", ["{", "word", "=x", "[1]"])
def test_qmp_refuses_what_is_no_argument(given: str, peer: Peer) -> None:
    assert main(["qmp", "xp", "set_link", given]) == 2
    assert peer.asked == []


def test_hmp_prints_the_text(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.result("hmp", {"text": "bus: main\r\n  dev: x\r\n"})
    assert main(["hmp", "xp", "info", "qtree"]) == 0
    assert peer.asked == [("hmp", {"name": "xp", "line": "info qtree"})]
    assert capsys.readouterr().out == "bus: main\n  dev: x\n"


# ---- logs, supervisor, view ---------------------------------------------------------------------


def test_logs_shows_the_last_lines_of_both_files(capsys: pytest.CaptureFixture[str]) -> None:
    write_state("xp", "log.1", "one\ntwo\n")
    write_state("xp", "log", "three\nfo\x1bur\nhalf")
    assert main(["logs", "xp", "-n", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == ["two", "three", "fo\ufffdur"]


def test_logs_follows_through_a_rotation() -> None:
    write_state("xp", "log", "first\n")
    with qlaunch("logs", "xp", "-f", stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"first\n"
        folder = Path(paths.machine_state("xp"))
        with (folder / "log").open("a") as file:
            file.write("second\nthi")
            file.flush()
            assert process.stdout.readline() == b"second\n"
            (folder / "log").rename(folder / "log.1")
            (folder / "log").write_text("fourth\n")
            file.write("rd\n")
        assert process.stdout.readline() == b"third\n"
        assert process.stdout.readline() == b"fourth\n"
        process.terminate()


def test_the_supervisor_is_looked_at_and_stopped(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    peer.result("supervisor", {"pid": 7, "machines": 2})
    assert main(["supervisor", "status"]) == 0
    assert capsys.readouterr().out == "pid       7\nmachines  2\n"
    assert main(["supervisor", "stop", "--json"]) == 0
    assert [args for _, args in peer.asked] == [{"action": "status"}, {"action": "stop"}]


@pytest.mark.parametrize("action", ["status", "stop"])
def test_no_supervisor_is_an_answer_of_its_own(action: str) -> None:
    assert main(["supervisor", action]) == 3


def view_status(**more: Any) -> dict[str, Any]:
    return {"state": "running", "display": ["vnc://127.0.0.1:5901", "spice+unix:///a b"], **more}


def fake_viewer(folder: Path, name: str) -> None:
    """A viewer that writes down how it was called: its arguments and standard input."""
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@"\ncat\n')
    script.chmod(0o755)


def view(place: Path, *words: str) -> tuple[int, list[str], str]:
    environ = {**os.environ, "DISPLAY": ":9", "PATH": f"{place}/bin:/usr/bin:/bin"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with qlaunch("view", "xp", *words, env=environ, stdin=subprocess.DEVNULL, **pipes) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.decode().splitlines(), err.decode()


def test_view_gives_remote_viewer_the_address_on_its_standard_input(
    peer: Peer, own_place: Path
) -> None:
    fake_viewer(own_place / "bin", "remote-viewer")
    peer.result("status", view_status(title="Lab\x1b", view={"fullscreen": True}))
    assert view(own_place) == (
        0,
        [
            "remote-viewer",
            "-",
            "[virt-viewer]",
            "type=spice",
            "unix-path=/a b",
            "title=Lab\ufffd",
            "fullscreen=1",
        ],
        "",
    )


def test_view_opens_spicy_where_the_profile_wants_it(peer: Peer, own_place: Path) -> None:
    fake_viewer(own_place / "bin", "remote-viewer")
    fake_viewer(own_place / "bin", "spicy")
    peer.result("status", view_status(view={"viewer": "spicy"}))
    assert view(own_place)[1] == ["spicy", "--uri=spice+unix:///a b"]


def test_view_without_a_desktop_says_how_to_look_from_elsewhere(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    peer.result("status", view_status())
    assert main(["view", "xp"]) == 1
    error = capsys.readouterr().err
    assert "its screen is at spice+unix:///a b" in error
    assert "ssh -N -L" in error
    assert main(["view", "xp", "--uri"]) == 0
    assert capsys.readouterr().out == "spice+unix:///a b\n"


def test_view_without_a_viewer_names_the_package(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_place: Path
) -> None:
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setenv("PATH", str(own_place))
    peer.result("status", view_status())
    assert main(["view", "xp"]) == 1
    assert "sudo apt install virt-viewer" in capsys.readouterr().err


@pytest.mark.parametrize("status", [{"state": "running", "display": []}, {"state": "stopped"}])
def test_view_of_what_shows_nothing_is_refused(status: dict[str, Any], peer: Peer) -> None:
    peer.result("status", status)
    assert main(["view", "xp"]) == 5
