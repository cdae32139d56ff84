"""How much a Linux guest under TCG carries, to this computer and back: a TAP of ours beside QEMU's
user network and passt, in one guest and in turn."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from qlaunch.network.client import SOCKET_VARIABLE
from tests import prerequisites
from tests.bench.figures import Figure
from tests.guest import image, machine
from tests.guest.machine import Guest
from tests.netlab import Lab

Say = Callable[[str], None]
SECONDS = 2
PORT = 5201
# A TAP carries 1.5 times what QEMU's user network does: it takes two thirds of the time.
LIMIT = 0.67
_PROGRAMS = ("dnsmasq", "nft", "busybox", "iperf3", "qemu-ga", "cpio")
_NETWORK = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "none"\n'
_CARD = '[[nic]]\nid = "{0}"\nmodel = "virtio"\n{1}\n'


@frozen(kw_only=True)
class Way:
    """A card of the guest, by its interface there, and this computer's address behind it."""

    name: str
    link: str
    address: str
    server: tuple[str, ...] = ()


def measure(memory: Path, cache: Path, rounds: int, say: Say) -> Iterator[Figure]:
    """Seconds for a gigabyte by each way, the user network's as the floor."""
    missing = [word for word in _PROGRAMS if not prerequisites.find_program(word)]
    if os.getuid() != 0 or missing or prerequisites.kernel() is None:
        what = f" ({', '.join(missing)} is not installed)" if missing else ""
        say(f"throughput is measured by root, with a kernel in /boot{what}: left out")
        return
    with contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="ql-net-", dir=memory)
        lab = stack.enter_context(Lab.opened(Path(stack.enter_context(folder))))
        home = stack.enter_context(machine.home(cache))
        initrd = stack.enter_context(image.extended(stack.enter_context(image.built()), "iperf3"))
        lab.network("lab", _NETWORK)
        lab.start()
        home.environment[SOCKET_VARIABLE] = lab.socket
        cards = [_CARD.format("net0", 'network = "lab"'), _CARD.format("net1", "")]
        if shutil.which("passt"):
            cards.append(_CARD.format("net2", 'backend = "passt"'))
        guest = stack.enter_context(Guest(home, initrd, "".join(cards)))
        say("a Linux guest with a card of each kind")
        guest.boot()
        yield from _ways(guest, _plugged(guest, lab), rounds, say)


def _plugged(guest: Guest, lab: Lab) -> list[Way]:
    """The guest's cards with their addresses."""
    guest.run("ip link set eth0 up; udhcpc -q -n -i eth0 -s /bin/udhcpc-script")
    guest.run("ip link set eth1 up; ip address add 10.0.2.15/24 dev eth1")
    ways = [
        Way(name="a TAP of ours", link="eth0", address="192.168.150.1",
            server=tuple(lab.host.command())),
        Way(name="QEMU's user network", link="eth1", address="10.0.2.2"),
    ]  # fmt: skip
    if guest.ask("test -d /sys/class/net/eth2")[0] == 0 and (outer := _gateway()):
        own, gateway = outer
        guest.run(f"ip link set eth2 up; ip address add {own}/32 dev eth2")
        guest.run(f"ip route add {gateway}/32 dev eth2 src {own}")
        ways.append(Way(name="passt", link="eth2", address=gateway))
    return ways


def _gateway() -> tuple[str, str] | None:
    """This computer's own address and its gateway, which passt makes of itself."""
    said = subprocess.run(
        ["ip", "-json", "-4", "route", "get", "192.0.2.1"],
        capture_output=True,
        text=True,
        check=False,
    )
    routes = json.loads(said.stdout or "[]")
    if not routes or "gateway" not in routes[0]:
        return None
    return str(routes[0]["prefsrc"]), str(routes[0]["gateway"])


def _ways(guest: Guest, ways: list[Way], rounds: int, say: Say) -> Iterator[Figure]:
    for direction, option in (("guest to host", ""), ("host to guest", "-R")):
        say(f"throughput, {direction}, {rounds} rounds")
        times: dict[str, list[float]] = {way.name: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                times[way.name].append(8000 / _rate(guest, way, option))
        floor = statistics.median(times[ways[1].name])
        for way in ways:
            yield Figure(
                what=f"{direction}, a gigabyte by {way.name}",
                value=statistics.median(times[way.name]) * 1000,
                unit="ms",
                floor=floor * 1000,
                limit=LIMIT if way is ways[0] else None,
            )


def _rate(guest: Guest, way: Way, option: str) -> float:
    """Megabits a second."""
    words = [*way.server, "iperf3", "--server", "--one-off", "--forceflush", "--port", str(PORT)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        while "listening" not in server.stdout.readline():
            pass
        try:
            command = f"iperf3 -c {way.address} -p {PORT} -t {SECONDS} -J {option}"
            said = json.loads(guest.run(command))
        finally:
            server.kill()

    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e6
