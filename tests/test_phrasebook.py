"""The phrasebook: every command of ours in it parses, and the page is that of the table."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from qlaunch.cli import parsers
from qlaunch.cli.phrasebook import Phrase, page, phrases
from qlaunch.cli.registry import VERBS

ALL = tuple(phrases())
DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_is_that_of_the_table() -> None:
    assert (DOCS / "from-libvirt.md").read_text(encoding="utf-8") == page()


def test_there_are_as_many_phrases_as_were_promised() -> None:
    assert len({phrase.virsh.split()[0] for phrase in ALL}) >= 120


@pytest.mark.parametrize("phrase", ALL, ids=lambda phrase: f"{phrase.virsh}".replace(" ", "_"))
def test_our_side_of_the_phrase_parses(phrase: Phrase) -> None:
    if not phrase.ours:
        assert phrase.remark, "who finds no command finds a word why"
        return
    first, *words = shlex.split(phrase.ours)
    if first.startswith("-"):
        return
    verb = VERBS[first]
    module = parsers.load(verb)
    parsers.arguments(verb, module, words)
