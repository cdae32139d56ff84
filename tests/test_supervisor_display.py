"""Display clients: let in by qlaunch, never by a port that QEMU listens on."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys

import pytest

from qlaunch.errors import ConflictError
from tests.prerequisites import require_users
from tests.rig import Rig, nothing_left, until, write_profile

pytestmark = pytest.mark.qemu

NOBODY = 65534
# SpiceLinkMess for the main channel, without capabilities (spice-protocol: protocol.h).
SPICE_LINK = struct.pack("<4sIII", b"REDQ", 2, 2, 18) + struct.pack("<IBBIII", 0, 1, 0, 0, 0, 18)


def endpoint(rig: Rig, scheme: str, name: str = "demo") -> str:
    uris = [uri for uri in rig.row(name)["display"] if uri.startswith(f"{scheme}://")]
    return str(uris[0]).removeprefix(f"{scheme}://")


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        assert chunk, f"hung up after {data!r}"
        data += chunk
    return data


def unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(path)
    return connection


def tcp(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def vnc_security(connection: socket.socket) -> bytes:
    """The kinds of authentication that a VNC server offers."""
    greeting = read_exactly(connection, 12)
    assert greeting == b"RFB 003.008\n"
    connection.sendall(greeting)
    return read_exactly(connection, read_exactly(connection, 1)[0])


def test_clients_come_in_over_unix_sockets(rig: Rig) -> None:
    rig.up("demo", "display.vnc=true")
    vnc, spice = endpoint(rig, "vnc+unix"), endpoint(rig, "spice+unix")
    for path in (vnc, spice):
        assert os.stat(path).st_mode & 0o777 == 0o600
    for _ in range(2):
        with unix(vnc) as connection:
            assert vnc_security(connection) == b"\1"  # none
        with unix(spice) as connection:
            connection.sendall(SPICE_LINK)
            assert read_exactly(connection, 4) == b"REDQ"


def test_qemu_itself_listens_on_no_port(rig: Rig, free_port: int) -> None:
    write_profile("demo", f"[display]\nport = {free_port}\n")
    pid = rig.up()["pid"]
    listening = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
            for line in file.read().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A":
                    listening.add(f"socket:[{words[9]}]")
    held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert not listening & held


def test_a_password_is_asked_for_over_tcp_and_not_of_the_user(
    rig: Rig, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(
        "demo",
        f'[display]\nvnc = true\nvnc_port = {free_port}\npassword = {{ env = "PW" }}\n',
    )
    rig.up(env={"PW": "geheim"})
    with tcp(free_port) as connection:
        assert vnc_security(connection) == b"\2"  # a password
    with unix(endpoint(rig, "vnc+unix")) as connection:
        assert vnc_security(connection) == b"\1"


def test_a_port_that_is_taken_is_told_with_its_holder(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        write_profile("demo", f"[display]\nport = {port}\n")
        with pytest.raises(ConflictError, match=rf"port {port} is taken by .*pid {os.getpid()}"):
            rig.up()
    assert nothing_left() == []
    assert rig.up()["pid"]


def test_another_user_is_refused_even_where_the_folder_is_open(rig: Rig) -> None:
    if os.getuid() != 0:
        return  # only root can be somebody else
    require_users()
    rig.up("demo", "display.vnc=true")
    path = endpoint(rig, "vnc+unix")
    folder = os.path.dirname(path)
    while folder != "/tmp":
        os.chmod(folder, 0o755)
        folder = os.path.dirname(folder)
    os.chmod(path, 0o666)
    script = f"""
import os, socket
os.setgid({NOBODY}); os.setuid({NOBODY})
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect({path!r})
    print(sock.recv(100))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "b''"
    until(lambda: "a client of another user was refused" in rig.machine_log(), "the log")


def test_a_client_stays_when_the_supervisor_goes(rig: Rig) -> None:
    rig.up("demo", "display.vnc=true")
    with unix(endpoint(rig, "vnc+unix")) as connection:
        read_exactly(connection, 12)
        rig.kill_supervisor()
        rig.row()
        connection.sendall(b"RFB 003.008\n")
        assert read_exactly(connection, 2) == b"\1\1"
    with unix(endpoint(rig, "vnc+unix")) as connection:
        assert vnc_security(connection) == b"\1"
