"""Several machines at once: `up --all`, `down --all`, patterns, and their order."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.rig import PATIENCE, Rig, qlaunch, write_profile

pytestmark = pytest.mark.qemu


def run(*words: str, status: int = 0) -> tuple[list[dict[str, Any]], str]:
    """What a command prints as JSON, a line each, and what it says."""
    process = qlaunch(*words, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, err.decode()
    return [json.loads(line) for line in out.decode().splitlines()], err.decode()


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


def test_all_start_and_stop_in_the_order_that_the_profiles_ask_for(rig: Rig) -> None:
    write_profile("web", '[lifecycle]\nafter = ["db", "dc"]\nstart_delay = "100ms"\n')
    write_profile("db", '[lifecycle]\nafter = ["dc"]\n')
    write_profile("dc")
    rig.up("db")  # runs already
    started, _ = run("up", "--all")
    assert sorted(names(started)) == ["db", "dc", "web"]
    assert names(started)[-1] == "web"
    assert {row["name"]: row["already"] for row in started}["db"]
    for name in ("web", "db", "dc"):
        rig.ready(name)
    stopped, _ = run("down", "--all")
    assert names(stopped) == ["web", "db", "dc"]
    assert {row["how"] for row in stopped} == {"guest-shutdown"}
    assert run("down", "--all")[0] == []


def test_a_pattern_means_all_profiles_that_match(rig: Rig) -> None:
    for name in ("web-1", "web-2", "other"):
        write_profile(name)
    started, _ = run("up", "web-*")
    assert sorted(names(started)) == ["web-1", "web-2"]
    assert sorted(names(run("up", "web-*")[0])) == ["web-1", "web-2"]
    assert sorted(names(run("kill", "web-?")[0])) == ["web-1", "web-2"]
    errors, _ = run("up", "nothing-*", status=4)
    assert "no profile is called like 'nothing-*'" in errors[0]["error"]["message"]


def test_what_needs_one_that_fails_does_not_start(rig: Rig) -> None:
    write_profile("web", '[lifecycle]\nafter = ["dc"]\n')
    write_profile("dc", '[qemu]\nargs = ["-nonsense"]\n')
    write_profile("apart")
    told, _ = run("up", "--all", status=1)
    by_name = {row["name"]: row for row in told}
    assert "pid" in by_name["apart"]
    assert "-nonsense" in by_name["dc"]["error"]["message"]
    assert by_name["web"]["error"]["message"].startswith("not started, for dc")
    rig.kill("apart")


def test_a_circle_is_refused_before_anything_starts(rig: Rig) -> None:
    write_profile("a", '[lifecycle]\nafter = ["b"]\n')
    write_profile("b", '[lifecycle]\nafter = ["a"]\n')
    told, _ = run("up", "--all", status=2)
    assert "wait for each other: a -> b -> a" in told[0]["error"]["message"]
    assert rig.row("a") == {}


def test_more_than_may_start_at_once_all_start(rig: Rig) -> None:
    wanted = [f"m{number}" for number in range(12)]
    for name in wanted:
        write_profile(name)
    assert sorted(names(run("up", "--all")[0])) == sorted(wanted)
    states = {row["name"]: row["state"] for row in rig.ask("ps")["machines"]}
    assert states == dict.fromkeys(wanted, "running")
    assert sorted(names(run("kill", "*")[0])) == sorted(wanted)


def test_all_and_names_do_not_go_together(rig: Rig) -> None:
    for verb in ("up", "down"):
        assert "do not go together" in run(verb, "--all", "xp", status=2)[0][0]["error"]["message"]
    assert "you have no profiles" in run("up", "--all")[1]
