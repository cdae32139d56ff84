"""The serial console: left and entered again, shared, logged, and never in the guest's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlaunch.errors import NotFoundError
from qlaunch.store import machines
from tests.rig import Rig, answer, raw, request, until

pytestmark = pytest.mark.qemu


def test_what_was_printed_before_is_shown_to_who_comes_later(rig: Rig) -> None:
    rig.up()
    with rig.console() as console:
        console.expect("READY\r\n")
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send("+")
        console.expect(r"count=1\r")
    with rig.console() as console:
        console.expect(r"count=1\r")


def test_several_clients_see_the_same(rig: Rig) -> None:
    rig.up()
    with rig.console() as one, rig.console() as two:
        for console in (one, two):
            console.expect("READY\r\n")
        one.send("+")
        for console in (one, two):
            console.expect(r"count=1\r")


def test_one_types_and_the_next_when_that_one_has_left(rig: Rig) -> None:
    rig.up()
    with rig.console(read_only=True) as onlooker, rig.console() as two:
        with rig.console() as three:
            three.expect("READY\r\n")
            three.send("+++")  # lost: `two` types
            two.send("?")
            assert "count=0" in three.expect(r"up=.*\r")[0]
        with rig.console(take=True) as four:
            four.expect("READY\r\n")
            two.send("+++")
            four.send("+")
            two.expect(r"count=1\r")
        two.socket.settimeout(0.5)
        until(lambda: two.says(r"up=\d+ boots=1 count=1"), "its turn again")
        two.socket.settimeout(30)
        onlooker.send("+++")
        two.send("+")
        onlooker.expect(r"count=2\r")
    with raw(request("console", name="demo")) as later:
        assert answer(later)["result"]["types"]


def test_a_client_that_never_reads_stops_nobody(rig: Rig) -> None:
    rig.up()
    rig.ready()
    with rig.console() as console, raw(request("console", name="demo")) as deaf:
        console.expect("READY\r\n")
        for turn in range(5):
            console.send("?" * 50 + "+")
            console.expect(rf"count={turn + 1}\r")
        assert answer(deaf)["result"]["serial"] == "serial0"


def test_what_a_client_types_without_end_is_held_back(rig: Rig) -> None:
    rig.up()
    rig.ready()
    rig.ask("pause", name="demo")
    with raw(request("console", name="demo")) as pushy:
        answer(pushy)
        pushy.settimeout(0.3)
        with pytest.raises(TimeoutError):
            pushy.sendall(b"+" * (64 << 20))
    assert rig.row()["memory"] < 1 << 30


def test_the_console_is_logged(rig: Rig) -> None:
    rig.up()
    rig.ready()
    log = Path(machines.console_log_path("demo", "serial0"))
    until(lambda: b"READY\r\n" in log.read_bytes(), "the log")
    rig.kill()
    rig.up()
    rig.ready()
    until(lambda: log.read_bytes().count(b"READY\r\n") == 2, "both starts in the log")


def test_a_log_that_has_grown_large_is_kept_once(rig: Rig) -> None:
    log = Path(machines.console_log_path("demo", "serial0"))
    log.parent.mkdir(parents=True)
    log.write_bytes(b"old\n" * (machines.LOG_LIMIT // 4 + 1))
    rig.up()
    rig.ready()
    assert Path(f"{log}.1").read_bytes().startswith(b"old\n")
    until(lambda: log.read_bytes().endswith(b"READY\r\n"), "the new log")
    assert not log.read_bytes().startswith(b"old")


def test_the_view_ends_with_the_machine(rig: Rig) -> None:
    rig.up()
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send("q")
        console.wait_end()
    rig.ask("wait", name="demo")


def test_a_port_that_is_not_there_is_named(rig: Rig) -> None:
    rig.up()
    with pytest.raises(NotFoundError, match="no serial port 'tty9'") as caught:
        rig.console(serial="tty9")
    assert caught.value.hint == "it has serial0"
