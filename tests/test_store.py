"""State files survive power cuts, full disks and damage; locks are free when their holder is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaunch.errors import BusyError, HostError, NotFoundError, UsageError
from qlaunch.plan.model import Leases
from qlaunch.store import files, machines, paths
from tests.rig import TOP

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# ---- files --------------------------------------------------------------------------------------


@given(data=JSON)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    path = str(tmp_path_factory.getbasetemp() / "data.json")
    files.write_json(path, data)
    assert files.read_json(path) == data


def test_a_file_is_private_and_leaves_no_other_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.json"
    files.write_json(str(path), {"a": 1})
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["x.json"]


def test_a_name_that_is_not_utf_8_is_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff")
    files.write_json(str(tmp_path / "x"), name)
    assert files.read_json(str(tmp_path / "x")) == name


def test_a_file_that_cannot_be_written_is_an_error_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(HostError, match=r"cannot write .*/folder: Is a directory"):
        files.write_json(str(tmp_path / "folder"), 1)
    assert os.listdir(tmp_path) == ["folder"]
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot write"):
        files.write_json(str(tmp_path / "file" / "x"), 1)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\x00", b"[" * 100_000])
def test_a_damaged_file_is_set_aside_and_not_lost(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(damage)
    assert files.read_json(str(path)) is None
    assert (tmp_path / "x.json.damaged").read_bytes() == damage
    assert not path.exists()


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert files.read_json(str(tmp_path / "x")) is None
    files.remove(str(tmp_path / "x"))
    with pytest.raises(HostError, match="cannot read"):
        files.read_json(str(tmp_path))
    with pytest.raises(HostError, match="cannot remove"):
        files.remove(str(tmp_path))


# ---- locks --------------------------------------------------------------------------------------


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with files.locked(path, what="the thing"):
        with pytest.raises(BusyError, match=f"the thing is held by process {os.getpid()}"):
            files.take_lock(path, what="the thing")
    with files.locked(path, what="the thing"):
        pass


def test_a_lock_is_free_when_its_holder_was_killed(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    script = (
        "import sys; from qlaunch.store import files; files.take_lock(sys.argv[1], what='x');"
        " print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=pipe, stdout=pipe, cwd=TOP
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=f"process {holder.pid}"):
            files.take_lock(path, what="x")
        holder.kill()
    os.close(files.take_lock(path, what="x"))


def test_a_lock_on_a_file_that_was_removed_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = files.take_lock(str(path), what="x")
    path.unlink()
    second = files.take_lock(str(path), what="x")
    with pytest.raises(BusyError):
        files.take_lock(str(path), what="x")
    os.close(first)
    os.close(second)


# ---- machines -----------------------------------------------------------------------------------


def test_who_locks_a_machine_removes_what_killed_writers_left() -> None:
    folder = Path(paths.machine_state("demo"))
    folder.mkdir(parents=True)
    (folder / "run.json.tmp-4711").touch()
    (folder / "log").touch()
    os.close(machines.lock("demo"))
    assert sorted(os.listdir(folder)) == ["lock", "log"]


def test_records_are_kept_and_forgotten() -> None:
    record = machines.RunRecord(started=12.5, process={"pid": 3}, warnings=({"message": "x"},))
    machines.save_run("demo", record)
    assert machines.load_run("demo") == record
    assert machines.running_names() == ["demo"]
    machines.end_run("demo", "because", 13.0)
    assert machines.running_names() == []
    assert machines.last_end("demo") == {"version": 1, "reason": "because", "when": 13.0}


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 2}',
        '{"version": 0}',
        '{"version": "1"}',
        '{"version": [1]}',
        '{"version": 1, "macs": 7}',
        "[1]",
        "7",
    ],
)
def test_leases_that_are_not_understood_are_set_aside_and_named(text: str) -> None:
    path = Path(paths.machine_state("demo")) / "leases.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    assert machines.load_leases("demo") == Leases()
    assert machines.damaged("demo") == [f"{path}.damaged"]
    assert Path(f"{path}.damaged").read_text(encoding="utf-8") == text


def test_leases_without_a_version_are_those_of_the_first() -> None:
    path = Path(paths.machine_state("demo")) / "leases.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"uuid": "x", "of the future": 1}), encoding="utf-8")
    assert machines.load_leases("demo") == Leases(uuid="x")
    assert machines.damaged("demo") == []


def test_leases_that_stay_the_same_are_not_written_again() -> None:
    machines.save_leases("demo", Leases(uuid="x"))
    path = os.path.join(paths.machine_state("demo"), "leases.json")
    before = os.stat(path).st_ino
    machines.save_leases("demo", Leases(uuid="x"))
    assert os.stat(path).st_ino == before
    machines.save_leases("demo", Leases(uuid="y"))
    assert machines.load_leases("demo").uuid == "y"


def test_the_end_counts_even_where_its_reason_cannot_be_written() -> None:
    machines.save_run("demo", machines.RunRecord())
    os.mkdir(os.path.join(paths.machine_state("demo"), "last.json"))
    with pytest.raises(HostError):
        machines.end_run("demo", "because", 1.0)
    assert machines.running_names() == []


# ---- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["xp", "X.p-1_2", "0", "a" * 41])
def test_a_good_name_is_taken(name: str) -> None:
    assert paths.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "_x", "a/b", "a b", "ä", "a" * 42, "a\n"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a machine's name"):
        paths.check_name(name)


def test_a_relative_xdg_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, own_place: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert paths.state_dir() == str(own_place / "home/.local/state/qlaunch")


def test_a_private_folder_must_be_ours_and_no_link(tmp_path: Path) -> None:
    open_one = tmp_path / "open"
    open_one.mkdir(mode=0o755)
    paths.ensure_private(str(open_one))
    assert open_one.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(open_one)
    with pytest.raises(HostError, match="belongs to somebody else"):
        paths.ensure_private(str(tmp_path / "link"))
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot use the folder"):
        paths.ensure_private(str(tmp_path / "file"))


def test_a_users_profile_hides_a_shipped_one() -> None:
    own = Path(paths.config_dir()) / "profiles" / "demo.toml"
    assert paths.find_profile("demo").startswith(paths.shipped_profiles())
    own.parent.mkdir(parents=True)
    own.touch()
    assert paths.find_profile("demo") == str(own)
    with pytest.raises(NotFoundError) as caught:
        paths.find_profile("dmeo")
    assert caught.value.hint == "did you mean 'demo'?"


def test_a_machines_sockets_have_short_names() -> None:
    assert len(os.path.basename(paths.machine_runtime("x" * 41))) == 8
    assert paths.machine_runtime("a") != paths.machine_runtime("b")
