"""Plans and leases survive their way through JSON; damaged ones are told, and nothing worse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

import pytest
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaunch.facts import QemuFacts
from qlaunch.plan import Leases, Plan
from qlaunch.records import RecordError, from_plain, to_plain
from tests import plans
from tests.machines import CASES
from tests.test_argv_golden import resolution_of

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@frozen(kw_only=True)
class Leaf:
    size: int
    word: Literal["a", "b"] = "a"


@frozen(kw_only=True)
class Tree:
    """One field of every kind."""

    name: str
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[str, int] = ("x", 1)
    seconds: float = 0.5
    good: bool = True
    names: frozenset[str] = frozenset()
    table: Mapping[str, int] = field(factory=dict)
    any: Mapping[str, Any] = field(factory=dict)


WHOLE = Tree(
    name="n",
    leaf=Leaf(size=1),
    leaves=(Leaf(size=2, word="b"),),
    names=frozenset({"b", "a"}),
    table={"k": 7},
    any={"k": [1, None, {"x": "y"}]},
)


def test_every_kind_of_field_comes_back() -> None:
    plain = json.loads(json.dumps(to_plain(WHOLE)))
    assert plain["names"] == ["a", "b"]
    assert from_plain(Tree, plain) == WHOLE


def test_unknown_keys_are_ignored_and_missing_ones_take_their_default() -> None:
    assert from_plain(Tree, {"name": "n", "of tomorrow": 1}) == Tree(name="n")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"name": 3}, "Tree.name: '3' is not str"),
        ({"leaf": {}}, "Tree.leaf: Leaf.__init__() missing 1 required keyword-only argument"),
        ({"leaf": {"size": True}}, "Tree.leaf.size: 'True' is not int"),
        ({"leaf": {"size": 1, "word": "c"}}, "Tree.leaf.word: 'c' is not"),
        ({"leaves": {"size": 1}}, "Tree.leaves: dict is not a list"),
        ({"leaves": [1]}, "Tree.leaves[0]: '1' is not a table"),
        ({"pair": ["x"]}, "Tree.pair: list is not 2 items"),
        ({"pair": ["x", "y"]}, "Tree.pair[1]: 'y' is not int"),
        ({"seconds": "1"}, "Tree.seconds: '1' is not float"),
        ({"seconds": 10**400}, "Tree.seconds: the number is too large"),
        ({"good": 1}, "Tree.good: '1' is not bool"),
        ({"names": [["a"]]}, "Tree.names[0]: list is not str"),
        ({"table": {"k": "v"}}, "Tree.table.k: 'v' is not int"),
        ({"any": []}, "Tree.any: list is not a table"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RecordError) as caught:
        from_plain(Tree, {**to_plain(WHOLE), **change})
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("name", CASES)
def test_plans_and_leases_come_back_from_json(name: str) -> None:
    resolution = resolution_of(name, "7.2")
    for value in (resolution.plan, resolution.leases):
        plain = json.loads(json.dumps(to_plain(value)))
        assert from_plain(type(value), plain) == value


def test_facts_come_back_from_json() -> None:
    facts = plans.qemu("10.0")
    assert from_plain(QemuFacts, json.loads(json.dumps(to_plain(facts)))) == facts


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside `value`."""
    yield at
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from places(item, (*at, key))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy of `value` with `new` at the place `at`."""
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = put(copy[at[0]], at[1:], new)
    return copy


PLAIN_PLAN = to_plain(resolution_of("windows11", "7.2").plan)
PLACES = list(places(PLAIN_PLAN))


@settings(max_examples=100)
@given(st.sampled_from(PLACES), JSON)
def test_a_damaged_plan_is_a_record_error_or_a_plan(at: tuple[Any, ...], new: Any) -> None:
    with suppress(RecordError):
        assert isinstance(from_plain(Plan, put(PLAIN_PLAN, at, new)), Plan)


@given(JSON)
def test_foreign_leases_are_a_record_error_or_leases(data: Any) -> None:
    with suppress(RecordError):
        assert isinstance(from_plain(Leases, data), Leases)
