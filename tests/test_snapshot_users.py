"""A user who lacks the right to userfaultfd, by which QEMU saves memory while the guest runs: the
guest is stopped for it, the answer says so, and `doctor` says what helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qlaunch.host.userfault import DEVICE
from tests.prerequisites import both_qemus, require_userns
from tests.rig import TOP
from tests.test_supervisor_users import NOBODY, nobodys_place, reachable_by_nobody

__all__ = ["nobodys_place"]
pytestmark = pytest.mark.qemu

# Prints what a user is told, and what the guest has in memory and on its disk afterwards.
SCRIPT = """
import json, os, subprocess, sys
os.chdir("/")
from tests.rig import nothing_left, rig
from tests.timetravel import Traveller
with rig() as here:
    here.up("demo", 'machine.emulator="{qemu}"')
    here.ready()
    traveller = Traveller(here)
    traveller.say("++one\\r")
    made = traveller.create("one")
    traveller.say("+two\\r")
    how = traveller.revert("one")["how"]
    found = traveller.now()
    traveller.check_images()
    here.kill()
    doctor = subprocess.run([sys.executable, "-m", "qlaunch", "doctor", "--json"],
                            capture_output=True, text=True, cwd={top!r})
    checks = json.loads(doctor.stdout)["checks"]
    print(json.dumps({{
        "made": made, "how": how, "found": found, "left": nothing_left(),
        "doctor": [each for each in checks if each["topic"] == "memory"], "log": here.log(),
    }}))
"""


def told(qemu: str, *prefix: str) -> Any:
    """What SCRIPT prints, run by the command `prefix`."""
    script = SCRIPT.format(qemu=qemu, top=str(TOP))
    done = subprocess.run(
        [*prefix, sys.executable, "-c", script],
        capture_output=True, text=True, timeout=50, cwd=TOP, check=False,
        env={**os.environ, "PYTHONPATH": str(TOP), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["found"] == [2, "one"]
    assert found["how"] == "in place"
    assert (found["left"], found["log"].strip()) == ([], "")
    assert len(found["doctor"]) == 1
    return found


def without_right(own_place: Path, *, device: bool) -> tuple[str, ...]:
    """A command that runs another as root without the right to userfaultfd: the system call is
    refused then, and the device cannot be opened unless `device` (as by the udev rule) says so."""
    drop = ("setpriv", "--bounding-set", "-sys_ptrace,-dac_override")
    if device or not os.path.exists(DEVICE):
        return drop
    require_userns()  # nor may a chroot change what its mounts tell others
    closed = own_place / "closed"
    closed.touch(mode=0o000)
    hide = f'mount --bind {closed} {DEVICE} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", hide, "sh", *drop)


def check_stopped(found: dict[str, Any]) -> None:
    assert found["made"]["snapshot"]["kind"] == "memory"
    (warning,) = found["made"]["warnings"]
    assert "the guest was stopped for" in warning
    assert "Background-snapshot is not supported by host kernel" in warning
    assert "`qlaunch doctor` says how" in warning


@both_qemus
def test_without_userfaultfd_the_guest_is_stopped_and_the_user_is_told(
    own_place: Path, qemu_binary: str
) -> None:
    if os.getuid() != 0:
        return  # only root can give up a right; the next test is about those who never had it
    found = told(qemu_binary, *without_right(own_place, device=False))
    check_stopped(found)
    (check,) = found["doctor"]
    assert check["level"] == "warn"
    assert "vm.unprivileged_userfaultfd=1" in check["hint"]
    assert 'KERNEL=="userfaultfd"' in check["hint"]


@both_qemus
def test_the_device_is_enough_for_a_newer_qemu(
    own_place: Path, request: pytest.FixtureRequest, qemu_binary: str
) -> None:
    if os.getuid() != 0 or not os.path.exists(DEVICE):
        return  # Linux before 6.1 has none
    found = told(qemu_binary, *without_right(own_place, device=True))
    if request.node.callspec.params["qemu_binary"] == "qemu10":
        assert found["made"]["warnings"] == []
    elif found["made"]["warnings"]:  # the installed QEMU may be a newer one, too
        check_stopped(found)
    (check,) = found["doctor"]
    assert (check["level"], "8.0 or newer" in check["message"]) == ("ok", True)


def test_an_ordinary_user_is_told_the_same(
    qemu_binary: str, request: pytest.FixtureRequest
) -> None:
    prefix: tuple[str, ...] = ()
    if os.getuid() == 0:
        if not reachable_by_nobody():
            return  # a checkout that only root may read; the tests above take its right away
        request.getfixturevalue("nobodys_place")
        prefix = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    found = told(qemu_binary, *prefix)
    (check,) = found["doctor"]
    if check["level"] == "warn":
        check_stopped(found)
    else:  # the administrator of this computer has followed the advice
        assert found["made"]["warnings"] == [] or "8.0 or newer" in check["message"]
