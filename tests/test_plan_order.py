"""In which order machines start and stop."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qlaunch.plan.order import circle, prerequisites, reversed_order

NAMES = st.sampled_from("abcdefgh")


def test_only_those_count_that_start_too() -> None:
    after = {"web": ("dc", "db", "web"), "db": ("dc",), "other": ()}
    assert prerequisites(after) == {
        "web": frozenset({"db"}), "db": frozenset(), "other": frozenset()
    }  # fmt: skip


def test_stopping_is_the_other_way_round() -> None:
    before = prerequisites({"web": ("dc", "db"), "db": ("dc",), "dc": ()})
    assert reversed_order(before) == {
        "web": frozenset(), "db": frozenset({"web"}), "dc": frozenset({"web", "db"})
    }  # fmt: skip


def test_a_circle_is_found_and_told_as_one() -> None:
    before = prerequisites({"a": ("b",), "b": ("c",), "c": ("b",), "d": ()})
    assert circle(before) == ("b", "c", "b")
    assert circle(prerequisites({"a": ("b",), "b": ()})) == ()


def test_a_long_row_is_no_circle() -> None:
    names = [f"m{number:04}" for number in range(3000)]
    after = {name: (other,) for name, other in zip(names[1:], names, strict=False)} | {names[0]: ()}
    assert circle(prerequisites(after)) == ()


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=4)))
def test_without_a_circle_all_get_their_turn(after: dict[str, list[str]]) -> None:
    before = prerequisites(after)
    started: set[str] = set()
    while ready := {name for name, others in before.items() if others <= started} - started:
        started |= ready
    ring = circle(before)
    assert (not ring) == (started == before.keys())
    for name, other in pairwise(ring):
        assert other in before[name]
