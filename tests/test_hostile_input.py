"""What comes from a guest, a network or a damaged disk: read or refused, and never obeyed.

Command lines: test_argv_hostile. Profiles: test_profile_mutations. Headers of images:
test_host_qcow2. XML: test_libvirt_hostile. QMP and agents: test_qmp_hostile, test_qmp_agent.
"""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaunch.cli.verbs.view import usb_lines, vv_file
from qlaunch.network.dnsmasq import parse_leases
from qlaunch.plan.model import Leases, Plan
from qlaunch.plan.usb_filter import for_client
from qlaunch.store import files
from qlaunch.store.machines import RunRecord
from qlaunch.tree.model import Timeline
from tests.cli_peer import Peer, supervisor
from tests.fuzz.__main__ import failure, mutated
from tests.fuzz.targets import LEASES, TARGETS
from tests.rig import TOP

MANY = {"leases": 2000, "usb": 2000, "override": 1000, "request": 2000}
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", MANY)
def test_thousands_of_damaged_inputs_are_read_or_refused(name: str, part: int) -> None:
    target, dice = TARGETS[name], Random(f"{name} {part}")
    seeds = target.seeds()
    for _ in range(MANY[name] // PARTS):
        data = mutated(dice.choice(seeds), dice)
        assert failure(target, data) == "", data


@pytest.mark.parametrize("cls", [Timeline, Leases, RunRecord, Plan])
def test_thousands_of_damaged_state_files_are_read_or_set_aside(
    tmp_path: Path, cls: type[Any]
) -> None:
    """2,000 of them, 500 of each kind; what is not understood is never lost."""
    dice, seeds = Random(cls.__name__), TARGETS["state"].seeds()
    path = tmp_path / "a.json"
    for _ in range(500):
        data = mutated(dice.choice(seeds), dice)
        path.write_bytes(data)
        found = files.load_record(cls, str(path), 1)
        kept = [each.read_bytes() for each in tmp_path.iterdir()]
        assert data in kept, data
        assert found is None or isinstance(found, cls)
        for each in tmp_path.iterdir():
            each.unlink()


# ---- leases -------------------------------------------------------------------------------------


def test_the_leases_of_a_real_dnsmasq_are_read() -> None:
    first, second = parse_leases("lab", LEASES)
    assert (first.mac, first.address, first.hostname) == (
        "52:54:00:12:34:56", "192.0.2.17", "xp",
    )  # fmt: skip
    assert (second.address, second.hostname, second.expires) == ("192.0.2.18", "", 1790000001.0)


@pytest.mark.parametrize(
    "line",
    [
        "² 52:54:00:12:34:56 192.0.2.17 xp *",
        "1 52:54:00:12:34:56 192.0.2.999 xp *",
        "1 52:54:00:12:34:56 192.0.2.17",
        f"{'9' * 5000} 52:54:00:12:34:56 192.0.2.17 xp *",
        "1 52:54:00:12:34:56 192.0.2.17 \x1b]0;x\x07 *",
    ],
)
def test_a_line_that_is_no_lease_does_not_count(line: str) -> None:
    assert parse_leases("lab", line.encode()) == []


def test_a_guests_name_of_odd_letters_is_left_out() -> None:
    (found,) = parse_leases("lab", b"1 52:54:00:12:34:56 192.0.2.17 $(id) *")
    assert found.hostname == ""


# ---- the file for remote-viewer -----------------------------------------------------------------


@settings(max_examples=300)
@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(["spice", "vnc"]))
def test_one_value_of_a_vv_file_stays_one(path: str, title: str, kind: str) -> None:
    text = vv_file(f"{kind}+unix:///run/{path}", title, fullscreen=False)
    read = configparser.RawConfigParser(
        delimiters="=", comment_prefixes=(), strict=True, empty_lines_in_values=False
    )
    read.read_string(text)
    assert read.sections() == ["virt-viewer"]
    assert set(read["virt-viewer"]) == {"type", "unix-path", "title", "fullscreen"}
    assert text.count("\n") == 5


@settings(max_examples=200)
@given(st.lists(st.text(max_size=30), max_size=4))
def test_a_filter_in_a_vv_file_is_a_line(rules: list[str]) -> None:
    try:
        lines = usb_lines("auto", for_client(rules))
    except ValueError:
        return
    assert lines.count("\n") in (0, 2)
    assert lines.replace("\n", "").isprintable()


# ---- the terminal -------------------------------------------------------------------------------

# Sets a title, clears the screen, answers back, moves up; C1, and a direction that lies.
NASTY = "x\x1b]0;owned\x07\x1b[2J\x1b[6n\r\x9b1A\u202egnp.exe\x00"
ROW: dict[str, Any] = {
    "name": "xp", "state": "running", "since": 1.0, "pid": 7, "memory": 1, "cpu": 1.0,
    "accel": "kvm", "confined": [NASTY], "title": NASTY, "network": [NASTY], "display": [NASTY],
    "profile": NASTY, "guest": NASTY, "warnings": [{"message": NASTY, "level": "warning"}],
}  # fmt: skip
ANSWERS: dict[tuple[str, ...], tuple[str, Any]] = {
    ("ps",): ("ps", {"machines": [ROW]}),
    ("ps", "--format", "{title} {guest}"): ("ps", {"machines": [ROW]}),
    ("status", "xp"): ("status", ROW | {"disks": [{"id": NASTY, NASTY: [NASTY, {NASTY: NASTY}]}]}),
    ("ip", "xp"): (
        "ip",
        {"name": "xp", "nics": [{"id": "n", "mac": "m", "direct": True, "problem": NASTY,
                 "network": NASTY, "backend": NASTY,
                 "addresses": [{"address": NASTY, "sources": [NASTY]}]}]},
    ),
    ("hmp", "xp", "info", "status"): ("hmp", {"text": NASTY}),
    ("qmp", "xp", "query-name"): ("qmp", {"return": {"name": NASTY}, NASTY: NASTY}),
}  # fmt: skip


@pytest.fixture
def peer() -> Iterator[Peer]:
    with supervisor() as peer:
        yield peer


def is_tame(text: str) -> bool:
    return text.replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["people", "json"])
def test_what_a_guest_says_drives_no_terminal(
    peer: Peer, words: tuple[str, ...], form: tuple[str, ...]
) -> None:
    verb, answer = ANSWERS[words]
    peer.result("ps", {"machines": [ROW]})
    peer.result(verb, answer, progress=[{"step": NASTY, "text": NASTY, "seconds": 1.0}])
    done = run(*words, *form)
    assert done.returncode == 0, done.stderr
    assert "owned" in done.stdout
    assert is_tame(done.stdout), ascii(done.stdout)
    assert is_tame(done.stderr), ascii(done.stderr)
    if form:
        json.loads(done.stdout)


def test_an_error_that_quotes_a_guest_drives_no_terminal(peer: Peer) -> None:
    from qlaunch.errors import CommandError

    peer.result("ps", {"machines": [ROW]})
    peer.error("status", CommandError(NASTY, hint=NASTY))
    done = run("status", "xp")
    assert done.returncode == 1
    assert "owned" in done.stderr
    assert is_tame(done.stderr), ascii(done.stderr)


def test_the_address_alone_drives_no_terminal(peer: Peer) -> None:
    peer.result("ip", ANSWERS["ip", "xp"][1])
    done = run("ip", "xp", "--one")
    assert "owned" in done.stdout
    assert is_tame(done.stdout), ascii(done.stdout)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qlaunch", *words],
        check=False, capture_output=True, text=True, timeout=30, cwd=TOP,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:surrogateescape"},
    )  # fmt: skip


def test_the_log_of_a_machine_drives_no_terminal(own_place: Path) -> None:
    from qlaunch.store import machines

    path = Path(machines.log_path("xp"))
    path.parent.mkdir(parents=True)
    path.write_text(f"2026-01-01T00:00:00 {NASTY}\n", encoding="utf-8")
    done = run("logs", "xp")
    assert "owned" in done.stdout
    assert is_tame(done.stdout), ascii(done.stdout)
