"""What is measured, and how often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from attrs import frozen

from tests.bench import (
    display,
    domain,
    networks,
    page,
    process,
    stays,
    throughput,
    travel,
)
from tests.bench.bare import Floor
from tests.bench.figures import Figure, timed
from tests.bench.place import Place

Say = Callable[[str], None]
Times = list[float]

START_LIMITS = {1: 1.5, 20: 1.3, 60: 1.3}
PS_LIMIT = 3.5
PSS_LIMIT = 25.0
SETTLE = 1.0


@frozen(kw_only=True)
class Effort:
    """How many rounds of what, and for how long the idle supervisor is watched, in seconds."""

    starts: dict[int, int]
    commands: dict[int, int]
    ps: int
    idle: float
    adoptions: int
    travels: int
    kills: int
    demos: int
    networks: int
    throughputs: int


FULL = Effort(
    starts={1: 41, 20: 15, 60: 5},
    commands={1: 15, 20: 5},
    ps=40,
    idle=5.0,
    adoptions=5,
    travels=15,
    kills=200,
    demos=60,
    networks=15,
    throughputs=5,
)
QUICK = Effort(
    starts={1: 5, 20: 2},
    commands={1: 3, 20: 1},
    ps=5,
    idle=2.0,
    adoptions=1,
    travels=3,
    kills=5,
    demos=5,
    networks=3,
    throughputs=1,
)


def measure(place: Place, effort: Effort, say: Say) -> Iterator[Figure]:
    """Every figure, as soon as it is known."""
    say("ps, nothing running")
    yield from _ps(place, 0, effort)
    say("the first start of every machine makes its disk")
    most = max(effort.starts)
    place.start_supervisor()
    place.keep_supervisor()
    place.up(most)
    place.down(most)
    with Floor(place) as floor:
        for count, rounds in effort.starts.items():
            say(f"start of {count}, {rounds} rounds")
            yield from _starts(place, floor, count, rounds)
        for count, rounds in effort.commands.items():
            say(f"`qlaunch up` of {count}, {rounds} rounds")
            yield _command(place, floor, count, rounds)
    for count in (1, most):
        say(f"ps, {count} running")
        place.up(count)
        yield from _ps(place, count, effort)
        if count == most:
            say("the idle supervisor")
            yield from _idle(place, count, effort)
        place.down(count)
    for count in effort.starts:
        yield from stays.adoption(place, count, effort.adoptions, say)
    yield from stays.measure(place, effort.kills, effort.demos, say)
    yield from domain.measure(place, effort.ps, say)
    yield from travel.measure(place, effort.travels, say)
    yield from display.measure(place, effort.adoptions, say)
    yield from page.measure(place, effort.adoptions, say)
    memory = place.sockets.parent
    yield from networks.measure(memory, effort.networks, say)
    yield from throughput.measure(memory, place.folder / "cache", effort.throughputs, say)


def _starts(place: Place, floor: Floor, count: int, rounds: int) -> Iterator[Figure]:
    ours: Times = []
    theirs: Times = []
    our_stops: Times = []
    their_stops: Times = []
    busy = 0
    for at in range(rounds):
        # Who comes first changes: a computer that gets slower must not decide.
        for is_ours in (at % 2 == 0, at % 2 == 1):
            if is_ours:
                before = process.activity(place.supervisor).cpu
                ours.append(place.up(count))
                busy += process.activity(place.supervisor).cpu - before
                our_stops.append(place.down(count))
            else:
                theirs.append(floor.up(count))
                their_stops.append(floor.down())
    yield timed(f"start of {_machines(count)}", ours, theirs, START_LIMITS[count])
    spent = busy / 1e6 / rounds / count
    yield Figure(what="- the supervisor's CPU time for each of them", value=spent, unit="ms")
    yield timed(f"stop of {_machines(count)}", our_stops, their_stops)


def _command(place: Place, floor: Floor, count: int, rounds: int) -> Figure:
    ours: Times = []
    theirs: Times = []
    argv = [place.qlaunch, "up", "--paused", *place.names[:count]]
    for _ in range(rounds):
        ours.append(process.run(argv).wall)
        place.down(count)
        theirs.append(floor.up(count))
        floor.down()
    return timed(f"`qlaunch up` of {_machines(count)}, whole command", ours, theirs)


def _ps(place: Place, count: int, effort: Effort) -> Iterator[Figure]:
    ours: list[process.Run] = []
    theirs: list[process.Run] = []
    for _ in range(effort.ps):
        theirs.append(process.run([place.python, "-c", "pass"]))
        ours.append(process.run([place.qlaunch, "ps"]))
    what = f"`qlaunch ps` of {_machines(count)}"
    for kind, limit in (("cpu", PS_LIMIT), ("wall", None)):
        mine, bare = ([getattr(each, kind) for each in runs] for runs in (ours, theirs))
        yield timed(f"{what}, {'CPU' if kind == 'cpu' else 'wall'} time", mine, bare, limit)


def _idle(place: Place, count: int, effort: Effort) -> Iterator[Figure]:
    what = f"supervisor of {_machines(count)}"
    place.let_go()
    time.sleep(SETTLE)
    before = process.activity(place.supervisor)
    time.sleep(effort.idle)
    after = process.activity(place.supervisor)
    memory = process.memory(place.supervisor)
    place.keep_supervisor()
    mib = 1 << 20
    yield Figure(what=f"{what}, PSS", value=memory["Pss"] / mib, unit="MiB", limit=PSS_LIMIT)
    yield Figure(what=f"{what}, private", value=memory["Private_Dirty"] / mib, unit="MiB")
    woken = after.wakeups - before.wakeups
    yield Figure(what=f"{what}, wake-ups in {effort.idle:g} s", value=woken, limit=0)
    used = (after.cpu - before.cpu) / 1e6
    yield Figure(what=f"{what}, CPU time in {effort.idle:g} s", value=used, unit="ms", limit=0)


def _machines(count: int) -> str:
    return f"{count} machine{'' if count == 1 else 's'}"
