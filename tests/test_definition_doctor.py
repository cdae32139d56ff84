"""`qlaunch doctor` says what works, what does not, and the command that mends it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from qlaunch import __version__
from qlaunch.cli.packages import parse
from qlaunch.errors import NoSupervisorError
from qlaunch.machine.names import rename_note
from qlaunch.store import paths
from tests.cli_peer import Peer
from tests.definitions import qlaunch, tree, write_profile


def topics() -> dict[str, Any]:
    """The worst line of each topic."""
    order = {"ok": 0, "warn": 1, "fail": 2}
    found: dict[str, Any] = {}
    for each in qlaunch("doctor", "--json").json["checks"]:
        if order[each["level"]] >= order[found.get(each["topic"], each)["level"]]:
            found[each["topic"]] = each
    return found


@pytest.mark.qemu
def test_doctor_prints_a_line_for_each_and_changes_nothing(own_place: Path) -> None:
    before = tree(own_place)
    done = qlaunch("doctor")
    assert done.status == 0
    starts = {line.split()[0] for line in done.out.splitlines() if not line.startswith(" ")}
    assert starts <= {"ok", "warn", "fail"}
    assert "QEMU " in done.out
    assert tree(own_place) == before


def test_doctor_fails_without_qemu_and_names_the_package(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(own_place))
    done = qlaunch("doctor", "--json")
    assert (done.status, done.json["ok"]) == (1, False)
    found = topics()
    for topic in ("qemu", "qemu-img"):
        assert found[topic]["level"] == "fail"
        assert found[topic]["hint"]
    assert found["swtpm"]["level"] == "warn"
    assert found["viewer"]["level"] == "warn"


def test_doctor_fails_where_a_folder_cannot_be_made(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_place / "file").write_text("x")
    monkeypatch.setenv("XDG_DATA_HOME", str(own_place / "file" / "data"))
    assert topics()["disks"]["level"] == "fail"


def test_doctor_fails_where_the_folder_of_sockets_is_a_link(own_place: Path) -> None:
    os.symlink(own_place, paths.runtime_dir())
    assert topics()["sockets"]["level"] == "fail"


def test_doctor_compares_the_supervisors_version_with_its_own() -> None:
    assert topics()["supervisor"]["level"] == "ok"
    peer = Peer(paths.control_socket())
    try:
        peer.result("supervisor", {"version": __version__, "pid": 42})
        assert topics()["supervisor"]["level"] == "ok"
        peer.result("supervisor", {"version": "0.0.1", "pid": 42})
        found = topics()["supervisor"]
        assert (found["level"], "restart" in found["hint"]) == ("warn", True)
        peer.error("supervisor", NoSupervisorError("it is ill"))
        assert topics()["supervisor"]["level"] == "fail"
    finally:
        peer.close()


def test_doctor_finds_a_rename_that_was_interrupted() -> None:
    os.rename(write_profile("old"), rename_note("old", "new"))
    assert topics()["rename"]["hint"] == "qlaunch rename old new"


def test_an_os_release_file_is_read_with_and_without_quotes() -> None:
    text = "# comment\nID=debian\nVERSION_ID=\"12\"\nNAME='x y'\nodd\n"
    assert parse(text) == {"ID": "debian", "VERSION_ID": "12", "NAME": "x y"}
