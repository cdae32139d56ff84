"""What networks cost: a real bridge, dnsmasq and nftables in namespaces; only root can."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from attrs import evolve

from qlaunch.network import wire
from qlaunch.network.client import Attached
from qlaunch.network.files import Places
from qlaunch.network.service import Networks
from qlaunch.plan.model import Attachment
from tests.bench.figures import Figure, timed
from tests.netlab import Lab

Say = Callable[[str], None]
MANY = 50
RECONCILE_LIMIT, UP_LIMIT, ATTACH_LIMIT, MANY_LIMIT = 10.0, 150.0, 30.0, 100.0
_NETWORK = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "fd00:150::1/64"\n'


def measure(memory: Path, rounds: int, say: Say) -> Iterator[Figure]:
    """Every figure, as soon as it is known. Files are in the folder `memory`, as those in /run."""
    if os.getuid() != 0 or not all(map(shutil.which, ("dnsmasq", "nft", "busybox"))):
        say("networks are measured by root, with dnsmasq and nftables: left out")
        return
    # A folder that others may enter: dnsmasq is nobody.
    with (
        tempfile.TemporaryDirectory(prefix="ql-net-", dir=memory) as name,
        Lab.opened(Path(name)) as lab,
    ):
        lab.network("lab", _NETWORK)
        say(f"a network up and down, {rounds} rounds")
        yield from _up(lab, rounds)
        say(f"a card plugged in, {rounds} rounds; then {MANY} of them")
        yield from _cards(lab, rounds)


def _up(lab: Lab, rounds: int) -> Iterator[Figure]:
    places = Places(
        run=str(lab.place / "run"),
        lib=str(lab.place / "lib"),
        networks=(str(lab.place / "networks"),),
        user="nobody",
    )
    ups, downs, idle = [], [], []
    # In this process and thread, which is in the laboratory's namespace meanwhile.
    with lab.host.inside(), contextlib.closing(Networks(places, "bench")) as networks:
        for _ in range(rounds):
            ups.append(_time(lambda: networks.bring_up("lab")))
            idle += [_time(networks.reconcile) for _ in range(10)]
            downs.append(_time(lambda: networks.take_down("lab")))
    yield evolve(timed("network: NAT, up", ups), limit=UP_LIMIT)
    yield evolve(timed("network: looked at, nothing to do", idle), limit=RECONCILE_LIMIT)
    yield timed("network: down", downs)


def _cards(lab: Lab, rounds: int) -> Iterator[Figure]:
    lab.start()
    lab.up("lab")
    one = [_plugged(lab, "one") for _ in range(rounds)]
    what = "network card: plugged in, filter and address included"
    yield evolve(timed(what, one), limit=ATTACH_LIMIT)
    held: list[int] = []
    try:
        for number in range(1, MANY + 1):
            attached = _attach(lab, f"m{number}", number)
            held += [*attached.fds, *attached.vhost_fds]
        more = [_plugged(lab, "more") for _ in range(rounds)]
        yield evolve(timed(f"network card: one more beside {MANY}", more), limit=MANY_LIMIT)
        changes = []
        for number in range(rounds):
            forwards = [f"tcp:0.0.0.0:{20000 + number}:22"]
            about = {"machine": "m1", "nic": "net0", "forwards": forwards}
            changes.append(_time(partial(lab.ask, "change", **about)))
        what = f"network card: another forward beside {MANY}"
        yield evolve(timed(what, changes), limit=MANY_LIMIT)
    finally:
        wire.close_all(held)


def _plugged(lab: Lab, name: str) -> float:
    """How long it takes to plug a card in; it is gone afterwards."""
    begun = time.perf_counter()
    attached = _attach(lab, name, 0)
    took = time.perf_counter() - begun
    attached.close()
    asyncio.run(_gone(lab, name))
    return took


def _attach(lab: Lab, name: str, number: int) -> Attached:
    """Plug a card in, as a supervisor does."""
    card = Attachment(network="lab", mac=f"52:54:00:00:07:{number:02x}", hostname=name)
    return asyncio.run(lab.service.attach(name, "net0", card))


async def _gone(lab: Lab, name: str) -> None:
    """Wait until the service has forgotten the card."""
    while any(each.machine == name for each in await lab.service.nics()):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def _time(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
