"""Command lines as they are, one option on a line. `make golden` rewrites them; read the diff."""

from __future__ import annotations

import pytest
from attrs import evolve

from qlaunch.argv import command_line, scope_prefix
from qlaunch.facts import ImageFacts
from qlaunch.plan import Resolution
from tests import plans
from tests.conftest import Golden
from tests.machines import BASE, CASES, Case


def images_of(case: Case) -> dict[str, ImageFacts]:
    """What is known of the images of `case`, which all lie in one folder."""
    found = {}
    for name, words in case.files.items():
        what, _, backing = words.partition(" < ")
        image = evolve(plans.DISK, format="qcow2" if what == "qcow2" else "raw")
        if backing:
            image = evolve(
                image,
                backing=backing,
                backing_path=f"{BASE}/{backing}",
                backing_format=case.files[backing].split()[0],
            )
        found[f"{BASE}/{name}"] = image
    return found | {f"{BASE}/{name}": plans.FOLDER for name in case.folders}


def resolution_of(name: str, version: str) -> Resolution:
    case = CASES[name]
    return plans.plan_of(
        plans.profile(case.text(), name=name),
        images=images_of(case),
        version=version,
        network=case.network,
    )


@pytest.mark.parametrize("version", plans.VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_the_command_line_is_the_golden_one(name: str, version: str, golden: Golden) -> None:
    resolution = resolution_of(name, version)
    assert resolution.errors == (), plans.findings(resolution)
    found = plans.findings(resolution)
    plan = resolution.plan
    parts = [f"# {line}" for line in found.splitlines()]
    parts += [" ".join(scope_prefix(plan)) + " \\"] if plan.limits else []
    text = "\n".join([*parts, plans.readable(command_line(plan))])
    golden(f"argv/{version}/{name}.txt", text)
