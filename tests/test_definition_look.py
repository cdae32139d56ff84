"""`list`, `check`, `show`, `argv`: what a profile says, what would fail, what QEMU would get."""

from __future__ import annotations

import os
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from qlaunch.control import words as control_words
from qlaunch.host.pidfd import ProcessId
from qlaunch.plan.model import Plan
from qlaunch.profile.load import load
from qlaunch.records import from_plain, to_plain
from qlaunch.store import machines, paths
from tests.cli_peer import Peer
from tests.definitions import PATIENCE, data, image, qlaunch, tree, write_profile

DISK = '[[disk]]\nid = "hda"\nsize = "16MiB"\nbus = "ide"\n'


def listed(name: str) -> dict[str, object]:
    found = qlaunch("list", "--json").json["profiles"]
    entry: dict[str, object] = next(each for each in found if each["name"] == name)
    return entry


# ---- list ---------------------------------------------------------------------------------------


def test_list_shows_yours_before_the_shipped_one_of_that_name() -> None:
    assert listed("demo")["from"] == "shipped"
    path = write_profile("demo", 'guest = "linux"\ntitle = "Mine"\n')
    entry = listed("demo")
    assert (entry["from"], entry["title"], entry["guest"]) == ("yours", "Mine", "linux")
    assert entry["file"] == str(path)


def test_list_shows_a_broken_profile_with_its_error_and_the_others_too() -> None:
    write_profile("broken", "memroy = 1\n")
    write_profile("good")
    Path(paths.config_dir(), "profiles", "binary.toml").write_bytes(b"\xff\0\x1b[31m")
    done = qlaunch("list")
    assert done.status == 0
    rows = {line.split()[0]: line for line in done.out.splitlines()}
    assert "broken" in rows["broken"].split()[3]
    assert "memroy" in rows["broken"]
    assert "good" in rows
    assert "binary" in rows
    assert "\x1b" not in done.out


def test_list_without_a_supervisor_knows_what_runs_from_the_notes() -> None:
    write_profile("xp")
    assert listed("xp")["state"] == "stopped"
    machines.save_run("xp", machines.RunRecord(process=to_plain(ProcessId.of(os.getpid()))))
    assert listed("xp")["state"] == "running"
    dead = {**to_plain(ProcessId.of(os.getpid())), "start": 1}
    machines.save_run("xp", machines.RunRecord(process=dead))
    assert listed("xp")["state"] == "stopped"


def test_list_asks_a_supervisor_that_answers() -> None:
    write_profile("xp")
    peer = Peer(paths.control_socket())
    try:
        peer.result("ps", {"supervisor": 1, "machines": [{"name": "xp", "state": "paused"}]})
        assert listed("xp")["state"] == "paused"
        peer.on("ps", lambda sock, _: sock.sendall(control_words.encode({"odd": 1})))
        assert listed("xp")["state"] == "stopped"
    finally:
        peer.close()


def test_list_tells_when_a_machine_is_called_otherwise() -> None:
    write_profile("file", 'name = "machine"\n')
    assert "file: its machine is called machine" in qlaunch("list").err
    assert listed("file")["machine"] == "machine"


# ---- check --------------------------------------------------------------------------------------


def test_check_shows_every_mistake_with_file_and_line() -> None:
    path = write_profile("xp", 'memroy = 1\n[cpu]\ncount = "two"\n')
    done = qlaunch("check", "xp")
    assert done.status == 2
    assert f"{path}:2: memroy" in done.out
    assert f"{path}:4: cpu.count" in done.out
    assert "did you mean" in done.out
    assert "2 errors" in done.out


@pytest.mark.qemu
def test_check_finds_a_missing_disk_and_a_missing_iso() -> None:
    write_profile(
        "xp", '[[disk]]\nid = "hda"\nbus = "ide"\n[[cdrom]]\nid = "cd0"\npath = "/none.iso"\n'
    )
    done = qlaunch("check", "xp", "--json")
    assert done.status == 2
    wheres = [each["where"].rpartition(": ")[2] for each in done.json["profiles"][0]["findings"]]
    assert {"disk.hda.path", "cdrom.cd0.path"} <= set(wheres)


@pytest.mark.qemu
def test_check_names_who_has_an_image_open() -> None:
    write_profile("xp", DISK)
    disk = image(data("xp") / "hda.qcow2")
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(disk)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("read 0 512\n")
        holder.stdin.flush()
        holder.stdout.readline()
        done = qlaunch("check", "xp")
        holder.stdin.close()
    assert (done.status, f"pid {holder.pid}" in done.out) == (2, True)


@pytest.mark.qemu
def test_check_passes_with_warnings_unless_strict() -> None:
    write_profile("xp", f'{DISK}cache = "unsafe"\n[machine]\naccel = "tcg"\n')
    done = qlaunch("check", "xp")
    assert (done.status, "warning: " in done.out) == (0, True)
    assert qlaunch("check", "xp", "--strict").status == 2


@pytest.mark.qemu
def test_check_of_several_looks_at_all_and_counts_each(own_place: Path) -> None:
    write_profile("bad", "x = 1\n")
    good = own_place / "good.toml"
    good.write_text('schema = 1\n[machine]\naccel = "tcg"\n')
    done = qlaunch("check", "bad", good, "--json")
    assert done.status == 2
    assert [each["errors"] for each in done.json["profiles"]] == [1, 0]


@pytest.mark.qemu
def test_check_takes_other_values_and_changes_nothing(own_place: Path) -> None:
    write_profile("xp", f'{DISK}[machine]\naccel = "tcg"\n')
    before = tree(own_place)
    assert qlaunch("check", "xp").status == 0
    assert qlaunch("check", "xp", "--set", "cpu.count=0").status == 2
    assert tree(own_place) == before


def test_check_of_what_is_not_there_says_what_was_perhaps_meant() -> None:
    done = qlaunch("check", "dmeo")
    assert (done.status, "demo" in done.err) == (4, True)


# ---- show ---------------------------------------------------------------------------------------


def test_show_prints_the_effective_profile_as_toml_that_loads_to_the_same(own_place: Path) -> None:
    path = write_profile("xp", f'guest = "windows-xp"\n{DISK}')
    done = qlaunch("show", "xp", "--set", "memory.size=1GiB")
    assert done.status == 0
    said = tomllib.loads(done.out)
    assert (said["memory"]["size"], said["clock"]["base"]) == ("1GiB", "localtime")
    again = own_place / "xp.toml"
    again.write_text(qlaunch("show", "xp").out)
    assert load(str(again)) == load(str(path))


def test_show_answers_a_program_with_the_same_tables() -> None:
    write_profile("xp", DISK)
    shown = qlaunch("show", "xp", "--json").json
    assert shown["profile"]["disk"][0]["size"] == "16MiB"


@pytest.mark.qemu
def test_show_plan_prints_the_whole_plan() -> None:
    write_profile("xp", DISK)
    done = qlaunch("show", "xp", "--plan", "--json")
    plan = from_plain(Plan, done.json["plan"])
    assert (plan.name, plan.disks[0].id) == ("xp", "hda")


# ---- argv ---------------------------------------------------------------------------------------


@pytest.mark.qemu
def test_argv_is_a_line_an_option_and_the_same_words_as_one_line() -> None:
    write_profile("xp", f'title = "it is $HOME"\n{DISK}')
    lines = qlaunch("argv", "xp")
    assert lines.status == 0
    assert all(line.endswith(" \\") for line in lines.out.splitlines()[:-1])
    words = shlex.split(lines.out.replace("\\\n", ""))
    assert words == qlaunch("argv", "xp", "--json").json["argv"]
    one = qlaunch("argv", "xp", "--one-line").out
    assert one.count("\n") == 1
    assert shlex.split(one) == words


@pytest.mark.qemu
def test_argv_starts_in_a_shell_as_it_is(own_place: Path) -> None:
    place = own_place / "with 'odd', $(name)"
    disk = image(place / "a.qcow2")
    write_profile(
        "odd",
        f'[machine]\naccel = "tcg"\n[display]\nspice = false\n[[disk]]\nid = "a"\nbus = "ide"\n'
        f'path = "{disk}"\n[qemu]\nargs = ["-monitor", "stdio"]\n',
    )
    os.makedirs(paths.machine_runtime("odd"))
    text = qlaunch("argv", "odd").out
    done = subprocess.run(
        ["sh", "-c", text],
        input="info block\nquit\n",
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=own_place,
    )
    assert done.returncode == 0, done.stderr
    assert str(disk) in done.stdout


@pytest.mark.qemu
def test_argv_shows_a_machine_that_cannot_start_and_says_why_on_stderr() -> None:
    write_profile("xp", '[[disk]]\nid = "hda"\nbus = "ide"\npath = "/none.qcow2"\n')
    done = qlaunch("argv", "xp")
    assert done.status == 0
    assert "/none.qcow2" in done.out
    assert "error: " in done.err
    assert "error: " not in done.out


@pytest.mark.qemu
def test_argv_of_a_running_machine_is_what_was_started() -> None:
    write_profile("xp", f'[memory]\nsize = "64MiB"\n{DISK}')
    plan = from_plain(Plan, qlaunch("show", "xp", "--plan", "--json").json["plan"])
    machines.save_plan(plan)
    machines.save_run("xp", machines.RunRecord(process=to_plain(ProcessId.of(os.getpid()))))
    write_profile("xp", f'[memory]\nsize = "96MiB"\n{DISK}')
    assert "size=65536k" in qlaunch("argv", "xp").out
    assert "size=98304k" in qlaunch("argv", "xp", "--next").out
    write_profile("xp", "broken = 1\n")
    assert "size=65536k" in qlaunch("argv", "xp").out
    write_profile("xp").unlink()
    assert qlaunch("argv", "xp", "--json").json["running"]
