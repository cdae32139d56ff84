"""Listening sockets for QEMU and clients, and who has taken them."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from qlaunch.errors import ConflictError, HostError, NotFoundError, TimedOutError
from qlaunch.host import sockets
from qlaunch.host.ports import port_holder, ports_in_use
from qlaunch.host.procfs import describe
from qlaunch.host.sockets import bind_tcp, bind_unix, connect_unix

ME = describe(os.getpid()).in_brackets


async def test_a_socket_is_private_and_does_not_block(runtime_dir: Path) -> None:
    path = runtime_dir / "qmp"
    with bind_unix(str(path)) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(BlockingIOError):
            listener.accept()
        with await connect_unix(str(path)) as client:
            listener.accept()[0].close()
            assert client.recv(1) == b""


def test_a_stale_socket_is_replaced(runtime_dir: Path) -> None:
    path = str(runtime_dir / "qmp")
    bind_unix(path).close()
    bind_unix(path).close()


def test_a_socket_with_a_listener_is_not_taken_away(runtime_dir: Path) -> None:
    path = str(runtime_dir / "qmp")
    with bind_unix(path), pytest.raises(ConflictError) as error:
        bind_unix(path)
    assert error.value.message == f"{ME} listens on {path}"


def test_a_full_queue_counts_as_a_listener(runtime_dir: Path) -> None:
    path = str(runtime_dir / "qmp")
    with bind_unix(path, 0), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        with pytest.raises(ConflictError, match="somebody listens"):
            bind_unix(path)


def test_a_file_that_is_no_socket_stays(runtime_dir: Path) -> None:
    path = runtime_dir / "qmp"
    path.write_text("precious")
    with pytest.raises(ConflictError, match="is not a socket"):
        bind_unix(str(path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize("length", [107, 108, 400])
async def test_a_long_path_is_no_obstacle(runtime_dir: Path, length: int) -> None:
    directory = runtime_dir
    while len(str(directory)) + 60 < length:
        directory /= "d" * 50
        directory.mkdir()
    path = str(directory / "s").ljust(length, "s")
    with bind_unix(path) as listener, await connect_unix(path):
        listener.accept()[0].close()
        with pytest.raises(ConflictError):
            bind_unix(path)
    bind_unix(path).close()


def test_a_directory_that_is_not_there_is_told(runtime_dir: Path) -> None:
    for name in ("no/qmp", "no" * 40 + "/qmp"):
        with pytest.raises(HostError, match="does not exist"):
            bind_unix(str(runtime_dir / name))
    with pytest.raises(HostError, match="too long for a socket"):
        bind_unix(str(runtime_dir / ("x" * 120)))


async def test_a_connection_to_nobody_is_told(runtime_dir: Path) -> None:
    path = str(runtime_dir / "qmp")
    with pytest.raises(NotFoundError, match="nobody listens"):
        await connect_unix(path)
    bind_unix(path).close()
    with pytest.raises(NotFoundError, match="nobody listens"):
        await connect_unix(path)


async def test_a_connection_to_one_who_never_accepts_has_a_limit(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CONNECT_TIMEOUT", 0.05)
    path = str(runtime_dir / "qmp")
    with bind_unix(path, 0), await connect_unix(path):
        with pytest.raises(TimedOutError, match="queue is full"):
            await connect_unix(path)


@pytest.mark.parametrize("host", ["127.0.0.1", "", "*", "localhost", "::1", "::"])
def test_a_free_port_is_given_and_its_holder_is_named(host: str) -> None:
    if ":" in host and not os.path.exists("/proc/net/if_inet6"):
        host = "127.0.0.1"
    with bind_tcp(host, 0) as listener:
        port = listener.getsockname()[1]
        assert port_holder(port) == (None if host == "::1" else ME)
        with pytest.raises(ConflictError) as error:
            bind_tcp(host, port)
        assert error.value.message == f"port {port} is taken by {ME}"
        assert ports_in_use([(listener.getsockname()[0], port)]) == {f"tcp/{port}": ME}
    assert port_holder(port) is None
    bind_tcp(host, port).close()


def test_the_same_port_of_another_address_is_free() -> None:
    with bind_tcp("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert port_holder(port, "127.0.0.2") is None
        bind_tcp("127.0.0.2", port).close()


@pytest.mark.parametrize(
    "host,port,words",
    [
        ("192.0.2.1", 0, "192.0.2.1 is not an address"),
        ("a..b", 0, "'a..b' is not an address"),
        ("127.0.0.1", 70000, "70000 is not a port"),
    ],
)
def test_a_wrong_address_is_told(host: str, port: int, words: str) -> None:
    with pytest.raises(HostError, match=words):
        bind_tcp(host, port)
