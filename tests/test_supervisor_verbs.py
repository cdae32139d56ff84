"""The verbs of a running machine, through the control socket."""

from __future__ import annotations

import base64
import struct

import pytest

from qlaunch.errors import (
    CommandError,
    ConflictError,
    NotFoundError,
    PhaseError,
    ProfileError,
    TimedOutError,
    UsageError,
)
from qlaunch.machine.machine import FIRMWARE_QUIET_TIME
from tests.rig import PROFILE, Rig, is_alive, nothing_left, until, write_profile

pytestmark = pytest.mark.qemu


def test_a_machine_comes_up_and_goes_down(rig: Rig) -> None:
    answer = rig.up()
    assert answer["name"] == "demo"
    assert is_alive(answer["pid"])
    row = rig.row()
    assert (row["state"], row["pid"], row["accel"]) == ("running", answer["pid"], "tcg")
    assert row["memory"] > 10 << 20
    rig.ready()
    assert rig.ask("down", name="demo")["how"] == "guest-shutdown"
    assert rig.row() == {}
    assert not is_alive(answer["pid"])
    assert nothing_left() == []


def test_status_tells_all(rig: Rig) -> None:
    rig.up()
    status = rig.ask("status", name="demo")
    assert status["state"] == "running"
    assert status["machine"]["accel"] == "tcg"
    assert status["disks"][0]["size"] == 1 << 20
    assert status["disks"][0]["io"]["read"] >= 0
    assert status["serials"][0]["id"] == "serial0"
    assert status["memory_size"]["size"] == "32MiB"


def test_progress_is_told_while_a_machine_starts(rig: Rig) -> None:
    steps: list[dict[str, object]] = []
    with rig.connect() as connection:
        connection.ask("up", {"profile": write_profile("demo")}, steps.append)
    assert [step["step"] for step in steps] == ["disk", "qemu"]
    assert {step["machine"] for step in steps} == {"demo"}


def test_pause_and_resume(rig: Rig) -> None:
    rig.up()
    assert rig.ask("pause", name="demo")["state"] == "paused"
    assert rig.row()["state"] == "paused"
    assert rig.ask("resume", name="demo")["state"] == "running"


def test_a_machine_that_starts_paused_waits_for_resume(rig: Rig) -> None:
    rig.up(paused=True)
    assert rig.row()["state"] == "prelaunch"
    rig.ask("resume", name="demo")
    rig.ready()


def test_a_paused_machine_is_let_run_to_hear_the_power_button(rig: Rig) -> None:
    rig.up()
    rig.ready()
    rig.ask("pause", name="demo")
    assert rig.ask("down", name="demo")["how"] == "guest-shutdown"


def test_reset_starts_the_guest_anew_in_the_same_process(rig: Rig) -> None:
    pid = rig.up()["pid"]
    with rig.console() as console:
        console.expect("READY\r\n")
        rig.ask("reset", name="demo")
        console.expect("READY\r\n")
    assert rig.row()["pid"] == pid


def test_the_reset_button_works_whatever_the_policy(rig: Rig) -> None:
    pid = rig.up("demo", "lifecycle.on_reboot=destroy")["pid"]
    with rig.console() as console:
        console.expect("READY\r\n")
        rig.ask("reset", name="demo")
        console.expect("READY\r\n")
        # The firmware's own reset, which follows, comes with the first instruction.
        rig.ask("pause", name="demo")
        rig.ask("reset", name="demo")
        rig.ask("resume", name="demo")
        console.expect("READY\r\n")
    assert rig.row()["pid"] == pid


def test_the_policy_holds_again_when_a_reset_is_over(rig: Rig) -> None:
    rig.up("demo", "lifecycle.on_reboot=destroy")
    with rig.console() as console:
        console.expect("READY\r\n")
        rig.ask("reset", name="demo")
        console.expect("READY\r\n")
        with pytest.raises(TimedOutError):
            rig.ask("wait", name="demo", timeout=FIRMWARE_QUIET_TIME + 0.5)
        console.send("r")
    until(lambda: not rig.row(), "its end")


def test_restart_takes_the_profile_as_it_is_now(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.ready()
    path = write_profile("demo", text='title = "new"\n' + PROFILE)
    answer = rig.ask("restart", name="demo")
    assert answer["pid"] != pid
    assert (rig.row()["title"], rig.row()["profile"]) == ("new", path)


def test_restart_keeps_the_machine_when_the_new_profile_is_wrong(rig: Rig) -> None:
    pid = rig.up()["pid"]
    write_profile("demo", "[nonsense]\n")
    with pytest.raises(ProfileError, match="nonsense"):
        rig.ask("restart", name="demo")
    assert (rig.row()["pid"], rig.row()["state"]) == (pid, "running")


def test_restart_keeps_the_machine_when_another_one_has_what_it_newly_wants(rig: Rig) -> None:
    rig.up("other")
    disk = rig.ask("status", name="other")["disks"][0]["path"]
    pid = rig.up()["pid"]
    write_profile("demo", f'[[disk]]\nid = "disk1"\nbus = "ide"\npath = "{disk}"\n')
    with pytest.raises(ConflictError, match="machine other"):
        rig.ask("restart", name="demo")
    assert rig.row()["pid"] == pid


def test_restart_does_not_stumble_over_the_ports_of_the_machine_itself(
    rig: Rig, free_port: int
) -> None:
    write_profile("demo", f"[display]\nport = {free_port}\n")
    pid = rig.up()["pid"]
    rig.ready()
    assert rig.ask("restart", name="demo")["pid"] != pid
    assert f"spice://127.0.0.1:{free_port}" in rig.row()["display"]


def test_wait_ends_when_the_machine_does(rig: Rig) -> None:
    rig.up()
    waiting = rig.later("wait", name="demo")
    rig.kill()
    assert waiting.result(timeout=30) == {"name": "demo", "state": "stopped"}


def test_wait_for_running_is_answered_when_somebody_starts_it(rig: Rig) -> None:
    waiting = rig.later("wait", name="demo", **{"for": "running"})
    rig.up()
    assert waiting.result(timeout=30) == {"name": "demo", "state": "running"}


def test_wait_for_running_says_so_when_the_machine_ends_instead(rig: Rig) -> None:
    rig.up(paused=True)
    waiting = rig.later("wait", name="demo", **{"for": "running"})
    rig.kill()
    with pytest.raises(PhaseError, match="demo does not run"):
        waiting.result(timeout=30)


def test_wait_has_a_time_limit(rig: Rig) -> None:
    rig.up()
    with pytest.raises(TimedOutError, match="demo is running, not stopped"):
        rig.ask("wait", name="demo", timeout=0.05)


def test_a_screenshot_is_a_picture(rig: Rig) -> None:
    rig.up()
    rig.ready()
    png = base64.b64decode(rig.ask("screenshot", name="demo")["data"])
    assert png.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 640
    assert height >= 400
    ppm = base64.b64decode(rig.ask("screenshot", name="demo", format="ppm")["data"])
    assert ppm.startswith(b"P6")


def test_a_machine_without_a_screen_has_no_screenshot(rig: Rig) -> None:
    rig.up("demo", "video.model=none", "display.spice=false")
    with pytest.raises(CommandError, match="no screenshot"):
        rig.ask("screenshot", name="demo")


def test_keys_reach_the_guest(rig: Rig) -> None:
    rig.up()
    with rig.console() as console:
        console.expect("READY\r\n")
        assert rig.ask("type", name="demo", text="hi")["keys"] == 2
        assert rig.ask("send-key", name="demo", keys=["shift-a", "ret"])["keys"] == 2
        console.expect("saved")
        console.send("?")
        assert console.expect(r"note=(\w+)\r")[1] == "hiA"


def test_qmp_and_hmp_reach_qemu(rig: Rig) -> None:
    rig.up()
    assert rig.ask("qmp", name="demo", command="query-status")["return"]["status"] == "running"
    arguments = {"path": "/machine", "property": "type"}
    answer = rig.ask("qmp", name="demo", command="qom-get", arguments=arguments)
    assert answer["return"].startswith("pc-i440fx")
    assert "disk0" in rig.ask("hmp", name="demo", line="info block")["text"]
    with pytest.raises(CommandError, match="no-such"):
        rig.ask("qmp", name="demo", command="no-such")
    with pytest.raises(CommandError, match="NUL"):
        rig.ask("qmp", name="demo", command="qom-get", arguments={"path": "a\0b", "property": "x"})


def test_what_does_not_run_is_not_found(rig: Rig) -> None:
    write_profile("demo")
    with pytest.raises(NotFoundError, match="demo is not running"):
        rig.ask("down", name="demo")
    with pytest.raises(NotFoundError, match="there is no machine 'nobody'"):
        rig.ask("status", name="nobody")


def test_a_guest_that_does_not_power_off_in_time_runs_on(rig: Rig) -> None:
    rig.up()
    rig.ready()
    rig.ask("qmp", name="demo", command="stop")
    # Paused guests are let run, so this one is given no time at all.
    with pytest.raises(TimedOutError, match="still runs"):
        rig.ask("down", name="demo", timeout=0)
    assert rig.row()["state"] in ("running", "paused")
    assert rig.ask("down", name="demo", timeout=0, force=True)["how"] == "host-qmp-quit"


def test_a_failed_start_can_be_tried_again(rig: Rig) -> None:
    path = write_profile("demo", '[qemu]\nargs = ["-no-such-option"]\n')
    with pytest.raises(Exception, match="no-such-option"):
        rig.up()
    write_profile("demo")
    assert rig.ask("up", profile=path)["pid"]


def test_the_supervisor_says_who_it_is(rig: Rig) -> None:
    rig.up()
    about = rig.ask("supervisor", action="status")
    assert about["machines"] == ["demo"]
    with pytest.raises(UsageError, match="cannot 'dance'"):
        rig.ask("supervisor", action="dance")


def test_since_counts_from_the_change_of_state(rig: Rig) -> None:
    rig.up()
    first = rig.row()["since"]
    rig.ask("pause", name="demo")
    assert until(lambda: rig.row()["since"] > first, "a new time")
