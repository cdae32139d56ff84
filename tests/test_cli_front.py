"""The front door: finding the verb, telling errors, the exit status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from qlaunch import errors
from qlaunch.cli import parsers, registry
from qlaunch.cli.main import main
from qlaunch.cli.overview import overview
from tests.cli_peer import PATIENCE, TOP, Peer, qlaunch, supervisor, write_profile

WRITTEN = [verb.name for verb, _ in parsers.every()]
ERRORS = [
    errors.UsageError("u"),
    errors.HostError("h", hint="mend it"),
    errors.LaunchError("l"),
    errors.CommandError("c"),
    errors.SessionLostError("s"),
    errors.NoSupervisorError("n"),
    errors.NotFoundError("f"),
    errors.ConflictError("x"),
    errors.PhaseError("p"),
    errors.BusyError("b"),
    errors.RefusedError("r"),
    errors.TimedOutError("t"),
    errors.InternalError("i"),
]


@pytest.fixture
def peer() -> Iterator[Peer]:
    with supervisor() as peer:
        yield peer


def test_the_overview_names_every_verb_and_fits_a_terminal() -> None:
    lines = overview().splitlines()
    assert max(map(len, lines)) <= 80
    listed = {line.split()[0] for line in lines if line.startswith("  ")}
    assert set(registry.VERBS) <= listed


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"], ["--json", "--help"]])
def test_help_is_the_overview(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == overview() + "\n"


@pytest.mark.parametrize("verb", WRITTEN)
def test_every_verb_explains_itself_with_examples(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: qlaunch {verb}" in text
    assert f"\n  qlaunch {verb}" in text or f"| qlaunch {verb}" in text
    assert main(["help", verb]) == 0
    assert capsys.readouterr().out == text


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["--json", "--version"]) == 0
    plain, data = capsys.readouterr().out.splitlines()
    assert plain == f"qlaunch {json.loads(data)['version']}"


@pytest.mark.parametrize(
    "words, hint",
    [
        (["screenshots"], "did you mean 'screenshot'?"),
        (["xyzzy"], "`qlaunch --help` shows what there is"),
        (["--frobnicate", "ps"], "`qlaunch --help` shows what there is"),
        (["ps", "--frobnicate"], "`qlaunch ps --help` shows what it takes"),
        (["help", "pss"], "did you mean 'ps'?"),
        (["wait", "xp", "--timeout", "soon"], "`qlaunch wait --help` shows what it takes"),
    ],
)
def test_a_wrong_command_line_is_told_with_a_hint(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("qlaunch: ")
    assert output.err.endswith(f"  hint: {hint}\n")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.kind)
def test_an_error_of_the_supervisor_becomes_words_and_a_status(
    error: errors.QlaunchError, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    peer.error("reset", error)
    assert main(["reset", "xp"]) == error.exit_status
    output = capsys.readouterr()
    assert output.out == ""
    hint = f"  hint: {error.hint}\n" if error.hint else ""
    assert output.err == f"qlaunch: {error.message}\n{hint}"


@pytest.mark.parametrize("words", [["--json", "reset", "xp"], ["reset", "xp", "--json"]])
def test_with_json_an_error_is_data(
    words: list[str], peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    error = errors.BusyError("xp is being reverted", hint="wait for it")
    peer.error("reset", error)
    assert main(words) == 5
    output = capsys.readouterr()
    assert output.err == ""
    assert json.loads(output.out) == {"error": error.to_dict()}


def test_every_finding_of_a_profile_has_its_line(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (errors.ProfileError("a.toml:9: cpu.count", "is not a number"),)
    peer.error("up", errors.ProfileError("a.toml:7: disk", "no", hint="yes", more=more))
    write_profile("a")
    assert main(["up", "a"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "qlaunch: a.toml:7: disk: no",
        "  hint: yes",
        "qlaunch: a.toml:9: cpu.count: is not a number",
    ]


def test_no_control_character_reaches_the_terminal(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "a\x1b]0;owned\x07b\x9b31mc\u202ed\x7f"
    peer.error("reset", errors.LaunchError(evil, hint=evil))
    peer.result("status", {"name": evil, evil: [{evil: evil}]})
    peer.result("hmp", {"text": f"{evil}\r\nsecond\tline\n"})
    peer.result("qmp", {"return": {evil: evil}})
    peer.result("ps", {"supervisor": None, "machines": [_evil_machine(evil)]})
    main(["reset", "xp"])
    commands = (
        ["status", "xp"],
        ["hmp", "xp", "info"],
        ["qmp", "xp", "query-block"],
        ["qmp", "xp", "query-block", "--json"],
        ["ps"],
        ["ps", "--json"],
        ["ps", "--format", "{name}"],
    )
    for words in commands:
        assert main(words) == 0
    output = capsys.readouterr()
    text = (output.out + output.err).replace("\n", "").replace("\t", "")
    assert text.isprintable()


def _evil_machine(evil: str) -> dict[str, Any]:
    return {"name": evil, "state": evil, "display": [evil], "warnings": [evil]}


def test_a_bug_says_that_it_is_one_and_shows_its_traceback_on_demand(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.result("status", 17)
    assert main(["status", "xp"]) == 1
    quiet = capsys.readouterr().err
    assert "bug in qlaunch" in quiet
    assert "Traceback" not in quiet
    assert main(["status", "xp", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("QLAUNCH_DEBUG", "1")
    assert main(["status", "xp"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_names_may_stand_on_both_sides_of_an_option(peer: Peer) -> None:
    peer.result("down", {"how": "acpi"})
    assert main(["-q", "down", "a", "--force", "b"]) == 0
    asked = [args for verb, args in peer.asked if verb == "down"]
    assert sorted(args["name"] for args in asked) == ["a", "b"]
    assert all(args["force"] for args in asked)


def test_ctrl_c_ends_with_130_and_hangs_up(peer: Peer) -> None:
    asked, hung_up = threading.Event(), threading.Event()

    def never(sock: socket.socket, _: dict[str, Any]) -> None:
        asked.set()
        if not sock.recv(1):
            hung_up.set()

    peer.on("wait", never)
    with qlaunch("wait", "xp", stderr=subprocess.PIPE) as process:
        assert asked.wait(PATIENCE)
        # Python looks for signals between its steps: one that comes on the way into recv(2) waits
        # for the next, as a person would press the key again.
        for _ in range(int(PATIENCE)):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        _, words = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert words == b""
    assert hung_up.wait(PATIENCE)


def test_a_closed_pipe_ends_it_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with qlaunch("--help", stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        _, words = process.communicate(timeout=PATIENCE)
    assert (process.returncode, words) == (141, b"")


def test_closed_standard_streams_disturb_nothing(peer: Peer) -> None:
    peer.result("reset", {})
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m qlaunch reset xp <&- >&- 2>&-"],
        cwd=TOP,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0


def test_a_full_disk_is_told() -> None:
    with (
        open("/dev/full", "wb") as full,
        qlaunch("--help", stdout=full, stderr=subprocess.PIPE) as process,
    ):
        _, words = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert words == b"qlaunch: No space left on device\n"
