"""What a plan has to say about wishes, word for word: tests/golden/plan/findings-*.txt.

Each golden file shows the profile and what a person is told about it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

import qlaunch.plan
from qlaunch.errors import ConflictError, HostError, ProfileError, RefusedError
from tests import plans
from tests.conftest import GOLDEN_DIR, Golden
from tests.wishes import GROUPS as OTHERS
from tests.wishes import Wish
from tests.wishes_networks import NETWORKS
from tests.wishes_places import PLACES
from tests.wishes_usb import USB

GROUPS = {**OTHERS, "networks": NETWORKS, "places": PLACES, "usb": USB}
PLAN_FOLDER = Path(qlaunch.plan.__file__).parent


def told(wish: Wish) -> str:
    """What is said about `wish`."""
    resolution = plans.plan_of(
        plans.profile(wish.text, *wish.overrides),
        images=wish.images,
        leases=wish.leases,
        host=wish.host,
        ports=wish.ports,
        without=wish.without,
        heads=wish.heads,
        network=wish.network,
        usb=wish.usb,
    )
    return plans.findings(resolution)


@pytest.mark.parametrize("group", GROUPS)
def test_each_wrong_wish_is_told_word_for_word(group: str, golden: Golden) -> None:
    parts = []
    for title, wish in GROUPS[group].items():
        found = told(wish)
        assert found, f"nothing is said about: {title}"
        said = "\n".join([wish.text.strip(), *(f"--set {word}" for word in wish.overrides)])
        parts.append(f"==== {title}\n{said}\n----\n{found}\n")
    golden(f"plan/findings-{group}.txt", "\n".join(parts))


def messages() -> Iterator[tuple[str, str]]:
    """The longest fixed part of every message in qlaunch.plan, and where it is."""
    for path in sorted(PLAN_FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("error", "warn")
                and len(node.args) > 1
            ):
                text = node.args[1]
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                words = [
                    part.value
                    for part in parts
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
                if words:
                    yield f"{path.name}:{node.lineno}", max(words, key=len)


def test_every_message_of_the_plan_is_in_a_golden_file() -> None:
    files = sorted((GOLDEN_DIR / "plan").glob("findings-*.txt"))
    whole = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert [where for where, words in messages() if words not in whole] == []


def test_all_errors_are_raised_in_one_and_those_of_the_profile_first() -> None:
    text = '[machine]\naccel = "kvm"\ntype = "px"\n[memory]\nsize = "100GiB"\n'
    resolution = plans.plan_of(text, host=evolve(plans.HOST, kvm=plans.NO_KVM))
    with pytest.raises(ProfileError, match="has no machine 'px'") as caught:
        resolution.raise_errors()
    assert len(caught.value.more) == 2
    assert len(resolution.errors) == 3


@pytest.mark.parametrize(
    "text, kind",
    [
        ('[machine]\naccel = "kvm"\n[memory]\nsize = "100GiB"\n', HostError),
        ('[memory]\nsize = "100GiB"\n', RefusedError),
        ("[display]\nspice = true\nport = 5930\n", ConflictError),
    ],
)
def test_who_must_act_is_told_by_the_class(text: str, kind: type[Exception]) -> None:
    host = evolve(plans.HOST, kvm=plans.NO_KVM)
    resolution = plans.plan_of(text, host=host, ports={"tcp/5930": "spicy, pid 7"})
    with pytest.raises(kind) as caught:
        resolution.raise_errors()
    assert all(finding.message in str(caught.value) for finding in resolution.errors)


def test_a_good_wish_raises_nothing() -> None:
    resolution = plans.plan_of("")
    resolution.raise_errors()
    assert resolution.findings == ()
