"""How one value stays one value on QEMU's command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def to_json(value: Mapping[str, Any]) -> str:
    """`value` as the JSON that `-blockdev -device -netdev -object -audiodev -display` take."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def escape(text: str) -> str:
    """`text` as a value in QEMU's `key=value,...` syntax, where a comma ends a value and a
    doubled one stands for itself (QEMU docs: invocation)."""
    return text.replace(",", ",,")


def keyval(first: str | None, pairs: Iterable[tuple[str, str]] = ()) -> str:
    """`first,key=value,...` with every comma in a value doubled."""
    words = [] if first is None else [escape(first)]
    words += [f"{key}={escape(value)}" for key, value in pairs]
    return ",".join(words)
