"""What looking at a screen costs: from `qlaunch view` to the picture, TLS, an idle viewer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from qlaunch.machine import certificates
from qlaunch.machine.relay import Relay
from qlaunch.spice.link import MAGIC, MINI_HEADER
from qlaunch.store import paths
from tests.bench import process
from tests.bench.figures import Figure, timed
from tests.bench.place import Place
from tests.prerequisites import missing
from tests.spice.screen import Picture, Screen, of_ppm, screen

FRAME_LIMIT = 1000.0
# 500 Mbit/s, and a fifth of a core at 100 Mbit/s.
VOLUME = 64 << 20
VOLUME_LIMIT = VOLUME * 8 / 500e6 * 1000
PACE = 100e6 / 8
PACED_SECONDS = 3.0
PACED_LIMIT = 20.0
_MESSAGE = 64 << 10
_PATIENCE = 30.0
_DRAWN = 20  # rows that differ


def measure(place: Place, rounds: int, say: Any) -> Iterator[Figure]:
    """Every figure of the display; none where there is no viewer."""
    if missing("spice"):
        say(f"the display: skipped: {missing('spice')}")
        return
    say(f"the display, {rounds} rounds")
    place.ask("up", profile=paths.find_profile("demo"), set=[], env={})
    try:
        with screen() as desk:
            yield timed(
                "`qlaunch view` to the guest's picture in remote-viewer",
                [_first_picture(place, desk) for _ in range(rounds)],
                limit=FRAME_LIMIT,
            )
            yield from _idle(place, desk)
    finally:
        place.ask("kill", name="demo")
    say("TLS")
    yield from asyncio.run(_tls(place))


@contextlib.contextmanager
def _viewer(place: Place, desk: Screen) -> Iterator[float]:
    """A viewer whose picture is there; how many seconds it took."""
    _until(lambda: desk.picture().place_of(_top(place)) is None, "the screen is not empty")
    begun = time.monotonic()
    viewer = subprocess.Popen(
        [place.qlaunch, "view", "demo"], env=desk.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _until(
            lambda: desk.picture().place_of(_top(place)) is not None, "the viewer shows no picture"
        )
        yield time.monotonic() - begun
    finally:
        viewer.terminate()
        viewer.wait()


def _until(condition: Callable[[], bool], problem: str) -> None:
    """Wait for it. Raises: RuntimeError when it does not come."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(problem)


def _top(place: Place) -> Picture:
    """The upper third of the guest's picture, in which nothing moves once it is drawn."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        data = place.ask("screenshot", name="demo", format="ppm")["data"]
        whole = of_ppm(base64.b64decode(data))
        rows = whole.rows[: whole.height // 3]
        if len(set(rows)) > _DRAWN:
            return Picture(whole.width, len(rows), rows)
    raise RuntimeError("the guest draws nothing")


def _first_picture(place: Place, desk: Screen) -> float:
    with _viewer(place, desk) as seconds:
        found = seconds
    while place.ask("display-clients", name="demo")["clients"]:
        time.sleep(0.01)
    return found


def _idle(place: Place, desk: Screen) -> Iterator[Figure]:
    """The supervisor while somebody looks: QEMU and the viewer have the connection between them."""
    with _viewer(place, desk):
        _wait_quiet(place)
        # What it does now and then by itself is not the viewer's: the quieter of two counts.
        used = min(_used(place, 5.0), _used(place, 5.0))
    yield Figure(
        what="supervisor while a viewer is connected, CPU time in 5 s", value=used, unit="ms",
        limit=0,
    )  # fmt: skip


def _used(place: Place, seconds: float) -> float:
    """The supervisor's processor time meanwhile, in milliseconds."""
    before = process.activity(place.supervisor)
    time.sleep(seconds)
    return (process.activity(place.supervisor).cpu - before.cpu) / 1e6


def _wait_quiet(place: Place) -> None:
    """Wait until the supervisor has done what a start leaves for later."""
    for _ in range(20):
        before = process.activity(place.supervisor)
        time.sleep(1.0)
        if process.activity(place.supervisor) == before:
            return


# ---- TLS ----------------------------------------------------------------------------------------


async def _tls(place: Place) -> list[Figure]:
    """The relay, between a client that does nothing but read and a server that only sends."""
    runtime = str(place.sockets)
    relay = Relay(runtime, "127.0.0.1", (), lambda text: None)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = asyncio.create_task(asyncio.to_thread(_connect, listener.getsockname()[1]))
            accepted, _ = await asyncio.to_thread(listener.accept)
            accepted.settimeout(0)
            plain = await relay.wrap(accepted, "bench.1")
            secure = await client
        plain.setblocking(True)
        with plain, secure:
            await asyncio.to_thread(_greet, plain, secure)
            seconds = await asyncio.to_thread(_flow, plain, secure, VOLUME, 0.0)
            pid = relay._process.pid  # whose processor time is measured
            before = process.activity(pid).cpu
            volume = int(PACE * PACED_SECONDS)
            took = await asyncio.to_thread(_flow, plain, secure, volume, PACE)
            share = (process.activity(pid).cpu - before) / 1e9 / took * 100
    finally:
        relay.close()
        await relay.ended()
    return [
        timed("64 MiB through the TLS relay", [seconds], limit=VOLUME_LIMIT),
        Figure(
            what="TLS relay at 100 Mbit/s, share of a core", value=share, unit="%",
            limit=PACED_LIMIT,
        ),
    ]  # fmt: skip


def _connect(port: int) -> ssl.SSLSocket:
    context = ssl.create_default_context(
        cafile=certificates.ensure(certificates.names_for(["127.0.0.1"])).ca
    )
    context.check_hostname = False
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port)))


def _greet(plain: socket.socket, secure: ssl.SSLSocket) -> None:
    """What SPICE says before its messages, of which the relay has to find the ends."""
    able = (1 << MINI_HEADER).to_bytes(4, "little")
    wish = bytes(4) + bytes([2, 0]) + b"\1\0\0\0" + bytes(4) + (18).to_bytes(4, "little") + able
    head = MAGIC + b"\2\0\0\0\2\0\0\0"
    secure.sendall(head + len(wish).to_bytes(4, "little") + wish)
    plain.recv(1 << 10)
    reply = bytes(4 + 162) + b"\1\0\0\0" + bytes(4) + (178).to_bytes(4, "little") + able
    answer = head + len(reply).to_bytes(4, "little") + reply + bytes(4)
    plain.sendall(answer)
    _read(secure, len(answer))


def _flow(plain: socket.socket, secure: ssl.SSLSocket, volume: int, pace: float) -> float:
    """Send `volume` bytes of messages, at most `pace` bytes a second. Returns: seconds."""
    message = b"\x2a\0" + (_MESSAGE - 6).to_bytes(4, "little") + os.urandom(_MESSAGE - 6)
    count = volume // _MESSAGE
    begun = time.monotonic()

    def send() -> None:
        for number in range(count):
            plain.sendall(message)
            if pace:
                ahead = (number + 1) * _MESSAGE / pace - (time.monotonic() - begun)
                time.sleep(max(ahead, 0))

    sender = threading.Thread(target=send)
    sender.start()
    _read(secure, count * _MESSAGE)
    sender.join()
    return time.monotonic() - begun


def _read(secure: ssl.SSLSocket, size: int) -> None:
    buffer = bytearray(1 << 18)
    while size > 0:
        got = secure.recv_into(buffer, min(size, len(buffer)))
        if not got:
            raise RuntimeError("the relay hung up")
        size -= got
