"""The units that `qlaunch service install` writes: pure texts, and what systemd does with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from qlaunch.cli.service_texts import MACHINE, SERVICE, SLICE
from qlaunch.store import paths

NAMES = ("qlaunch.service", "qlaunch@.service", "qlaunch.slice")
# What changes where profiles, disks and state are found, and qlaunch itself.
KEPT_VARIABLES = (
    "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME", "PYTHONPATH",
)  # fmt: skip
_TARGETS = {"user": "default.target", "system": "multi-user.target"}


def texts(manager: str, python: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The unit files by name, for the user's systemd (`user`) or the computer's (`system`)."""
    kept = "".join(
        f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environment.items()
    )
    words = {
        "python": _quoted(python.replace("$", "$$")),
        "manager": manager,
        "environment": kept,
        "target": _TARGETS[manager],
        "edit": "systemctl --user edit" if manager == "user" else "systemctl edit",
    }
    return {
        name: text.format_map(words)
        for name, text in zip(NAMES, (SERVICE, MACHINE, SLICE), strict=True)
    }


def units(manager: str) -> dict[str, str]:
    """The unit files for this Python and this user's folders, by their paths."""
    folder = paths.unit_folders(manager)[0]
    found = texts(manager, sys.executable, kept_environment(manager, os.environ))
    return {os.path.join(folder, name): text for name, text in found.items()}


def installed(manager: str) -> list[str]:
    """The paths of those unit files that are there."""
    folder = paths.unit_folders(manager)[0]
    return [path for name in NAMES if os.path.lexists(path := os.path.join(folder, name))]


def kept_environment(manager: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that must be in the units; HOME the user's systemd knows itself."""
    wanted = [name for name in KEPT_VARIABLES if manager == "system" or name != "HOME"]
    return {name: environ[name] for name in wanted if environ.get(name)}


def _quoted(text: str) -> str:
    """`text` as one word of a unit file: systemd.syntax(7), and its `%`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    plain = escaped == text and not any(letter.isspace() or letter in "';" for letter in text)
    return text if plain else f'"{escaped}"'


def enabled(manager: str) -> list[str]:
    """The units of machines that start with the computer."""
    found: set[str] = set()
    for folder in paths.unit_folders(manager):
        try:
            listed = os.listdir(os.path.join(folder, f"{_TARGETS[manager]}.wants"))
        except OSError:
            continue
        found |= {name for name in listed if name.startswith("qlaunch@")}
    return sorted(found)
