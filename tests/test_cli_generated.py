"""Completion and the manual page: in step with the parsers, and working in the real shells."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from qlaunch.cli import completion, manpage, parsers
from qlaunch.cli.main import main
from tests.cli_peer import PATIENCE, TOP, write_profile, write_state

SHARE = TOP / "share"
BASH_DRIVER = """
source "$1"; shift
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_qlaunch
printf '%s\\n' "${COMPREPLY[@]}"
"""


def output_of(*words: str, cwd: Path | None = None) -> str:
    environ = {**os.environ, "PATH": f"{os.environ['HOME']}/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=cwd, env=environ
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def program() -> None:
    """`qlaunch` in the PATH of `output_of`, with two machines to name."""
    folder = Path(os.environ["HOME"], "bin")
    folder.mkdir()
    script = folder / "qlaunch"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} -m qlaunch "$@"\n')
    script.chmod(0o755)
    write_profile("web-1")
    write_state("web-old", "last.json", "{}")


def needs(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize("shell", sorted(completion.FILES))
def test_the_completion_is_in_step_with_the_parsers(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    written = (SHARE / "completions" / completion.FILES[shell]).read_text(encoding="utf-8")
    assert written == printed, "`make generate` brings share/ into step"


def test_the_manual_page_is_in_step_with_the_parsers() -> None:
    written = (SHARE / "man" / manpage.NAME).read_text(encoding="utf-8")
    assert written == manpage.generate(), "`make generate` brings share/ into step"


@pytest.mark.parametrize("shell", sorted(completion.FILES))
def test_the_shell_understands_its_completion(shell: str) -> None:
    needs(shell)
    output_of(shell, "-n", str(SHARE / "completions" / completion.FILES[shell]))


def test_man_understands_the_page() -> None:
    needs("man")
    # --warnings goes to stderr, which must stay empty.
    text = output_of("man", "--warnings", "-l", str(SHARE / "man" / manpage.NAME))
    for verb, _ in parsers.every():
        assert f"qlaunch {verb.name}" in text
    assert "EXIT STATUS" in text


def in_order(words: Iterable[str]) -> str:
    """A test's id, the same in every process: a set has no order of its own."""
    return " ".join(sorted(words) if isinstance(words, set) else words)


def bash(*words: str, cwd: Path | None = None) -> list[str]:
    script = str(SHARE / "completions" / "qlaunch.bash")
    return output_of("bash", "-c", BASH_DRIVER, "bash", script, *words, cwd=cwd).split()


@pytest.mark.parametrize(
    "words, found",
    [
        (["re"], {"restart", "reset", "resume"}),
        (["--json", "sta"], {"status"}),
        (["--ver"], {"--version"}),
        (["status", "web"], {"web-1", "web-old"}),
        (["status", "web-1", ""], set()),
        (["down", "web-1", "web-o"], {"web-old"}),
        (["down", "web-1", "--fo"], {"--force"}),
        (["wait", "web-1", "--for", "r"], {"running"}),
        (["wait", "--for", "=", "st"], {"stopped"}),
        (["wait", "--for", "="], {"running", "stopped", "agent", "ssh"}),
        (["up", "--set", ""], set()),
        (["supervisor", "st"], {"status", "stop"}),
        (["help", ""], set()),
    ],
    ids=in_order,
)
@pytest.mark.usefixtures("program")
def test_bash_completes(words: list[str], found: set[str]) -> None:
    needs("bash")
    # Definition verbs may begin with the same letters.
    offered = set(bash("qlaunch", *words))
    assert found <= offered if len(words) == 1 else found == offered


@pytest.mark.usefixtures("program")
def test_bash_completes_files_where_files_are_meant(tmp_path: Path) -> None:
    needs("bash")
    for name in ("shot.png", "web.toml", "web.txt"):
        (tmp_path / name).touch()
    assert bash("qlaunch", "screenshot", "web-1", "sh", cwd=tmp_path) == ["shot.png"]
    assert set(bash("qlaunch", "up", "web", cwd=tmp_path)) == {"web-1", "web-old", "web.toml"}


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    "line, found",
    [
        ("qlaunch screen", {"screenshot"}),
        ("qlaunch status web", {"web-1", "web-old"}),
        ("qlaunch wait web-1 --for ", {"running", "stopped", "agent", "ssh"}),
        ("qlaunch down --fo", {"--force"}),
        ("qlaunch supervisor st", {"status", "stop"}),
    ],
)
def test_fish_completes(line: str, found: set[str]) -> None:
    needs("fish")
    script = SHARE / "completions" / "qlaunch.fish"
    offered = output_of("fish", "-N", "-c", f"source {script}; complete -C '{line}'")
    assert {each.split("\t")[0] for each in offered.splitlines()} == found


# The word is split, so that the terminal's echo of this line is not taken for the answer.
ZSH_SETUP = """\
PROMPT='> '; fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D; print rea''dy
"""


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    "typed, shown",
    [("screensh", "screenshot"), ("status web-o", "web-old"), ("wait --for ru", "running")],
)
def test_zsh_completes(typed: str, shown: str) -> None:
    needs("zsh")
    master, slave = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "PATH": f"{os.environ['HOME']}/bin:/usr/bin:/bin"}
    with subprocess.Popen(
        ["zsh", "-f", "-i"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env=environ,
    ) as shell:
        os.close(slave)
        try:
            os.write(master, ZSH_SETUP.format(folder=SHARE / "completions").encode())
            read_until(master, b"ready\r\n")
            os.write(master, f"qlaunch {typed}\t".encode())
            read_until(master, shown.encode())
        finally:
            shell.kill()
            os.close(master)


def read_until(terminal: int, text: bytes) -> None:
    """Read on till `text` was shown; the test's own time limit ends it when it never comes."""
    shown = b""
    while text not in shown:
        shown += os.read(terminal, 4096)
