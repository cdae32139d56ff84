"""What can be set, written out and sent to a guest while its machine runs."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import BusyError, HostError, NotFoundError, PhaseError, UsageError
from qlaunch.store import machines
from tests.prerequisites import both_qemus
from tests.rig import PROFILE, Rig, raw, request, until, write_profile

pytestmark = pytest.mark.qemu

MIB = 1 << 20
BALLOON = "memory.balloon=true"


def limits_of(rig: Rig) -> dict[str, int]:
    """The disk's limits as QEMU has them."""
    arguments = {"path": "/objects/disk0-limits", "property": "limits"}
    found = rig.ask("qmp", name="demo", command="qom-get", arguments=arguments)["return"]
    return {key: value for key, value in found.items() if value and not key.endswith("length")}


def put(rig: Rig, *settings: str, persist: bool = False) -> Any:
    return rig.ask("set", name="demo", settings=list(settings), persist=persist)


@both_qemus
def test_limits_of_a_disk_change_while_it_runs(rig: Rig, qemu_binary: str) -> None:
    rig.up("demo", f"machine.emulator={qemu_binary}")
    put(rig, "disk.disk0.iops=300", "disk.disk0.bps_write=1MiB")
    assert limits_of(rig) == {"iops-total": 300, "bps-write": MIB}
    put(rig, "disk.disk0.iops=0")
    assert limits_of(rig) == {"bps-write": MIB}
    plan = machines.load_plan("demo")
    assert plan
    assert dict(plan.disks[0].limits) == {"bps-write": MIB}
    # What a later supervisor knows is what QEMU has.
    rig.kill_supervisor()
    put(rig, "disk.disk0.bps_read=512KiB")
    assert limits_of(rig) == {"bps-write": MIB, "bps-read": MIB // 2}


def test_a_limit_is_written_into_the_profile_and_its_comments_stay(rig: Rig) -> None:
    path = write_profile("demo", text=f"# mine\n{PROFILE}")
    rig.up()
    assert put(rig, "disk.disk0.iops=300", persist=True)["persistent"]
    text = Path(path).read_text(encoding="utf-8")
    assert text.startswith("# mine\n")
    assert "iops = 300" in text
    put(rig, "disk.disk0.iops=none", persist=True)
    assert "iops" not in Path(path).read_text(encoding="utf-8")


@both_qemus
def test_a_guest_is_asked_for_memory(rig: Rig, qemu_binary: str) -> None:
    rig.up("demo", BALLOON, "memory.size=64MiB", f"machine.emulator={qemu_binary}")
    answer = put(rig, "memory.current=32MiB")
    # The demo guest has no driver, so it keeps what it has; the wish stands.
    assert answer["set"] == [
        {"key": "memory.current", "value": 32 * MIB, "actual": 64 * MIB},
    ]
    plan = machines.load_plan("demo")
    assert plan
    assert plan.board.memory_current == 32 * MIB


@pytest.mark.parametrize(
    "setting, error",
    [
        ("memory.current=1GiB", UsageError),
        ("memory.current=512", UsageError),
        ("memory.current=0B", UsageError),
        ("memory.current", UsageError),
        ("memory.size=1GiB", UsageError),
        ("disk.disk0.iops=many", UsageError),
        ("disk.disk0.bps=-1", UsageError),
        ("disk.disk0.bps=9000TiB", UsageError),
        ("disk.disk0.size=1GiB", UsageError),
        ("disk.nosuch.iops=1", NotFoundError),
        ("=", UsageError),
        ("disk.disk0.iops=1\0", UsageError),
    ],
)
def test_what_cannot_be_set_changes_nothing(rig: Rig, setting: str, error: type[Exception]) -> None:
    rig.up("demo", BALLOON, "disk.disk0.iops_read=100")
    with pytest.raises(error):
        put(rig, setting)
    with pytest.raises(UsageError, match="exclude each other"):
        put(rig, "disk.disk0.iops=5")
    assert limits_of(rig) == {"iops-read": 100}


def test_without_a_balloon_memory_stays(rig: Rig) -> None:
    rig.up("demo", "memory.balloon=false")
    with pytest.raises(PhaseError, match="balloon"):
        put(rig, "memory.current=16MiB")


@both_qemus
def test_the_memory_is_written_to_a_file_of_the_users_own(
    rig: Rig, qemu_binary: str, tmp_path: Path
) -> None:
    rig.up("demo", f"machine.emulator={qemu_binary}")
    rig.ready()
    core, elf = tmp_path / "core", tmp_path / "core.elf"
    answer = rig.ask("dump", name="demo", file=str(core))
    assert core.read_bytes()[:13] == b"makedumpfile\0"
    assert (stat.S_IMODE(core.stat().st_mode), answer["size"]) == (0o600, core.stat().st_size)
    rig.ask("dump", name="demo", file=str(elf), format="elf")
    assert elf.read_bytes()[:4] == b"\x7fELF"
    assert elf.stat().st_size > 32 * MIB
    assert rig.row()["state"] == "running"
    rig.responds()
    with pytest.raises(HostError, match="exists already"):
        rig.ask("dump", name="demo", file=str(core))
    with pytest.raises(HostError, match="cannot write"):
        rig.ask("dump", name="demo", file=str(tmp_path / "no" / "core"))
    with pytest.raises(UsageError):
        rig.ask("dump", name="demo", file="core")


def test_a_client_that_leaves_gets_no_half_dump_and_the_guest_goes_on(
    rig: Rig, tmp_path: Path
) -> None:
    rig.up("demo")
    rig.ready()
    core = tmp_path / "core"
    with raw(request("dump", name="demo", file=str(core))):
        until(core.exists, "the dump's beginning")
    rig.responds()
    until(lambda: rig.row()["state"] == "running", "the guest to go on")
    assert not core.exists() or core.read_bytes()[:13] == b"makedumpfile\0"


@both_qemus
def test_an_nmi_and_the_power_button(rig: Rig, qemu_binary: str) -> None:
    rig.up("demo", f"machine.emulator={qemu_binary}")
    rig.ready()
    assert rig.ask("inject", name="demo", event="nmi")["event"] == "nmi"
    with pytest.raises(UsageError):
        rig.ask("inject", name="demo", event="coffee")
    rig.responds()
    rig.ask("inject", name="demo", event="power-button")
    until(lambda: not rig.row(), "its end")


def test_two_dumps_at_once_are_one_after_the_other_or_refused(rig: Rig, tmp_path: Path) -> None:
    rig.up("demo")
    asked = [rig.later("dump", name="demo", file=str(tmp_path / f"core{n}")) for n in range(3)]
    refused = 0
    for each in asked:
        with contextlib.suppress(BusyError):
            each.result(timeout=60)
            continue
        refused += 1
    assert rig.row()["state"] == "running"
    assert len(list(tmp_path.glob("core*"))) == 3 - refused >= 1
