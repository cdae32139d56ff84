"""The JSON Schema of profiles and networks, for editors: completion, explanations, red lines."""

from __future__ import annotations

import json
from typing import Any

from qlaunch.profile.fields import (
    ID_PATTERN,
    MAX_ITEMS,
    MAX_PATH,
    MAX_TEXT,
    Entry,
    Key,
    entries_of,
)
from qlaunch.profile.model import Profile
from qlaunch.profile.network import Network
from qlaunch.profile.tables import Secret
from qlaunch.profile.toml import parse_toml
from qlaunch.profile.values import toml_example

_NUMBER = r"([0-9]+\.?[0-9]*|\.[0-9]+)"
SIZE_PATTERN = rf"^\s*{_NUMBER}\s*(B|[KMGTP]iB|[kKMGT]B)\s*$"
DURATION_PATTERN = rf"^\s*{_NUMBER}\s*(ms|s|min|h|d)\s*$"

Schema = dict[str, Any]


_TITLES = {
    Profile: ("qlaunch profile", "A machine that qlaunch runs, written as TOML."),
    Network: ("qlaunch network", "A network for machines of qlaunch, written as TOML."),
}


def json_schema(cls: type = Profile) -> Schema:
    """The JSON Schema (draft 2020-12) of a profile, or of another file whose keys `cls` has."""
    classes = {e.item.__name__: e.item for e in entries_of(cls).values() if e.item}
    definitions = {name: _table(item, inherits=cls is Profile) for name, item in classes.items()}
    title, description = _TITLES[cls]
    secret = {"Secret": _secret()} if cls is Profile else {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        **_object(cls),
        "required": ["schema"],
        "$defs": {**secret, **definitions},
    }


def schema_text(cls: type = Profile) -> str:
    """The JSON Schema as the text of a file."""
    return json.dumps(json_schema(cls), indent=2, ensure_ascii=False) + "\n"


def described(key: Key) -> str:
    """What `key` means, and what holds when it is not said, in a line."""
    return f"{key.doc} Default: {key.otherwise}." if key.otherwise else key.doc


def _object(cls: type) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _key(entry) for name, entry in entries_of(cls).items()},
    }


def _table(cls: type, *, inherits: bool) -> Schema:
    table = _object(cls)
    table["description"] = (cls.__doc__ or "").strip()
    if "id" in table["properties"]:
        table["required"] = ["id"]
    if "id" in table["properties"] and inherits:
        table["properties"]["remove"] = {
            "type": "boolean",
            "description": "true removes the inherited one with this id.",
        }
    return table


def _secret() -> Schema:
    names = list(entries_of(Secret))
    return {
        **_object(Secret),
        "description": "Where a secret is kept; never the secret itself.",
        "oneOf": [{"required": [name]} for name in names],
    }


def _key(entry: Entry) -> Schema:
    key, item = entry.key, entry.item
    if key.kind == "table" and item is not None:
        return {"$ref": f"#/$defs/{item.__name__}", "description": key.doc}
    if key.kind == "tables" and item is not None:
        items = {"$ref": f"#/$defs/{item.__name__}"}
        return {"type": "array", "maxItems": MAX_ITEMS, "items": items, "description": key.doc}
    if key.kind == "secret":
        return {"$ref": "#/$defs/Secret", "description": described(key)}
    schema = {**_type(key), "description": described(key)}
    if key.example:
        schema["examples"] = [parse_toml(f"example = {toml_example(key)}")["example"]]
    return schema


def _type(key: Key) -> Schema:
    match key.kind:
        case "boolean":
            return {"type": "boolean"}
        case "choice":
            return {"type": "string", "enum": list(key.choices)}
        case "integer":
            return _integer(key)
        case "numbers":
            return {"type": "array", "maxItems": MAX_ITEMS, "items": _integer(key)}
        case "size":
            return {"type": "string", "pattern": SIZE_PATTERN}
        case "duration":
            return {"type": "string", "pattern": DURATION_PATTERN}
        case "words":
            return {"type": "array", "maxItems": MAX_ITEMS, "items": _text(key, MAX_TEXT)}
        case "path":
            return _text(key, MAX_PATH)
        case "id":
            return {"type": "string", "pattern": f"^{ID_PATTERN}$"}
    return _text(key, MAX_TEXT)


def _integer(key: Key) -> Schema:
    schema: Schema = {"type": "integer"}
    if key.least is not None:
        schema["minimum"] = int(key.least)
    if key.most is not None:
        schema["maximum"] = int(key.most)
    return schema


def _text(key: Key, most: int) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1, "maxLength": most}
    if key.pattern:
        schema["pattern"] = f"^({key.pattern})$"
    return schema
