"""What happens when the guest powers off, reboots or panics: `[lifecycle]` and `boot.once`."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlaunch.plan.model import Lifecycle
from qlaunch.store import machines
from qlaunch.supervisor import policy
from tests.rig import Console, Rig, end, nothing_left, until, write_profile

POWER_OFF, RESET = "q", "r"


# ---- decisions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason, key",
    [
        ("guest-shutdown", "on_poweroff"),
        ("guest-reset", "on_reboot"),
        ("host-qmp-system-reset", "on_reboot"),
        ("guest-panic", "on_crash"),
    ],
)
@pytest.mark.parametrize(
    "word, action",
    [("destroy", "quit"), ("restart", "reset"), ("preserve", "stay"), ("dump", "quit")],
)
def test_each_end_follows_its_own_policy(reason: str, key: str, word: str, action: str) -> None:
    life = Lifecycle(**{key: word})  # type: ignore[arg-type]
    assert policy.on_shutdown(life, {"reason": reason}, stop_asked=False) == action
    assert policy.on_shutdown(life, {"reason": reason}, stop_asked=True) == "quit"


def test_an_end_that_nobody_knows_is_the_end() -> None:
    assert policy.on_shutdown(Lifecycle(), {}, stop_asked=False) == "quit"
    assert policy.on_shutdown(Lifecycle(), {"reason": "host-error"}, stop_asked=False) == "quit"


def test_only_the_last_minute_counts() -> None:
    moments = [0.0, 30.0, 59.0, 61.0]
    assert policy.recent(moments, 90.0) == [59.0, 61.0]
    assert policy.recent([], 0.0) == []


# ---- carried out --------------------------------------------------------------------------------


@pytest.mark.qemu
@pytest.mark.parametrize("override", ["on_poweroff=destroy", "on_reboot=destroy"])
def test_destroy_ends_the_machine(rig: Rig, override: str) -> None:
    rig.up("demo", f"lifecycle.{override}")
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send(POWER_OFF if "poweroff" in override else RESET)
    rig.ask("wait", name="demo")
    last = machines.last_end("demo")
    assert last is not None
    assert last["reason"] in ("guest-shutdown", "guest-reset")
    assert nothing_left() == []


@pytest.mark.qemu
@pytest.mark.parametrize("key", [POWER_OFF, RESET])
def test_restart_starts_the_guest_anew_in_the_same_process(rig: Rig, key: str) -> None:
    # What forbids a reboot of the guest must not forbid the one that the other policy wants.
    other = "destroy" if key == POWER_OFF else "restart"
    pid = rig.up("demo", "lifecycle.on_poweroff=restart", f"lifecycle.on_reboot={other}")["pid"]
    with rig.console() as console:
        for _ in range(2):
            console.expect("READY\r\n")
            console.send(key)
        console.expect("READY\r\n")
    assert rig.row()["pid"] == pid
    until(lambda: rig.row()["state"] == "running", "the state")


@pytest.mark.qemu
@pytest.mark.parametrize("key", [POWER_OFF, RESET])
def test_preserve_keeps_the_machine_for_a_look_at_it(rig: Rig, key: str) -> None:
    pid = rig.up("demo", "lifecycle.on_poweroff=preserve", "lifecycle.on_reboot=preserve")["pid"]
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send(key)
        until(lambda: rig.row()["state"] == "shutdown", "the state")
    assert rig.row()["pid"] == pid
    assert rig.ask("qmp", name="demo", command="query-status")["return"]["status"] == "shutdown"
    rig.ask("down", name="demo")
    assert nothing_left() == []


@pytest.mark.qemu
def test_a_users_stop_wins_over_the_policy(rig: Rig) -> None:
    rig.up("demo", "lifecycle.on_poweroff=restart", "lifecycle.on_crash=restart")
    rig.ready()
    assert rig.ask("down", name="demo")["how"] == "guest-shutdown"
    assert rig.row() == {}


@pytest.mark.qemu
def test_a_stop_that_was_given_up_leaves_the_policy_as_it_was(rig: Rig) -> None:
    rig.up("demo", "lifecycle.on_poweroff=restart")
    rig.ready()
    with pytest.raises(Exception, match="still runs"):
        rig.ask("down", name="demo", timeout=0)
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send(POWER_OFF)
        console.expect("READY\r\n")
    assert rig.row()["state"] == "running"


@pytest.mark.qemu
def test_a_restart_is_a_power_cycle_once_the_profile_is_another(rig: Rig) -> None:
    path = write_profile("demo", "[lifecycle]\npower_cycle = true\n")
    pid = rig.up("demo", "cpu.count=1")["pid"]
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send(RESET)
        console.expect("READY\r\n")  # nothing has changed
        write_profile("demo", "# a comment changes nothing\n[lifecycle]\npower_cycle = true\n")
        console.send(RESET)
        console.expect("READY\r\n")
        assert rig.row()["pid"] == pid
        text = Path(path).read_text(encoding="utf-8").replace('"32MiB"', '"nonsense"')
        Path(path).write_text(text, encoding="utf-8")
        console.send(RESET)
        console.expect("READY\r\n")  # what cannot start changes nothing
        until(lambda: "no power cycle" in rig.machine_log(), "the reason")
        assert rig.row()["pid"] == pid
        Path(path).write_text(text.replace('"nonsense"', '"48MiB"'), encoding="utf-8")
        console.send(RESET)
        console.wait_end()
    until(lambda: rig.row().get("pid") not in (None, pid), "another QEMU")
    until(lambda: rig.row()["state"] == "running", "its start")
    assert rig.ask("status", name="demo")["memory_size"]["size"] == "48MiB"
    rig.ready()
    rig.ask("down", name="demo")
    assert nothing_left() == []


# ---- boot.once ----------------------------------------------------------------------------------

TWO_DISKS = """
[boot]
order = ["disk0", "disk1"]
once = "disk1"
[[disk]]
id = "disk1"
bus = "ide"
template = "@demo"
size = "1MiB"
"""


@pytest.mark.qemu
def test_boot_once_counts_until_the_guest_restarts_and_is_then_used_up(rig: Rig) -> None:
    write_profile("demo", TWO_DISKS)
    rig.up()
    with rig.console() as console:
        name_the_disk(console, "b")
        console.send(RESET)
        name_the_disk(console, "a")
    until(lambda: machines.load_leases("demo").once_done == "disk1", "the note")
    rig.kill()
    rig.up()
    assert note(rig) == "a"


@pytest.mark.qemu
def test_boot_once_counts_again_when_the_user_says_it_again(rig: Rig) -> None:
    write_profile("demo", TWO_DISKS)
    rig.up()
    with rig.console() as console:
        name_the_disk(console, "b")
        console.send(RESET)
        console.expect("READY\r\n")
    until(lambda: machines.load_leases("demo").once_done == "disk1", "the note")
    rig.kill()
    rig.up("demo", "boot.once=disk1")
    assert note(rig) == "b"


@pytest.mark.qemu
def test_boot_once_counts_again_when_the_guest_never_restarted(rig: Rig) -> None:
    write_profile("demo", TWO_DISKS)
    rig.up()
    with rig.console() as console:
        name_the_disk(console, "b")
    rig.kill()
    rig.up()
    assert note(rig) == "b"


@pytest.mark.qemu
def test_a_start_after_a_crash_does_not_boot_once_again(rig: Rig) -> None:
    write_profile("demo", TWO_DISKS)
    pid = rig.up("demo", "lifecycle.on_crash=restart")["pid"]
    with rig.console() as console:
        name_the_disk(console, "b")
        console.send(RESET)
        name_the_disk(console, "a")
    until(lambda: machines.load_leases("demo").once_done == "disk1", "the note")
    end(pid)
    until(lambda: rig.row().get("pid") not in (None, pid), "the new start")
    assert note(rig) == "a"


def name_the_disk(console: Console, name: str) -> None:
    """Write `name` on the disk that the guest has booted from."""
    console.expect("READY\r\n")
    console.send(f"{name}\r")
    console.expect("saved\r\n")


def note(rig: Rig) -> str:
    """What is written on the disk that the guest has booted from."""
    with rig.console() as console:
        return console.expect(r"note=(\w*)\r\n")[1]
