"""The reference page, the JSON Schema and the shipped profiles keep in step with the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qlaunch import units
from qlaunch.profile import reference, schema
from qlaunch.profile.extends import BASES_FOLDER
from qlaunch.profile.fields import entries_of
from qlaunch.profile.load import load, loads
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Secret
from qlaunch.profile.toml import parse_toml

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "profiles").glob("*.toml"))
FILES = [*SHIPPED, *sorted(Path(BASES_FOLDER).glob("*.toml"))]


@cache
def validator() -> Any:
    plain = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(plain)
    return jsonschema.Draft202012Validator(plain)


@pytest.mark.parametrize(
    "name, text",
    list(reference.pages().items()),
)
def test_the_written_docs_are_those_of_the_model(
    name: str, text: str, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--golden"):
        reference.write(str(ROOT / "docs"))
    file = ROOT / "docs" / name
    written = file.read_text(encoding="utf-8") if file.exists() else ""
    assert written == text, f"docs/{name} is not what the model says: run make golden"


def test_the_docs_can_be_written_anywhere(tmp_path: Path) -> None:
    reference.write(str(tmp_path))
    assert json.loads((tmp_path / "profile.schema.json").read_text(encoding="utf-8"))
    assert (tmp_path / "profile.md").read_text(encoding="utf-8") == reference.reference()


def test_every_key_is_in_the_reference_and_in_the_schema() -> None:
    sections = reference.reference().split("\n## ")
    properties = schema.json_schema()["properties"]
    definitions = schema.json_schema()["$defs"]
    for name, entry in entries_of(Profile).items():
        assert name in properties
        if entry.item is None:
            top = next(s for s in sections if s.startswith("At the top"))
            assert f"| `{name}`" in top
            continue
        title = f"`[[{name}]]`" if entry.key.kind == "tables" else f"`[{name}]`"
        section = next(s for s in sections if s.startswith(title))
        for key in entries_of(entry.item):
            assert f"| `{key}`" in section
            assert definitions[entry.item.__name__]["properties"][key]["description"]
    assert set(definitions["Secret"]["properties"]) == set(entries_of(Secret))


def test_every_key_is_explained_in_a_sentence() -> None:
    for cls in classes():
        for entry in entries_of(cls).values():
            assert entry.key.doc.endswith("."), entry.name
            assert not entry.key.otherwise.endswith("."), entry.name
            assert not entry.key.pattern or entry.key.pattern_words, entry.name


def classes() -> Iterator[type]:
    yield Profile
    yield Secret
    for entry in entries_of(Profile).values():
        if entry.item is not None:
            yield entry.item


def test_the_list_of_tables_is_that_of_the_keys() -> None:
    kinds = {name: entry.key.kind for name, entry in entries_of(Profile).items()}
    assert tuple(name for name, kind in kinds.items() if kind == "table") == Profile.TABLES
    assert tuple(name for name, kind in kinds.items() if kind == "tables") == Profile.ARRAYS


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_shipped_file_is_valid_by_the_schema(file: Path) -> None:
    validator().validate(parse_toml(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_profile_loads_and_is_commented(file: Path) -> None:
    profile = load(file)
    assert profile.name == file.stem
    assert profile.title
    rows = file.read_text(encoding="utf-8").splitlines()
    assert sum("#" in row for row in rows) >= 10
    assert all(len(row) <= 100 for row in rows)


def test_what_the_shipped_profiles_suggest_in_comments_loads_too() -> None:
    text = (ROOT / "profiles" / "xp.toml").read_text(encoding="utf-8")
    head, _, tail = text.partition("# ---- Faster")
    keys = [
        row.removeprefix("# ")
        for row in tail.splitlines()
        if row.startswith(("# [[", "# id", "# bus", "# size", "# path", "# model", "# read_only"))
    ]
    assert len(keys) > 10
    profile = loads("\n".join(["schema = 1", "guest = 'windows-xp'", *keys]), "xp.toml")
    assert [disk.bus for disk in profile.disk] == ["virtio", "virtio"]
    assert "[[disk]]" in head


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"schema": 2},
        {"schema": 1, "cpuu": {}},
        {"schema": 1, "cpu": {"count": 0}},
        {"schema": 1, "cpu": {"count": "2"}},
        {"schema": 1, "memory": {"size": 512}},
        {"schema": 1, "memory": {"size": "512"}},
        {"schema": 1, "disk": [{}]},
        {"schema": 1, "disk": [{"id": "HDA"}]},
        {"schema": 1, "disk": [{"id": "a", "bus": "virtoi"}]},
        {"schema": 1, "display": {"password": "x"}},
        {"schema": 1, "display": {"password": {}}},
        {"schema": 1, "display": {"password": {"env": "A", "file": "b"}}},
        {"schema": 1, "nic": [{"id": "n", "forward": ["x"]}]},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(data: dict[str, object]) -> None:
    assert not validator().is_valid(data)


@pytest.mark.parametrize("unit", [*units._SIZE_UNITS, "Kib", "mib", "G", ""])
def test_the_schema_knows_the_units_of_size(unit: str) -> None:
    valid = validator().is_valid({"schema": 1, "memory": {"size": f"10 {unit}"}})
    assert valid == (unit in units._SIZE_UNITS)


@pytest.mark.parametrize("unit", [*units._DURATION_UNITS, "m", "sec", ""])
def test_the_schema_knows_the_units_of_time(unit: str) -> None:
    valid = validator().is_valid({"schema": 1, "lifecycle": {"stop_timeout": f"1.5{unit}"}})
    assert valid == (unit in units._DURATION_UNITS)
