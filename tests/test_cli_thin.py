"""The quick commands import only what they need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli_peer import PATIENCE, TOP, machine, supervisor, write_profile

HEAVY = {
    "asyncio", "attr", "attrs", "concurrent", "contextlib2", "dataclasses", "difflib", "fnmatch",
    "inspect", "logging", "pathlib", "psutil", "qemu", "shutil", "subprocess", "tempfile",
    "threading", "tomli", "tomllib", "traceback", "urllib",
    "qlaunch.profile", "qlaunch.plan", "qlaunch.facts", "qlaunch.host", "qlaunch.qmp",
    "qlaunch.machine", "qlaunch.supervisor", "qlaunch.records", "qlaunch.aio",
}  # fmt: skip
WITHOUT_ARGPARSE = HEAVY | {"argparse", "json", "re", "socket", "typing", "enum"}
SCRIPT = """
import sys
before = set(sys.modules)
from qlaunch.cli.main import main
status = main(sys.argv[1:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
sys.exit(status)
"""


def imported_by(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("word", ["--help", "--version", "__names"])
def test_what_needs_no_supervisor_imports_next_to_nothing(word: str) -> None:
    assert imported_by(word) & WITHOUT_ARGPARSE == set()


@pytest.mark.parametrize("words", [["ps"], ["ps", "-a"], ["ps", "--json"], ["ps", "--help"]])
def test_ps_imports_the_client_and_no_more(words: list[str]) -> None:
    write_profile("xp")
    with supervisor() as peer:
        peer.result("ps", {"supervisor": None, "machines": [machine("demo")]})
        assert imported_by(*words) & HEAVY == set()


def test_ps_reads_no_other_verb() -> None:
    verbs = {name for name in imported_by("ps") if name.startswith("qlaunch.cli.verbs.")}
    assert verbs == {"qlaunch.cli.verbs.ps"}
