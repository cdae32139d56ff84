"""Every parser survives a moment of damaged input, and what it does not survive is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.__main__ import Fuzzer, failure, mutated, parsed
from tests.fuzz.targets import TARGETS, Target

MANY = 150


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_or_refuses_what_is_damaged(name: str) -> None:
    target, dice = TARGETS[name], Random(name)
    seeds = target.seeds()
    assert seeds
    for data in seeds:
        assert failure(target, data) == ""
    for _ in range(MANY):
        data = mutated(dice.choice(seeds), dice)
        assert failure(target, data) == "", data


def test_an_error_that_is_not_allowed_is_kept_and_can_be_had_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def parse(data: bytes) -> None:
        raise KeyError("a hole")

    monkeypatch.chdir(tmp_path)
    fuzzer = Fuzzer("usb", Target(parse, list), Random(1), [b"x"])
    fuzzer.some(float("inf"))
    assert fuzzer.failed == fuzzer.runs > 0
    told = capsys.readouterr().out
    assert "KeyError: 'a hole'" in told
    kept = sorted(tmp_path.glob("fuzz-failures/usb-*"))
    assert kept
    assert f"{kept[0].name}" in told
    assert 'again: make fuzz ARGS="target=usb input=' in told


@pytest.mark.parametrize("word", ["target=x", "seconds=a", "what=1", "input=a"])
def test_a_wrong_word_is_told(word: str) -> None:
    with pytest.raises(SystemExit):
        parsed([word])


def test_it_runs_as_make_calls_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "seconds=1", "target=units"],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True,
        env=os.environ,
    )  # fmt: skip
    assert "units, 0 failed" in done.stdout
