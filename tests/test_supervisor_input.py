"""What comes over the control socket and should not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from qlaunch.control import words
from qlaunch.errors import NotFoundError, UsageError
from qlaunch.store import paths
from tests.prerequisites import require_users
from tests.rig import Rig, answer, mute_qemu, nothing_left, raw, request, until, write_profile

NOBODY = 65534

NONSENSE = {
    "no JSON": (b"hello\n", "not JSON"),
    "no text": (b"\xff\xfe\x00\n", "not JSON"),
    "deep": (b"[" * 100_000 + b"\n", "not JSON"),
    "a list": (b"[]\n", "no verb"),
    "verb is a number": (b'{"verb": 3, "version": 1}\n', "no verb"),
    "no version": (b'{"verb": "ps"}\n', "speaks version 1"),
    "other version": (b'{"verb": "ps", "version": 99}\n', "speaks version 1"),
    "args a list": (b'{"verb":"ps","version":1,"args":[]}\n', "not a table"),
    "unknown verb": (request("dance"), "no verb 'dance'"),
    "no name": (request("down"), "lacks 'name'"),
    "name a number": (request("down", name=7), "'name' is not a text"),
    "bad name": (request("down", name="../x"), "cannot be a machine's name"),
    "NUL": (request("down", name="a\0b"), "contains a NUL"),
    "text time": (request("down", name="x", timeout="9"), "number of seconds"),
    "negative": (request("down", name="x", timeout=-1), "number of seconds"),
    "NaN": (request("down", name="x", timeout=float("nan")), "number of"),
    "huge": (request("wait", name="x", timeout=10**400), "number of seconds"),
    "no flag": (request("down", name="x", force="yes"), "neither true nor"),
    "no profile": (request("up"), "lacks 'profile'"),
    "relative path": (request("up", profile="x.toml"), "not absolute"),
    "path with NUL": (request("up", profile="/a\0b"), "contains a NUL"),
    "half a surrogate": (request("up", profile="/\ud800"), "no text that"),
    "set a text": (request("up", profile="/x", set="a=b"), "not a list"),
    "set of numbers": (request("up", profile="/x", set=[1]), "not a text"),
    "wait for": (request("wait", name="x", **{"for": "ever"}), "cannot wait"),
    "bad key": (request("send-key", name="x", keys=["hyper-q"]), "is no key"),
    "bad letter": (request("type", name="x", text="€"), "US keyboard"),
    "arguments": (request("qmp", name="x", command="a", arguments=[1]), "table"),
}


def error_of(line: bytes) -> dict[str, object]:
    with raw(line) as connection:
        error: dict[str, object] = answer(connection)["error"]
    return error


def test_a_request_that_makes_no_sense_is_refused_in_words(rig: Rig) -> None:
    for what, (line, message) in NONSENSE.items():
        error = error_of(line)
        assert error["kind"] == "usage", what
        assert message in str(error["message"]), what
    assert rig.ask("ps")["machines"] == []


def test_a_request_of_ten_megabytes_is_refused(rig: Rig) -> None:
    rig.supervisor()
    with pytest.raises(UsageError, match="longer than 1048576 bytes"):
        rig.ask("type", name="demo", text="x" * (10 << 20))
    assert rig.ask("ps")["machines"] == []


def test_a_profile_that_is_not_there_is_not_found(rig: Rig) -> None:
    with pytest.raises(NotFoundError, match=r"/nowhere/x\.toml"):
        rig.ask("up", profile="/nowhere/x.toml")


@pytest.mark.qemu
def test_a_profile_in_a_folder_that_is_not_utf_8_starts(rig: Rig) -> None:
    folder = os.path.join(paths.config_dir(), os.fsdecode(b"\xfc"))
    path = write_profile("demo", folder=folder)
    assert rig.ask("up", profile=path)["name"] == "demo"
    assert rig.row()["profile"] == path


def test_who_says_nothing_is_not_waited_for(rig: Rig) -> None:
    with raw() as silent:
        assert rig.ask("ps")["machines"] == []
        silent.shutdown(socket.SHUT_WR)
        assert silent.recv(100) == b""


def test_who_sends_slowly_is_served(rig: Rig) -> None:
    line = request("supervisor")
    with raw(line[:7]) as slow:
        rig.ask("ps")
        slow.sendall(line[7:])
        assert answer(slow)["result"]["machines"] == []


def test_what_follows_a_request_does_not_count_as_a_hang_up(rig: Rig) -> None:
    with raw(request("wait", name="demo", timeout=0.2, **{"for": "running"}) + b"more\n") as eager:
        assert answer(eager)["error"]["kind"] == "timed-out"


@pytest.mark.qemu
def test_a_client_that_hangs_up_cancels_its_start(rig: Rig) -> None:
    path = write_profile("demo")
    with raw(request("up", profile=path, set=[f"machine.emulator={mute_qemu()}"])) as connection:
        assert answer(connection)["progress"]["step"] == "disk"
        assert rig.row()["state"] == "starting"
    until(lambda: rig.row() == {}, "the end of the start")
    assert nothing_left() == []
    assert rig.up()["pid"]


@pytest.mark.qemu
def test_a_client_that_hangs_up_gives_up_its_stop(rig: Rig) -> None:
    pid = rig.up()["pid"]
    rig.ready()
    rig.ask("pause", name="demo")
    os.kill(pid, 19)
    with raw(request("down", name="demo")):
        until(lambda: rig.row()["state"] == "stopping", "the stop to begin")
    os.kill(pid, 18)
    until(lambda: rig.row().get("state") in ("paused", "running", None), "the state")


def test_another_user_is_refused(rig: Rig) -> None:
    rig.supervisor()
    path = paths.control_socket()
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert os.stat(path).st_mode & 0o777 == 0o600
    if os.getuid() != 0:
        return  # only root can be somebody else
    require_users()
    assert ask_as_nobody(path) == "PermissionError"
    # Even where somebody opened folder and socket by hand.
    folder = os.path.dirname(path)
    while folder != "/tmp":
        os.chmod(folder, 0o755)
        folder = os.path.dirname(folder)
    os.chmod(path, 0o666)
    assert ask_as_nobody(path) == "b''"


def ask_as_nobody(path: str) -> str:
    script = f"""
import os, socket
os.setgid({NOBODY}); os.setuid({NOBODY})
try:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect({path!r})
        sock.sendall({words.request("ps", {})!r})
        print(sock.recv(100))
except ConnectionError:
    print(b"")
except OSError as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.strip()
