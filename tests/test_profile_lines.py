"""In which line each key of a TOML text stands."""

from __future__ import annotations

import json
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaunch.profile.lines import MAX_DEPTH, Path, key_lines
from qlaunch.profile.toml import parse_toml


def lines_of(text: str) -> dict[Path, int]:
    parse_toml(text)  # the scanner may assume that it is TOML
    return key_lines(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", {}),
        ("# only a comment", {}),
        ("\n\na = 1", {("a",): 3}),
        ("a.b = 1\na.c = 2", {("a",): 1, ("a", "b"): 1, ("a", "c"): 2}),
        ("[t]\n\nk = 1", {("t",): 1, ("t", "k"): 3}),
        ("[a.b]\nk = 1\n[a]\nj = 2", {("a",): 1, ("a", "b"): 1, ("a", "b", "k"): 2, ("a", "j"): 4}),
        ("[ a . 'b' ]  # c\nk = 1", {("a",): 1, ("a", "b"): 1, ("a", "b", "k"): 2}),
        (
            "[[d]]\nx = 1\n[[d]]\nx = 2",
            {("d",): 1, ("d", 0): 1, ("d", 0, "x"): 2, ("d", 1): 3, ("d", 1, "x"): 4},
        ),
        (
            "[[d]]\n[d.t]\nx = 1\n[[d.e]]\ny = 2",
            {
                ("d",): 1,
                ("d", 0): 1,
                ("d", 0, "t"): 2,
                ("d", 0, "t", "x"): 3,
                ("d", 0, "e"): 4,
                ("d", 0, "e", 0): 4,
                ("d", 0, "e", 0, "y"): 5,
            },
        ),
        ('"a.b" = 1\n\'c d\' = 2\n"\\u00e4" = 3', {("a.b",): 1, ("c d",): 2, ("ä",): 3}),
        ("a = [ # [\n 1,\n 2, ]\nb = 1", {("a",): 1, ("a", 0): 2, ("a", 1): 3, ("b",): 4}),
        (
            "a = { b = 1, c.d = [2] }",
            {("a",): 1, ("a", "b"): 1, ("a", "c"): 1, ("a", "c", "d"): 1, ("a", "c", "d", 0): 1},
        ),
        ('a = """\n[x]\nb = "1"\n""" # c\nc = 2', {("a",): 1, ("c",): 5}),
        ('a = """x""""\nb = 1', {("a",): 1, ("b",): 2}),
        ('a = """\\""""\nb = 1', {("a",): 1, ("b",): 2}),
        ("a = '''\n''\n'''''\nb = 1", {("a",): 1, ("b",): 4}),
        ('a = "x # y"\nb = \'# ]\'\nc = "\\""', {("a",): 1, ("b",): 2, ("c",): 3}),
        ("a = 1979-05-27 07:32:00 # c\nb = 1e3", {("a",): 1, ("b",): 2}),
        ("a = 1\r\nb = 2\r\n", {("a",): 1, ("b",): 2}),
    ],
)
def test_every_key_table_and_item_has_its_line(text: str, expected: dict[Path, int]) -> None:
    assert lines_of(text) == expected


def test_a_key_of_a_million_dots_is_scanned_at_once() -> None:
    # Not parsed before: the parser itself is content with 200.
    found = key_lines(".".join(["a"] * 200_000) + " = 1\nb = 2")
    assert max(map(len, found)) == MAX_DEPTH
    assert found["b",] == 2


KEYS = st.text(st.sampled_from("abZ_-09 .\"'\\é#=[]\t"), min_size=0, max_size=4)
SCALARS = st.one_of(
    st.integers(-9, 9), st.booleans(), st.text("ab\"'\\\n#[]{}=, é", max_size=8), st.just(1.5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)
DOCUMENTS = st.dictionaries(
    KEYS, VALUES | TABLES | st.lists(TABLES, min_size=1, max_size=3), max_size=5
)


def written_key(key: str, chance: Random) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+", key) and chance.random() < 0.5:
        return key
    if "'" not in key and chance.random() < 0.5:
        return f"'{key}'"
    return json.dumps(key)


def written_value(value: object, chance: Random) -> str:
    """`value` as TOML, in one of the ways in which it can be written."""
    gaps = ["", " ", "\n", " # c ]\n", "\n\n"]
    match value:
        case str():
            return written_text(value, chance)
        case list():
            items = [
                chance.choice(gaps) + written_value(item, chance) + chance.choice(gaps)
                for item in value
            ]
            return f"[{','.join(items)}{chance.choice(gaps)}]"
        case dict():
            pairs = [
                f" {written_key(key, chance)} = {written_value(item, chance)}"
                for key, item in value.items()
            ]
            return f"{{{','.join(pairs)} }}"
    return json.dumps(value)


def written_text(text: str, chance: Random) -> str:
    ways = [json.dumps(text, ensure_ascii=chance.random() < 0.5)]
    if "'" not in text:
        ways.append(f"'''\n{text}'''")
        if "\n" not in text:
            ways.append(f"'{text}'")
    if '"' not in text:
        ways.append('"""\n' + text.replace("\\", "\\\\") + '"""')
    return chance.choice(ways)


def written(document: dict[str, object], chance: Random) -> str:
    """`document` as TOML: plain keys first, then tables in headers or inline."""
    spaces = ["", "\n", "# a comment = [\n", "  "]
    plain, headed = [], []
    for key, value in document.items():
        name = written_key(key, chance)
        if isinstance(value, dict) and chance.random() < 0.5:
            headed.append(f"{chance.choice(spaces)}[{name}]\n{pairs_of(value, chance)}")
        elif holds_tables(value) and chance.random() < 0.5:
            assert isinstance(value, list)
            headed += [f"{chance.choice(spaces)}[[ {name} ]]\n{pairs_of(v, chance)}" for v in value]
        else:
            plain.append(f"{chance.choice(spaces)}{name} = {written_value(value, chance)}\n")
    return "".join(plain + headed)


def pairs_of(table: dict[str, object], chance: Random) -> str:
    return "".join(
        f"{written_key(key, chance)} ={written_value(value, chance)} # c\n"
        for key, value in table.items()
    )


def holds_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def paths_of(value: object, path: Path = ()) -> set[Path]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, item in value.items():
            found |= paths_of(item, (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            found |= paths_of(item, (*path, at))
    return {one for one in found if len(one) <= MAX_DEPTH}


@settings(deadline=None)
@given(DOCUMENTS, st.integers(0, 1 << 20))
def test_the_scanner_finds_exactly_what_the_parser_finds(
    document: dict[str, object], seed: int
) -> None:
    text = written(document, Random(seed))
    assert parse_toml(text) == document
    found = lines_of(text)
    assert set(found) == paths_of(document)
    rows = text.split("\n")
    for path, line in found.items():
        key = path[-1]
        if isinstance(key, str) and re.fullmatch("[a-zA-Z]+", key):
            assert key in rows[line - 1]
