"""The TOML parser: tomli, or its older twin in the standard library."""

from __future__ import annotations

from typing import Any

try:
    from tomli import loads as _loads
except ModuleNotFoundError:
    from tomllib import loads as _loads


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of `text`.

    Raises: ValueError with the place in its words; RecursionError when it is nested too deeply.
    """
    return _loads(text)
