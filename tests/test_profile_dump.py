"""A profile written as TOML loads back to the same profile."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaunch.profile.dump import dumps
from qlaunch.profile.fields import ID_ENDINGS, Entry, entries_of
from qlaunch.profile.load import loads
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Secret
from qlaunch.profile.toml import parse_toml

TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=12)
SAFE_TEXTS = st.text(string.ascii_letters + " ,=-'\"\\#[]{}$é", min_size=1, max_size=12)
IDS = st.from_regex(r"[a-z][a-z0-9_-]{0,19}", fullmatch=True).filter(
    lambda found: not found.endswith(ID_ENDINGS)
)


def values_of(entry: Entry) -> st.SearchStrategy[Any]:
    key = entry.key
    least, most = int(key.least or 0), int(key.most or 1 << 50)
    match key.kind:
        case "choice":
            return st.sampled_from(key.choices)
        case "boolean":
            return st.booleans()
        case "integer" | "size":
            return st.integers(least, most)
        case "duration":
            return st.floats(least, min(most, 86400)).map(
                lambda each: round(each, 6)
            ) | st.integers(least or 1, 59).map(float)
        case "numbers":
            return st.lists(st.integers(least, most), max_size=3).map(tuple)
        case "words":
            return st.lists(texts_of(entry), max_size=3).map(tuple)
        case "path":
            return SAFE_TEXTS.map(lambda text: f"/{text.strip('/')}") | st.just("@demo")
        case "secret":
            return st.builds(Secret, env=st.just("PASSWORD")) | st.builds(
                Secret, systemd_credential=st.just("pw")
            )
    return texts_of(entry)


def texts_of(entry: Entry) -> st.SearchStrategy[str]:
    if entry.key.pattern:
        # Some patterns know more than their alphabet: \d would bring in other scripts' digits.
        return st.from_regex(re.compile(entry.key.pattern, re.ASCII), fullmatch=True)
    return TEXTS | SAFE_TEXTS


def records(cls: type) -> st.SearchStrategy[Any]:
    """Objects of one of the model's classes that say some of their keys."""
    entries = entries_of(cls).values()
    optional = {e.attribute: values_of(e) for e in entries if not e.key.required}
    required = {e.attribute: values_of(e) for e in entries if e.key.required and e.key.kind != "id"}
    return st.fixed_dictionaries(required, optional=optional).map(lambda said: cls(**said))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    said: dict[str, Any] = {"name": draw(values_of(entries_of(Profile)["name"]))}
    ids = iter(draw(st.lists(IDS, min_size=8, max_size=8, unique=True)))
    names = draw(st.sets(st.sampled_from(list(entries_of(Profile))), max_size=6))
    for name in sorted(names - {"schema", "extends", "name"}):
        entry = entries_of(Profile)[name]
        if entry.item is None:
            said[name] = draw(values_of(entry))
        elif entry.key.kind == "table":
            said[name] = draw(records(entry.item))
        else:
            plain = [draw(records(entry.item))]
            said[name] = tuple(with_id(item, next(ids)) for item in plain)
    return Profile(**said)


def with_id(item: Any, ident: str) -> Any:
    attributes = {e.attribute: getattr(item, e.attribute) for e in entries_of(type(item)).values()}
    return type(item)(**{**attributes, "id": ident})


@settings(deadline=None, max_examples=150)
@given(profiles())
def test_a_profile_loads_back_as_it_was_written(profile: Profile) -> None:
    text = dumps(profile)
    assert loads(text, "/elsewhere/other.toml") == profile
    assert loads(dumps(profile, origins=True), "/elsewhere/other.toml") == profile


def test_only_what_is_said_is_written_in_the_order_of_the_model() -> None:
    profile = loads(
        "[[disk]]\nid = 'hda'\npath = 'C:\\xp.img'\nsize = '20480MiB'\n[cpu]\ncount = 2\n".join(
            ["schema = 1\n", "[lifecycle]\nstop_timeout = '90s'\n[qemu]\nargs = ['a\"b', '-S']\n"]
        ),
        "/p/xp.toml",
    )
    assert dumps(profile) == (
        'schema = 1\nname = "xp"\n\n[cpu]\ncount = 2\n\n[lifecycle]\nstop_timeout = "90s"\n\n'
        '[qemu]\nargs = ["a\\"b", "-S"]\n\n'
        '[[disk]]\nid = "hda"\npath = \'/p/C:\\xp.img\'\nsize = "20GiB"\n'
    )


@pytest.mark.parametrize("guest", ["windows-xp", "windows-11", "linux", "dos"])
def test_what_was_removed_stays_removed(guest: str) -> None:
    text = f"schema = 1\nguest = '{guest}'\n"
    if guest != "dos":
        text += "[[input]]\nid = 'tablet0'\nremove = true\n"
    profile = loads(text, "vm.toml")
    assert profile.input == ()
    assert loads(dumps(profile), "vm.toml") == profile


def test_extends_of_a_profile_made_by_hand_is_written() -> None:
    profile = Profile(name="xp", guest="windows-xp", extends=("@windows-xp",))
    assert parse_toml(dumps(profile))["extends"] == ["@windows-xp"]
    assert loads(dumps(profile), "xp.toml").machine.type == "pc"


def test_comments_tell_where_a_key_is_said() -> None:
    profile = loads(
        "schema = 1\nguest = 'windows-xp'\n[memory]\nsize = '1GiB'",
        "xp.toml",
        overrides=["cpu.count=2"],
    )
    text = dumps(profile, origins=True)
    assert "\ncount = 2  # --set\n" in text
    assert re.search(r"\ndrift = \"slew\"  # @windows-xp:\d+\n", text)
    assert '\nsize = "1GiB"\n' in text
