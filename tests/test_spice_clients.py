"""The gateway as SPICE clients meet it: SpiceClientGLib, over unix sockets, TCP and TLS."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlaunch.store import paths
from tests.prerequisites import both_qemus
from tests.rig import Rig, until, write_profile
from tests.spice.client import SpiceClient, of_vv

pytestmark = [pytest.mark.qemu, pytest.mark.spice]

# Scan codes of the keyboard's `x`, whose character the demo guest echoes on its screen.
KEY_X = 0x2D


def spice_socket(name: str = "demo") -> str:
    return f"spice+unix://{paths.machine_runtime(name)}/spice.sock"


def command(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qlaunch", *words],
        check=False, capture_output=True, text=True, input=stdin or "", timeout=60,
    )  # fmt: skip


@contextlib.contextmanager
def another_port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    yield port


@both_qemus
def test_keys_pressed_in_a_client_change_what_the_guest_shows(rig: Rig, qemu_binary: str) -> None:
    rig.up("demo", f'machine.emulator="{qemu_binary}"', "display.vnc=true")
    rig.ready()
    with SpiceClient() as client:
        client.open(spice_socket())
        size = client.expect(event="size")
        assert (size["width"], size["height"]) == (720, 400)
        with rig.console() as console:
            client.ask("key", codes=[KEY_X])
            console.expect("x")
    command("display", "kick", "demo")


def test_a_ticket_lets_in_once_it_is_made_and_until_it_expires(rig: Rig, free_port: int) -> None:
    uri = f"spice://127.0.0.1:{free_port}"
    write_profile("demo", f"[display]\nport = {free_port}\nticket = true\n")
    rig.up()
    with SpiceClient() as client:
        assert client.failure(uri, password="guessed")["what"] == "error-auth"
    made = command("display", "password", "demo", "--expires", "1h")
    with SpiceClient() as client:
        client.open(uri, password=made.stdout.strip())
        assert '"tls":false' in command("display", "clients", "demo", "--json").stdout
        # Another one replaces it; whoever is in stays in.
        late = command("display", "demo", "password", "--expires", "1s").stdout.strip()
        client.ask("key", codes=[KEY_X])
    with SpiceClient() as client:
        assert client.failure(uri, password=made.stdout.strip())["what"] == "error-auth"

    def expired() -> bool:
        with SpiceClient() as client:
            client.connect(uri, password=late)
            return bool(client.expect(event="channel", channel="main")["what"] == "error-auth")

    until(expired, "the ticket's end")
    assert "Ticket has expired" in rig.machine_log()
    for path in Path(paths.state_dir()).rglob("*"):
        assert not path.is_file() or late not in path.read_text(errors="replace")


def test_a_ticket_is_asked_for_by_the_next_supervisor_too(rig: Rig, free_port: int) -> None:
    uri = f"spice://127.0.0.1:{free_port}"
    write_profile("demo", f"[display]\nport = {free_port}\n")
    rig.up()
    with SpiceClient() as client:
        client.open(uri)  # as old profiles have it: whoever comes is let in
    secret = command("display", "password", "demo", "--stdin", stdin="geheim\n")
    assert secret.stdout == ""
    rig.kill_supervisor()
    rig.row()
    with SpiceClient() as client:
        assert client.failure(uri)["what"] == "error-auth"
    with SpiceClient() as client:
        client.open(uri, password="geheim")


def test_who_fails_to_log_in_is_slowed_down_and_who_succeeds_is_forgiven(
    rig: Rig, free_port: int
) -> None:
    uri = f"spice://127.0.0.1:{free_port}"
    write_profile("demo", f"[display]\nport = {free_port}\nticket = true\n")
    rig.up()
    right = command("display", "password", "demo").stdout.strip()
    for _ in range(4):
        with SpiceClient() as client:
            client.failure(uri, password="guessed")
    until(lambda: "127.0.0.1 has failed to log in 3 times" in rig.machine_log(), "the log")
    with SpiceClient() as client:
        client.connect(uri, password=right)
        with pytest.raises(AssertionError, match="waited"):
            client.expect(event="channel", channel="main", within=0.5)
        client.expect(event="channel", channel="main", what="opened")
    with SpiceClient() as client:
        client.connect(uri, password=right)
        client.expect(event="channel", channel="main", what="opened", within=1.5)


@both_qemus
def test_tls_with_a_ticket_and_with_nobody_to_trust(
    rig: Rig, free_port: int, qemu_binary: str
) -> None:
    write_profile("demo", f"[display]\ntls_port = {free_port}\n")
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    given = of_vv(command("view", "demo", "--vv").stdout)
    assert given["tls-port"] == str(free_port)
    assert "port" not in given
    uri = f"spice://127.0.0.1?tls-port={free_port}"
    with SpiceClient() as client:
        client.open(uri, password=given["password"], ca=given["ca"])
        shown = command("display", "clients", "demo").stdout.splitlines()[1].split()
        assert shown[:3] == ["spice", "127.0.0.1", "yes"]
        client.ask("key", codes=[KEY_X])
        # Who wants to be master of the connection gets no further than TLS.
        rig.kill_supervisor()
        client.ask("key", codes=[KEY_X])
        assert rig.row()["state"] == "running"
        assert "inputs" in command("display", "clients", "demo").stdout
    stranger = command_ca()
    for name, ca in (("127.0.0.1", stranger), ("127.0.0.2", given["ca"])):
        with SpiceClient() as client:
            failed = client.failure(
                f"spice://{name}?tls-port={free_port}", password=given["password"], ca=ca
            )
            assert failed["what"] in ("error-tls", "error-connect"), failed
    with SpiceClient() as client:
        failed = client.failure(uri, password="guessed", ca=given["ca"])
        assert failed["what"] == "error-auth"


def command_ca() -> str:
    """The certificate of somebody else's CA."""
    script = (
        "from qlaunch.machine import certificates as c\n"
        "print(open(c.ensure(c.names_for([])).ca).read())"
    )
    environment = {**os.environ, "XDG_DATA_HOME": os.environ["XDG_STATE_HOME"] + "/stranger"}
    return subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment
    ).stdout


def test_one_that_speaks_no_tls_is_sent_away_and_the_others_are_served(
    rig: Rig, free_port: int
) -> None:
    write_profile("demo", f"[display]\ntls_port = {free_port}\n")
    rig.up()
    given = of_vv(command("view", "demo", "--vv").stdout)
    with socket.create_connection(("127.0.0.1", free_port)) as connection:
        connection.settimeout(20)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert connection.recv(100) == b""
    with SpiceClient() as client:
        uri = f"spice://127.0.0.1?tls-port={free_port}"
        client.open(uri, password=given["password"], ca=given["ca"])


def test_kick_throws_out_spice_and_vnc_viewers(rig: Rig) -> None:
    rig.up("demo", "display.vnc=true")
    with socket.socket(socket.AF_UNIX) as vnc, SpiceClient() as client:
        vnc.settimeout(20)
        vnc.connect(f"{paths.machine_runtime('demo')}/vnc.sock")
        for answer in (b"RFB 003.008\n", b"\1", b"\1"):
            vnc.recv(1000)
            vnc.sendall(answer)
        client.open(spice_socket())
        assert command("display", "kick", "demo").returncode == 0
        client.expect(event="channel", channel="main", what="closed")
        with contextlib.suppress(ConnectionResetError):
            while vnc.recv(1000):
                pass
    assert command("display", "clients", "demo").stdout == ""


def test_fifty_clients_that_come_and_vanish_leave_nothing_behind(rig: Rig, free_port: int) -> None:
    write_profile("demo", f"[display]\nport = {free_port}\n")
    rig.up()
    supervisor = rig.supervisor()
    before = len(os.listdir(f"/proc/{supervisor}/fd"))
    chance = random.Random(5)
    hello = bytes.fromhex("52454451020000000200000012000000") + bytes(18)
    for _ in range(48):
        if chance.random() < 0.5:
            client = socket.create_connection(("127.0.0.1", free_port))
        else:
            client = socket.socket(socket.AF_UNIX)
            client.connect(spice_socket().removeprefix("spice+unix://"))
        client.sendall(hello[: chance.randrange(len(hello) + 1)])
        if chance.random() < 0.3:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    for _ in range(2):
        with SpiceClient() as viewer:
            viewer.connect(spice_socket())
            viewer.kill()
    with SpiceClient() as viewer:
        viewer.open(spice_socket())
        viewer.ask("key", codes=[KEY_X])
    until(lambda: len(os.listdir(f"/proc/{supervisor}/fd")) <= before, "closed descriptors")
    assert rig.row()["state"] == "running"
    assert signal.Signals.SIGKILL.name not in rig.machine_log()
