"""What pyproject.toml promises to the wheel is there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parent.parent
OPTIONAL = {"share/man/qlaunch-profile.5"}


def wheel_table() -> dict[str, Any]:
    text = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["tool"]["hatch"]["build"]["targets"]["wheel"]
    return table


# hatchling leaves out a missing file without a word.
@pytest.mark.parametrize("table", ["force-include", "shared-data"])
def test_every_file_that_the_wheel_carries_exists(table: str) -> None:
    sources = set(wheel_table()[table]) - OPTIONAL
    assert {source for source in sources if not (TOP / source).exists()} == set()


def test_the_demo_image_is_a_boot_sector() -> None:
    image = (TOP / "qlaunch/demo/demo.img").read_bytes()
    assert image[510:512] == b"\x55\xaa"
