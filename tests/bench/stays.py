"""What it costs that machines outlive their supervisor, and that guests are asked to power off."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from qlaunch.control import client, words
from qlaunch.store import paths
from tests.bench.figures import Figure, timed
from tests.bench.place import ANSWER_TIMEOUT, Place, at_once

Say = Callable[[str], None]

# Milliseconds that adopting may take beyond the start of a supervisor without machines.
ADOPTION_LIMITS = {1: 150.0, 60: 300.0}
GAP_LIMIT = 500.0
DOWN_LIMIT = 3000.0
KILLED = 3
_DISK = 'size = "64MiB"\n'


def adoption(place: Place, count: int, rounds: int, say: Say) -> Iterator[Figure]:
    """How long a new supervisor takes for `count` machines, beyond its own start."""
    say(f"adoption of {count}")
    place.kill_supervisor()
    bare = []
    for _ in range(rounds):
        bare.append(place.start_supervisor())
        place.kill_supervisor()
    place.start_supervisor()
    place.keep_supervisor()
    place.up(count)
    times = []
    for _ in range(rounds):
        place.kill_supervisor()
        times.append(place.start_supervisor())
        _check(place, dict.fromkeys(place.names[:count], "prelaunch"))
    began = time.monotonic()
    _restart()
    anew = time.monotonic() - began
    _check(place, dict.fromkeys(place.names[:count], "prelaunch"))
    place.keep_supervisor()
    place.down(count)
    what = f"{count} machine{'' if count == 1 else 's'}"
    whole = timed(f"new supervisor that adopts {what}", times)
    yield whole
    beyond = max(0.0, whole.value - timed("", bare).value)
    limit = ADOPTION_LIMITS.get(count)
    yield Figure(what="- beyond its own start", value=beyond, unit="ms", limit=limit)
    yield timed(f"`supervisor restart` in place, with {what}", [anew])


def measure(place: Place, kills: int, demos: int, say: Say) -> Iterator[Figure]:
    """Kills of the supervisor, and a graceful stop of many guests that run."""
    say(f"{kills} kills of the supervisor")
    names = _demos(demos)
    _up(place, names[:KILLED])
    gaps = []
    for _ in range(kills):
        place.kill_supervisor()
        began = time.monotonic()
        place.start_supervisor()
        _check(place, dict.fromkeys(names[:KILLED], "running"))
        gaps.append(time.monotonic() - began)
    place.keep_supervisor()
    yield timed(f"{kills} kills of the supervisor, {KILLED} machines: the gap", gaps, (), GAP_LIMIT)
    yield Figure(what="- the longest of them", value=max(gaps) * 1000, unit="ms")
    say(f"graceful stop of {demos} guests")
    _up(place, names[KILLED:])
    seconds = at_once([words.request("down", {"name": name}) for name in names])
    what = f"`down` of {demos} demo guests at once"
    yield timed(what, [seconds], (), DOWN_LIMIT if demos == 60 else None)


def _restart() -> None:
    with client.open_connection(start=False) as connection:
        connection.socket.settimeout(ANSWER_TIMEOUT)
        connection.ask("supervisor", {"action": "restart"})
        connection.socket.recv(1)
    client.ask("ps", {}, start=False)


def _check(place: Place, wanted: dict[str, str]) -> None:
    listed = {row["name"]: row["state"] for row in place.ask("ps")["machines"]}
    if listed != wanted:
        raise RuntimeError(f"not all are as they were: {listed}")


def _demos(count: int) -> list[str]:
    """Profiles of the demo guest, which powers off when it is asked to."""
    folder = Path(paths.config_dir()) / "profiles"
    text = (folder / "bench00.toml").read_text(encoding="utf-8")
    names = [f"demo{at:02}" for at in range(count)]
    for name in names:
        demo = text.replace(_DISK, 'template = "@demo"\nsize = "1MiB"\n')
        (folder / f"{name}.toml").write_text(demo, encoding="utf-8")
    return names


def _up(place: Place, names: list[str]) -> None:
    """Start guests and wait until each of them listens to its power button."""
    requests = [
        {"profile": paths.find_profile(name), "set": [], "env": dict(os.environ)} for name in names
    ]
    at_once([words.request("up", request) for request in requests])
    ready = {"for": "serial:READY"}
    at_once([words.request("wait", {"name": name, **ready}) for name in names])
