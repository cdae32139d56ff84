"""Key names and texts, as people write them, become QEMU's keys."""

from __future__ import annotations

import string

import pytest

from qlaunch.errors import UsageError
from qlaunch.machine.keys import parse_chord, text_to_chords


@pytest.mark.parametrize(
    "text, keys",
    [
        ("ctrl-alt-delete", ("ctrl", "alt", "delete")),
        ("Ctrl-Alt-Del", ("ctrl", "alt", "delete")),
        ("ctrl+c", ("ctrl", "c")),
        ("f10", ("f10",)),
        ("Enter", ("ret",)),
        ("win", ("meta_l",)),
        ("7", ("7",)),
        ("-", ("minus",)),
        ("/", ("slash",)),
        ("kp_5", ("kp_5",)),
    ],
)
def test_a_chord_is_read(text: str, keys: tuple[str, ...]) -> None:
    assert parse_chord(text) == keys


@pytest.mark.parametrize("text", ["hyper-a", "", "ctrl-", "f99", "ü", "ctrl--alt"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no key"):
        parse_chord(text)


def test_a_typing_error_gets_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        parse_chord("ctrl-delte")
    assert caught.value.hint == "did you mean 'delete'?"


def test_every_printable_letter_can_be_typed() -> None:
    chords = text_to_chords(string.ascii_letters + string.digits + string.punctuation + " \n\t")
    assert len(set(chords)) == len(chords)
    assert text_to_chords("aA!\n") == [("a",), ("shift", "a"), ("shift", "1"), ("ret",)]


@pytest.mark.parametrize("text", ["ä", "€", "\0"])
def test_what_is_not_on_the_keyboard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not on a US keyboard"):
        text_to_chords(text)
