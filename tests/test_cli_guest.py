"""The verbs on one machine's guest, log and screen, against a supervisor of canned answers."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qlaunch.cli.main import main
from qlaunch.store import paths
from tests.cli_peer import PATIENCE, Peer, qlaunch, supervisor, write_state

PNG = b"\x89PNG\r\n\x1a\n picture"


@pytest.fixture
def peer() -> Iterator[Peer]:
    with supervisor() as peer:
        yield peer


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
    peer.result("qmp", {"return": {"a": [1]}})
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
            file.write("rd\n")
        (folder / "log").write_text("fourth\n")
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


@pytest.mark.parametrize(
    "usb, remote, spicy",
    [
        ("auto",
         ["--spice-usbredir-redirect-on-connect=R", "enable-usb-autoshare=1", "usb-filter=R"],
         ["--spice-usbredir-redirect-on-connect=R", "--spice-usbredir-auto-redirect-filter=R"]),
        ("ask", ["enable-usb-autoshare=0"],
         ["--spice-usbredir-auto-redirect-filter=-1,-1,-1,-1,0"]),
        ("off", ["enable-usbredir=0"], ["--spice-disable-usbredir"]),
    ],
)  # fmt: skip
def test_view_tells_each_viewer_what_to_do_with_usb(
    peer: Peer, own_place: Path, usb: str, remote: list[str], spicy: list[str]
) -> None:
    for program, expected in (("remote-viewer", remote), ("spicy", spicy)):
        fake_viewer(own_place / "bin", program)
        wish = {"usb": usb, "usb_filter": "R", "viewer": program}
        peer.result("status", view_status(view=wish))
        found = [word for word in view(own_place)[1] if "usb" in word]
        assert found == expected


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
    monkeypatch.setattr("qlaunch.cli.web.pages.NOVNC", ())
    peer.result("status", view_status())
    assert main(["view", "xp"]) == 1
    assert "sudo apt install virt-viewer" in capsys.readouterr().err


@pytest.mark.parametrize("status", [{"state": "running", "display": []}, {"state": "stopped"}])
def test_view_of_what_shows_nothing_is_refused(status: dict[str, Any], peer: Peer) -> None:
    peer.result("status", status)
    assert main(["view", "xp"]) == 5
