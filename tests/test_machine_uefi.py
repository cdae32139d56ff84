"""UEFI, Secure Boot and a TPM: what Windows 11 asks for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qlaunch.store import paths
from tests import prerequisites
from tests.rig import PROFILE, Rig, end, is_alive, nothing_left, until, write_profile

pytestmark = pytest.mark.qemu

WINDOWS_11 = (
    PROFILE.replace('type = "pc"', 'type = "q35"\nfirmware = "uefi"')
    .replace('"32MiB"', '"256MiB"')
    .replace('bus = "ide"', 'bus = "sata"')
    .replace("smm = false\n", "")
)
SECURE = WINDOWS_11.replace(
    'firmware = "uefi"', 'firmware = "uefi"\nsecure_boot = true\ntpm = true'
)


@pytest.fixture(autouse=True)
def _installed() -> None:
    found = Path("/usr/share/qemu/firmware").is_dir()
    prerequisites.require("qemu", found, "no UEFI firmware is installed (ovmf)")
    prerequisites.require("qemu", prerequisites.find_program("swtpm"), "swtpm is not installed")


def swtpms() -> list[int]:
    """The swtpm processes that work in the machine's own folder."""
    folder = Path(paths.machine_data("demo")) / "tpm"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text() == "swtpm\n" and (process / "cwd").samefile(folder):
                found.append(int(process.name))
        except OSError:
            continue
    return [pid for pid in found if is_alive(pid)]


def test_secure_boot_and_tpm_start_with_variables_of_their_own(rig: Rig) -> None:
    write_profile("demo", text=SECURE)
    rig.up()
    status = rig.ask("status", name="demo")
    assert status["state"] == "running"
    assert (status["machine"]["secure_boot"], status["machine"]["tpm"]) == (True, True)
    variables = Path(paths.machine_data("demo")) / "nvram.fd"
    template = variables.read_bytes()
    assert len(template) > 100_000
    answer = rig.ask("qmp", name="demo", command="query-tpm")["return"]
    assert answer[0]["model"] == "tpm-crb"
    assert len(swtpms()) == 1
    rig.kill()
    assert swtpms() == []
    assert nothing_left() == []
    # The variables are the machine's from now on, not the template's.
    variables.write_bytes(template[:-1] + b"\0")
    rig.up(paused=True)
    assert variables.read_bytes() == template[:-1] + b"\0"


@pytest.mark.fault
def test_the_tpm_ends_with_qemu_however_it_ends(rig: Rig) -> None:
    write_profile("demo", text=SECURE)
    pid = rig.up(paused=True)["pid"]
    assert len(swtpms()) == 1
    end(pid)
    until(lambda: rig.row() == {}, "the end")
    assert swtpms() == []
    pid = rig.up(paused=True)["pid"]
    rig.kill_supervisor()
    assert len(swtpms()) == 1
    end(pid)
    assert rig.row() == {}
    until(lambda: swtpms() == [], "the end of swtpm")


@pytest.mark.fault
def test_a_start_that_fails_leaves_no_tpm(rig: Rig) -> None:
    write_profile("demo", '[qemu]\nargs = ["-no-such-option"]\n', text=SECURE)
    with pytest.raises(Exception, match="no-such-option"):
        rig.up()
    assert swtpms() == []
    assert nothing_left() == []


def test_uefi_without_secure_boot_starts(rig: Rig) -> None:
    write_profile("demo", text=WINDOWS_11)
    rig.up()
    machine = rig.ask("status", name="demo")["machine"]
    assert machine["firmware"].endswith(".fd")
    assert not machine["secure_boot"]


def mark() -> Path:
    """Change the variables of the stopped machine, where the firmware does not look."""
    path = Path(paths.machine_data("demo")) / "nvram.fd"
    with path.open("r+b") as file:
        file.seek(-16, os.SEEK_END)
        file.write(b"qlaunch was here")
    return path


@pytest.mark.parametrize("runs", [True, False])
def test_a_revert_of_the_disks_takes_variables_and_tpm_along(rig: Rig, *, runs: bool) -> None:
    write_profile("demo", text=SECURE)
    rig.up()
    rig.ask("snapshot-create", name="demo", snapshot="one", disks_only=True)
    rig.kill()
    state = Path(paths.machine_data("demo")) / "tpm" / "tpm2-00.permall"
    path, tpm = mark(), state.read_bytes()
    state.write_bytes(tpm + b"x")
    if runs:
        state.write_bytes(tpm)
        rig.up()
    pid = rig.row().get("pid")
    answer = rig.ask("revert", name="demo", snapshot="one")
    assert not path.read_bytes().endswith(b"qlaunch was here")
    if runs:
        assert "variables" in answer["why_restarted"]
        assert rig.row()["state"] == "running"
        assert rig.row()["pid"] != pid
    else:
        assert state.read_bytes() == tpm
        assert rig.row() == {}
    # What was left behind has its own.
    rig.ask("revert", name="demo", snapshot=answer["branch"]["label"])
    assert path.read_bytes().endswith(b"qlaunch was here")
