"""The unit files as texts, and what a service manager is told."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from qlaunch.cli import service
from qlaunch.cli.checkup_systemd import seconds_of
from qlaunch.cli.main import main
from qlaunch.host import notify
from qlaunch.store import paths
from tests.conftest import Golden


@pytest.mark.parametrize("manager", ["user", "system"])
def test_the_units_are_these(golden: Golden, manager: str) -> None:
    environment = {"XDG_DATA_HOME": "/srv/my disks", "HOME": "/srv/100%"}
    found = service.texts(manager, "/opt/my python/bin/python3", environment)
    text = "\n".join(f"---- {name}\n{text}" for name, text in found.items())
    golden(f"service/{manager}.txt", text)


def test_stdout_shows_the_units_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "--user", "--stdout", "--json"]) == 0
    units = json.loads(capsys.readouterr().out)["units"]
    assert [os.path.basename(path) for path in units] == list(service.NAMES)
    assert not os.path.exists(os.path.dirname(next(iter(units))))


def test_home_is_kept_only_where_systemd_does_not_say_it() -> None:
    environ = {"HOME": "/root", "XDG_STATE_HOME": "/s", "PATH": "/bin"}
    assert service.kept_environment("user", environ) == {"XDG_STATE_HOME": "/s"}
    assert service.kept_environment("system", environ) == {"XDG_STATE_HOME": "/s", "HOME": "/root"}


def test_who_starts_with_the_computer_is_read_from_the_folders() -> None:
    folder = Path(paths.unit_folders("user")[0]) / "default.target.wants"
    folder.mkdir(parents=True)
    for name in ("qlaunch@xp.service", "qlaunch.service", "other.service"):
        (folder / name).symlink_to("/nowhere")
    assert service.enabled("user") == ["qlaunch@xp.service"]


@pytest.mark.parametrize(
    "span, seconds",
    [("2min", 120), ("1min 30s", 90), ("6s", 6), ("500ms", 0.5), ("infinity", None), ("", None)],
)
def test_a_time_span_of_systemd_is_understood(span: str, seconds: float | None) -> None:
    assert seconds_of(span) == seconds


# ---- sd_notify ---------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_a_manager_is_told(
    own_place: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"@{own_place}" if abstract else str(own_place / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind(name.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify.notify(READY=1, STATUS="two\nlines")
        assert manager.recv(4096) == b"READY=1\nSTATUS=two lines"
    assert not notify.notify(READY=1)


def test_no_manager_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.notify(READY=1)
    monkeypatch.setenv("NOTIFY_SOCKET", "nonsense")
    assert not notify.notify(READY=1)


def test_the_watchdog_is_fed_in_half_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert notify.watchdog_pause() is None
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    assert notify.watchdog_pause() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_pause() is None
