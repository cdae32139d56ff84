"""The network client and its wire, against a peer that speaks it on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaunch.errors import HostError, QlaunchError, RefusedError, SessionLostError
from qlaunch.network import client, wire
from qlaunch.plan.forwards import Forward, canonical
from qlaunch.plan.model import Attachment

Answer = Callable[[wire.Message], tuple[wire.Message, list[int]]]
CARD = Attachment(network="default", mac="52:54:00:00:00:01", forwards=("tcp:0.0.0.0:8080:80",))


@pytest.fixture
def path(runtime_dir: Path) -> str:
    return str(runtime_dir / "netd")


@contextlib.asynccontextmanager
async def peer(path: str, answer: Answer) -> AsyncIterator[list[wire.Message]]:
    """A service at `path` that gives each request the answer that `answer` makes of it."""
    heard: list[wire.Message] = []
    with socket.socket(socket.AF_UNIX, wire.KIND | socket.SOCK_NONBLOCK) as listener:
        listener.bind(path)
        listener.listen()

        async def serve() -> None:
            while True:
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                with sock:
                    await client._when(sock, write=False)
                    message, fds = wire.receive(sock)
                    wire.close_all(fds)
                    heard.append(message)
                    reply, given = answer(message)
                    wire.send(sock, reply, given)
                    wire.close_all(given)

        task = asyncio.create_task(serve())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait({task})


def service(path: str) -> client.Service:
    return client.Service(kind="netd", path=path)


def files(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(count)]


async def test_attach_brings_queues_and_vhost_descriptors_apart(path: str) -> None:
    told = {"ifname": "qlt0", "queues": 2, "ipv4": "192.168.150.9", "bridge": "ql-default"}
    async with peer(path, lambda _: (told, files(4))) as heard:
        attached = await service(path).attach("xp", "net0", CARD)
    assert (attached.ifname, attached.ipv4, attached.mtu) == ("qlt0", "192.168.150.9", 1500)
    assert (len(attached.fds), len(attached.vhost_fds)) == (2, 2)
    assert not any(os.get_inheritable(fd) for fd in attached.fds)
    attached.close()
    assert heard[0]["attachment"]["forwards"] == ["tcp:0.0.0.0:8080:80"]
    assert (heard[0]["verb"], heard[0]["machine"], heard[0]["nic"]) == ("attach", "xp", "net0")


async def test_an_error_comes_back_as_the_class_that_it_was(path: str) -> None:
    error = RefusedError("port 80 is not open to you", hint="choose one above 1023").to_dict()
    async with peer(path, lambda _: ({"error": error}, files(1))):
        with pytest.raises(RefusedError, match="port 80") as caught:
            await service(path).attach("xp", "net0", CARD)
    assert caught.value.hint == "choose one above 1023"


async def test_an_answer_of_any_length_arrives(path: str) -> None:
    lease = {"network": "default", "mac": "52:54:00:00:00:01", "address": "10.0.0.1"}
    async with peer(path, lambda _: ({"leases": [lease] * 5000}, [])):
        leases = await service(path).leases()
    assert len(leases) == 5000
    assert leases[0].address == "10.0.0.1"


@pytest.mark.parametrize(
    "answer, fds",
    [({}, 0), ({"ifname": "a"}, 1), ({"ifname": "a", "queues": 3}, 1), ({"queues": True}, 1),
     ({"queues": 1, "ifname": 5}, 1)],
)  # fmt: skip
async def test_a_service_that_talks_nonsense_costs_no_descriptor(
    path: str, answer: wire.Message, fds: int
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with peer(path, lambda _: (answer, files(fds))):
        with pytest.raises(wire.WireError):
            await service(path).attach("xp", "net0", CARD)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_dial_gives_a_connected_socket(path: str) -> None:
    near, far = socket.socketpair()
    with far:
        async with peer(path, lambda _: ({}, [near.detach()])):
            connection = await service(path).dial("qlt0", "10.0.0.2", 22)
        with connection:
            far.send(b"SSH-2.0")
            assert await asyncio.get_running_loop().sock_recv(connection, 100) == b"SSH-2.0"


async def test_find_takes_the_systems_service_if_it_lets_us_in_and_else_our_own(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.SOCKET_VARIABLE, path)
    assert await client.find() is None
    os.makedirs(os.path.dirname(client.rootless_socket()))
    async with peer(client.rootless_socket(), lambda _: ({"allowed": ["*"]}, [])):
        async with peer(path, lambda _: ({"allowed": ["default"]}, [])):
            found = await client.find()
            assert found
            assert (found.kind, found.allowed) == ("netd", ("default",))
        os.unlink(path)
        async with peer(path, lambda _: ({"allowed": []}, [])):
            found = await client.find()
            assert found
            assert found.kind == "rootless"


async def test_a_service_that_is_gone_and_one_that_dies_are_told_apart(path: str) -> None:
    with pytest.raises(HostError, match="no network service at"):
        await service(path).networks()

    def die(_: wire.Message) -> tuple[wire.Message, list[int]]:
        raise SessionLostError("dies")

    async with peer(path, die):
        with pytest.raises(SessionLostError):
            await service(path).networks()


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair(socket.AF_UNIX, wire.KIND)
    with near, far:
        yield near, far


@given(data=st.binary(min_size=1, max_size=200), fds=st.integers(0, 3))
def test_garbage_is_refused_and_its_descriptors_closed(
    pair: tuple[socket.socket, socket.socket], data: bytes, fds: int
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    sent = files(fds)
    socket.send_fds(pair[0], [data], sent)
    wire.close_all(sent)
    try:
        _, got = wire.receive(pair[1])
        wire.close_all(got)
    except QlaunchError:
        pass
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "text, spelled",
    [
        ("2222:22", "tcp:127.0.0.1:2222:22"),
        ("udp:0.0.0.0:53:5353", "udp:0.0.0.0:53:5353"),
        ("[::1]:80:8080", "tcp:[::1]:80:8080"),
        ("8080:192.168.150.10:80", "tcp:127.0.0.1:8080:192.168.150.10:80"),
    ],
)
def test_a_forward_has_one_spelling(text: str, spelled: str) -> None:
    assert canonical([text]) == (spelled,)
    assert str(Forward.parse(spelled)) == spelled


@pytest.mark.parametrize(
    "text",
    ["", "22", "a:22", "70000:22", "0:22", "1.2.3:80:80", "[1]:80:80", "tcp:tcp:80:80",
     "80:[::1]:80:[::2]:80"],
)  # fmt: skip
def test_what_is_no_forward_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|no IP|ports are"):
        Forward.parse(text)
