"""`qlaunch import`: a file of libvirt's in, a profile out, and the report on stderr."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from qlaunch.machine.names import profile_of
from qlaunch.profile.load import load
from tests.definitions import qlaunch

DOMAINS = Path(__file__).parent / "domains"


def test_import_writes_a_profile_called_as_the_domain(own_place: Path) -> None:
    done = qlaunch("import", DOMAINS / "windows-xp.xml")
    assert done.status == 0, done.err
    profile = load(profile_of("windows-xp"))
    assert (profile.name, profile.guest, profile.title) == (
        "windows-xp",
        "windows-xp",
        "Windows XP",
    )
    assert "not needed here:" in done.err
    assert "qlaunch up windows-xp" in done.err
    assert done.out == ""


def test_nothing_that_exists_is_overwritten(own_place: Path) -> None:
    assert qlaunch("import", DOMAINS / "minimal.xml").status == 0
    again = qlaunch("import", DOMAINS / "minimal.xml")
    assert (again.status, "--name" in again.err) == (5, True)
    assert qlaunch("import", DOMAINS / "minimal.xml", "--name", "other").status == 0


def test_an_output_of_another_name_says_the_machines(own_place: Path) -> None:
    target = own_place / "it.toml"
    done = qlaunch("import", DOMAINS / "minimal.xml", "-o", target, "--json")
    assert done.status == 0
    assert load(str(target)).name == "minimal"
    assert (done.json["file"], done.json["name"]) == (str(target), "minimal")


def test_stdout_gets_the_profile_and_nothing_is_written(own_place: Path) -> None:
    done = qlaunch("import", DOMAINS / "blog.xml", "--stdout", "--quiet")
    assert (done.status, done.err) == (0, "")
    assert 'name = "xp-blog"' in done.out
    assert not Path(profile_of("xp-blog")).exists()


def test_strict_refuses_what_is_not_supported(own_place: Path) -> None:
    done = qlaunch("import", DOMAINS / "hostdevs.xml", "--strict")
    assert done.status == 2
    assert "hostdevs.xml:13: hostdev: not supported" in done.err
    assert not Path(profile_of("hostdevs")).exists()
    assert qlaunch("import", DOMAINS / "windows-xp.xml", "--strict").status == 0


def test_standard_input_is_read(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO((DOMAINS / "minimal.xml").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    assert qlaunch("import", "-", "--stdout").status == 0


@pytest.mark.parametrize("word, status", [("gone.xml", 4), (".", 1)])
def test_what_cannot_be_read_is_told(word: str, status: int, own_place: Path) -> None:
    done = qlaunch("import", word)
    assert (done.status, word in done.err) == (status, True)
