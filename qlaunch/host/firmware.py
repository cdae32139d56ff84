"""The installed UEFI firmware, from its descriptors (QEMU docs/interop/firmware.json)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from qlaunch.facts import Firmware


def descriptor_directories() -> tuple[str, ...]:
    """Where descriptors lie, the least important directory first."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return ("/usr/share/qemu/firmware", "/etc/qemu/firmware", os.path.join(config, "qemu/firmware"))


def installed_firmware(directories: Iterable[str] | None = None) -> tuple[Firmware, ...]:
    """The UEFI flash images whose files exist, in the order in which they should be tried.

    A descriptor in a later directory replaces one of the same name in an earlier one, an empty one
    (or a link to /dev/null) hides it. A descriptor that cannot be understood is passed over.
    """
    paths: dict[str, str] = {}
    for directory in descriptor_directories() if directories is None else directories:
        for name in _names(directory):
            paths[name] = os.path.join(directory, name)
    found = (_read(paths[name]) for name in sorted(paths))
    return tuple(firmware for firmware in found if firmware is not None)


def _names(directory: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if name.endswith(".json")]
    except OSError:
        return []


def _read(path: str) -> Firmware | None:
    try:
        with open(path, "rb") as file:
            return _parse(path, json.loads(file.read() or b"null"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _parse(path: str, data: Any) -> Firmware | None:
    if data is None or "uefi" not in data["interface-types"]:
        return None
    mapping = data["mapping"]
    if mapping["device"] != "flash":
        return None
    code, template = mapping["executable"], mapping.get("nvram-template") or {}
    template_path = template.get("filename")
    if not all(
        os.path.isfile(name) for name in (code["filename"], template_path) if name is not None
    ):
        return None
    targets = data["targets"]
    return Firmware(
        descriptor=path,
        description=str(data.get("description", "")),
        code=str(code["filename"]),
        code_format=str(code.get("format", "raw")),
        vars_template=None if template_path is None else str(template_path),
        vars_format=None if template_path is None else str(template.get("format", "raw")),
        architectures=frozenset(str(target["architecture"]) for target in targets),
        machines=tuple(str(machine) for target in targets for machine in target["machines"]),
        features=frozenset(str(feature) for feature in data.get("features", ())),
    )
