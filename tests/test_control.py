"""The words of the control socket, and the client's end of it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from qlaunch.control import client, words
from qlaunch.errors import (
    NoSupervisorError,
    ProfileError,
    QlaunchError,
    SessionLostError,
    UsageError,
)
from qlaunch.store import paths
from tests.cli_peer import supervisor
from tests.rig import Rig


def test_a_request_is_a_line_and_is_read_again() -> None:
    line = words.request("up", {"name": "ü\n", "list": [1, None]})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert words.decode_request(line) == ("up", {"name": "ü\n", "list": [1, None]})


def test_what_is_no_request_is_refused() -> None:
    for line in (b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000):
        with pytest.raises(UsageError):
            words.decode_request(line)


def test_another_version_gets_a_hint_that_helps() -> None:
    with pytest.raises(UsageError, match="the supervisor speaks version 1, the client 2") as caught:
        words.decode_request(b'{"version": 2, "verb": "ps", "args": {}}')
    assert "supervisor restart" in str(caught.value.hint)


def test_an_answer_comes_after_its_progress() -> None:
    told: list[dict[str, object]] = []
    with supervisor() as peer:
        peer.result("up", {"pid": 1}, progress=[{"step": "disk"}, {"step": "qemu"}])
        assert client.ask("up", {}, progress=told.append) == {"pid": 1}
    assert [line["step"] for line in told] == ["disk", "qemu"]


def test_an_error_comes_with_its_class_its_hint_and_all_findings() -> None:
    more = (ProfileError("x.toml:2: b", "is wrong, too"),)
    with supervisor() as peer:
        peer.error("up", ProfileError("x.toml:1: a", "is wrong", hint="mend it", more=more))
        with pytest.raises(ProfileError) as caught:
            client.ask("up", {})
    error = caught.value
    assert (error.where, error.text, error.hint) == ("x.toml:1: a", "is wrong", "mend it")
    assert error.more[0].text == "is wrong, too"


def test_a_long_answer_arrives_whole() -> None:
    with supervisor() as peer:
        peer.result("screenshot", {"data": "x" * (5 << 20)})
        assert len(client.ask("screenshot", {})["data"]) == 5 << 20


def test_a_supervisor_that_hangs_up_is_told() -> None:
    with supervisor() as peer:
        peer.on("type", lambda sock, args: None)
        with pytest.raises(SessionLostError, match="hung up"):
            client.ask("type", {})
        assert [verb for verb, _ in peer.asked] == ["type"]


def test_what_may_be_asked_twice_is_asked_again_after_a_hang_up() -> None:
    with supervisor() as peer:
        asked_before = iter([False, True])

        def answer(sock: socket.socket, args: dict[str, object]) -> None:
            if next(asked_before):
                sock.sendall(words.encode({"result": "there"}))

        peer.on("ps", answer)
        assert client.ask("ps", {}) == "there"
        assert len(peer.asked) == 2


def test_without_a_supervisor_there_is_no_connection() -> None:
    assert client.connect() is None
    with pytest.raises(NoSupervisorError, match="no supervisor is running"):
        client.ask("ps", {}, start=False)


def test_a_socket_nobody_listens_on_counts_as_none(runtime_dir: Path) -> None:
    (runtime_dir / "qlaunch").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(paths.control_socket())
    assert client.connect() is None


def test_a_socket_with_a_long_path_is_reached(
    monkeypatch: pytest.MonkeyPatch, own_place: Path
) -> None:
    deep = own_place / ("x" * 120)
    (deep / "qlaunch").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(deep / "qlaunch", os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/control.sock")
        os.close(folder)
        listener.listen()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
        connection = client.connect()
        assert connection is not None
        connection.socket.close()


def test_the_foreground_is_asked_before_the_users_supervisor() -> None:
    with supervisor() as main, supervisor(paths.run_socket("demo")) as own:
        main.result("status", "main")
        own.result("status", "own")
        assert client.ask("status", {}, name="demo") == "own"
        assert client.ask("status", {}, name="other") == "main"
        assert client.ask("status", {}) == "main"


def test_the_supervisors_last_words_reach_the_user(
    monkeypatch: pytest.MonkeyPatch, own_place: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NoSupervisorError, match="did not start: it said nothing") as caught:
        client.ask("ps", {})
    assert str(own_place / "state/qlaunch/supervisor.log") in str(caught.value.hint)
    monkeypatch.setattr(sys, "executable", str(own_place / "nothing"))
    with pytest.raises(NoSupervisorError, match="did not start: No such file"):
        client.ask("ps", {})


def test_a_supervisor_that_cannot_listen_says_why(own_place: Path) -> None:
    blocked = own_place / "run/qlaunch/control.sock"
    blocked.parent.mkdir(mode=0o700)
    blocked.write_text("no socket", encoding="utf-8")
    with pytest.raises(QlaunchError, match=r"exists and is not a socket|cannot reach"):
        client.ask("ps", {})


def test_a_supervisor_starts_where_its_log_cannot_be_written(rig: Rig, own_place: Path) -> None:
    log = own_place / "state/qlaunch/supervisor.log"
    log.mkdir(parents=True)
    assert rig.ask("ps")["machines"] == []
    log.rmdir()
