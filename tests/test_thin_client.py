"""`ps`, `--help` and completion start quickly because of what they do not import."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What takes longer to import than the client may take altogether.
HEAVY = ("asyncio", "attrs", "attr", "dataclasses", "inspect", "psutil", "qemu", "tomli", "tomlkit")
HEAVY_ROOMS = ("qlaunch.profile", "qlaunch.plan", "qlaunch.qmp", "qlaunch.supervisor")
IMPORT_TIMEOUT = 30.0


def imported_by(module: str) -> set[str]:
    script = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["qlaunch.cli.main", "qlaunch.control.client"])
def test_the_thin_client_imports_nothing_heavy(module: str) -> None:
    assert imported_by(module) & {*HEAVY, *HEAVY_ROOMS} == set()
