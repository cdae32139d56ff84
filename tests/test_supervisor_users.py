"""An ordinary user: no root, no right to /dev/kvm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig import PROFILE, TOP

pytestmark = pytest.mark.qemu

NOBODY = 65534
SCRIPT = """
import os, sys
from pathlib import Path
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
os.chdir("/")
from tests.rig import nothing_left, rig
with rig() as here:
    answer = here.up()
    print(answer["warnings"])
    row = here.row()
    print(row["accel"], row["state"], os.stat(f"/proc/{{row['pid']}}").st_uid)
    here.ready()
    print(here.ask("down", name="demo")["how"], nothing_left())
    print(here.log())
"""


@pytest.fixture
def nobodys_place(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of the user nobody, with a profile that takes KVM where it can."""
    profile = own_place / "config/qlaunch/profiles/demo.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text(PROFILE.replace('"tcg"', '"auto"'), encoding="utf-8")
    (own_place / "cache").mkdir()
    for path in (own_place, *own_place.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_place / "cache"))
    return own_place


def test_a_user_without_kvm_gets_a_slower_machine_and_is_told(
    request: pytest.FixtureRequest,
) -> None:
    if os.getuid() != 0 or not reachable_by_nobody():
        return  # the other tests run as an ordinary user already
    request.getfixturevalue("nobodys_place")
    script = SCRIPT.format(uid=NOBODY)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=50, cwd=TOP, check=False,
        env={**os.environ, "PYTHONPATH": str(TOP), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    warnings, machine, end, log = done.stdout.split("\n", 3)
    if not os.access("/dev/kvm", os.F_OK) or os.stat("/dev/kvm").st_mode & 0o006 != 0o006:
        assert machine == f"tcg running {NOBODY}"
        assert "kvm" in warnings.lower()
    assert end == "guest-shutdown []"
    assert log.strip() == ""


def reachable_by_nobody() -> bool:
    """Whether another user may read this program and its Python."""
    return all(
        os.stat(folder).st_mode & 0o005 == 0o005
        for path in (TOP, Path(sys.executable))
        for folder in (path, *path.parents)
    )
