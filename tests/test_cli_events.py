"""`qlaunch events`, `ps --watch`, `top` and what `wait --for` can wait for."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import PhaseError, TimedOutError, UsageError
from qlaunch.store import events, paths
from tests.rig import PATIENCE, Rig, end, qlaunch, write_profile

Fields = dict[str, Any]


# ---- the file -----------------------------------------------------------------------------------


def test_a_reader_goes_on_where_it_was_and_over_the_change_of_files() -> None:
    reader = events.Reader()
    assert list(reader.new()) == []
    events.note("xp", "started", pid=1)
    assert [event["event"] for event in reader.new()] == ["started"]
    assert list(reader.new()) == []
    events.note("xp", "state", state="running")
    filler = "x" * events.LIMIT
    events.note("xp", "long", text=filler)  # which makes it a file for the old ones
    assert not os.path.exists(events.path())
    events.note("xp", "ended", reason="guest-shutdown")
    assert [event["event"] for event in reader.new()] == ["state", "long", "ended"]
    assert len(list(events.Reader().new())) == 4


def test_what_is_damaged_or_half_written_is_passed_over() -> None:
    events.note("xp", "started")
    with open(events.path(), "ab") as file:
        file.write(b"nonsense\n[1]\n" + b'{"event": "ha')
    reader = events.Reader()
    assert [event["event"] for event in reader.new()] == ["started"]
    with open(events.path(), "ab") as file:
        file.write(b'lf"}\n')
    assert [event["event"] for event in reader.new()] == ["half"]


def test_no_space_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    events.note("xp", "started")


# ---- following ----------------------------------------------------------------------------------


@contextmanager
def following(*words: str) -> Iterator[Callable[[Callable[[Fields], bool]], Fields]]:
    """A command that prints JSON lines: call it with what to wait for."""
    process = qlaunch(*words, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout
    lines: list[bytes] = [b""]

    def wait(wanted: Callable[[Fields], bool]) -> Fields:
        assert process.stdout
        while True:
            while len(lines) > 1:
                found: Fields = json.loads(lines.pop(0))
                if wanted(found):
                    return found
            assert select.select([process.stdout], [], [], PATIENCE)[0]
            chunk = process.stdout.read(65536) or b""
            assert chunk, "it has ended"
            first, *rest = chunk.split(b"\n")
            lines[-1] += first
            lines.extend(rest)

    try:
        yield wait
    finally:
        process.kill()
        with process:
            pass


def named(event: str, **about: Any) -> Callable[[Fields], bool]:
    wanted = {"event": event, **about}
    return lambda found: wanted.items() <= found.items()


@pytest.mark.qemu
def test_who_follows_hears_of_all_also_over_a_restart_of_the_supervisor(rig: Rig) -> None:
    with following("events", "-f", "--since", "1h", "--json") as wait:
        pid = rig.up()["pid"]
        assert wait(named("started"))["pid"] == pid
        wait(named("state", state="running", machine="demo"))
        rig.ready()
        rig.kill_supervisor()
        rig.row()
        wait(named("adopted", pid=pid))
        rig.ask("pause", name="demo")
        wait(named("done", verb="pause"))
        rig.ask("resume", name="demo")
        rig.ask("down", name="demo")
        wait(named("shutdown", reason="guest-shutdown"))
        wait(named("ended", reason="guest-shutdown", failed=False))
    replay = qlaunch("events", "demo", "--since", "1h", "--json", stdout=subprocess.PIPE)
    told = [json.loads(line)["event"] for line in replay.communicate()[0].splitlines()]
    assert told.index("started") < told.index("adopted") < told.index("ended")


@pytest.mark.qemu
def test_a_verb_that_fails_is_an_event(rig: Rig) -> None:
    write_profile("demo", '[qemu]\nargs = ["-nonsense"]\n')
    with pytest.raises(Exception, match="nonsense"):
        rig.up()
    text = qlaunch("events", "demo", stdout=subprocess.PIPE).communicate()[0].decode()
    assert "demo  failed  verb=up  error=" in text
    assert "nonsense" in text


@pytest.mark.qemu
def test_ps_watch_shows_each_change(rig: Rig) -> None:
    rig.up("other")
    with following("ps", "--watch", "--json") as wait:

        def lists(*names: str) -> Callable[[Fields], bool]:
            return lambda found: [row["name"] for row in found["machines"]] == list(names)

        wait(lists("other"))
        rig.up()
        wait(lists("demo", "other"))
        rig.kill()
        wait(lists("other"))


@pytest.mark.qemu
def test_top_tells_what_is_used_between_two_looks(rig: Rig) -> None:
    rig.up()
    rig.ready()
    words = ("top", "--json", "--interval", "200ms", "--count", "2", "d*")
    out = qlaunch(*words, stdout=subprocess.PIPE).communicate(timeout=PATIENCE)[0]
    first, second = (json.loads(line)["machines"] for line in out.splitlines())
    assert first[0]["cpu_seconds_rate"] is None
    assert second[0]["cpu_seconds_rate"] >= 0
    assert second[0]["read"] > 0
    assert second[0]["written_rate"] == 0
    plain = qlaunch("top", "--count", "1", stdout=subprocess.PIPE).communicate()[0].decode()
    assert [line.split()[0] for line in plain.splitlines()] == ["NAME", "demo"]


# ---- waiting ------------------------------------------------------------------------------------


@pytest.mark.qemu
def test_what_the_guest_writes_is_waited_for(rig: Rig) -> None:
    waiting = rig.later("wait", name="demo", **{"for": "serial:count=2"})
    rig.up()
    with rig.console() as console:
        console.expect("READY\r\n")
        console.send("++")
        waiting.result(PATIENCE)
    assert rig.ask("wait", name="demo", **{"for": "serial:READY"})["state"] == "serial:READY"
    with pytest.raises(TimedOutError, match="demo is running, not serial:never"):
        rig.ask("wait", name="demo", timeout=0.1, **{"for": "serial:never"})
    waiting = rig.later("wait", name="demo", **{"for": "serial:never"})
    end(rig.row()["pid"])
    with pytest.raises(PhaseError, match="demo has ended: QEMU was ended by SIGKILL"):
        waiting.result(PATIENCE)


@pytest.mark.qemu
def test_what_cannot_come_is_not_waited_for(rig: Rig) -> None:
    rig.up()
    for wanted in ("agent", "ssh", "port:80", "port:no", "serial:", "nonsense"):
        with pytest.raises(UsageError):
            rig.ask("wait", name="demo", **{"for": wanted})


@pytest.mark.qemu
def test_a_port_counts_when_the_guest_takes_it(rig: Rig, free_port: int) -> None:
    # The demo guest has no network: whoever answers at the forwarded port stands for it.
    nic = f'[[nic]]\nid = "net0"\nbackend = "user"\nforward = ["{free_port}:22"]\n'
    write_profile("demo", nic)
    rig.up()
    with pytest.raises(TimedOutError):  # QEMU takes the connection, and hangs up
        rig.ask("wait", name="demo", timeout=1.5, **{"for": "ssh"})


def test_a_banner_and_an_open_connection_are_told_apart(free_port: int) -> None:
    import asyncio

    from qlaunch.supervisor.waiting import _greets

    with socket.create_server(("127.0.0.1", free_port)) as server:
        kept: list[socket.socket] = []

        def serve() -> None:
            for words in (b"SSH-2.0-test\r\n", b"", None, b"HTTP"):
                connection = server.accept()[0]
                if words is None:
                    connection.close()
                else:
                    connection.sendall(words)
                    kept.append(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        way = ("127.0.0.1", free_port)
        assert asyncio.run(_greets(way, b"SSH-"))
        assert asyncio.run(_greets(way, b""))
        assert not asyncio.run(_greets(way, b""))
        assert not asyncio.run(_greets(way, b"SSH-"))
        thread.join(PATIENCE)
        for connection in kept:
            connection.close()


def test_the_events_lie_where_the_state_does() -> None:
    assert Path(events.path()).parent == Path(paths.state_dir())
