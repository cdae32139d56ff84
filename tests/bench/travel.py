"""What snapshots, reverts and media cost: a guest that writes, with much and with little memory."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qlaunch.control import client
from qlaunch.demo.build import assemble
from qlaunch.host.qcow2_write import create_overlay
from qlaunch.plan.model import Plan
from qlaunch.store import machines, paths
from qlaunch.store import timeline as store
from qlaunch.tree.model import Snapshot, Timeline
from tests.bench import process
from tests.bench.figures import Figure, timed
from tests.bench.place import Place

SOURCE = Path(__file__).with_name("writer.S")
LARGE = 400
"""MiB that the large guest has written to."""

# Milliseconds: 1.3 x what `virsh snapshot-create-as --disk-only` took beside it, 48 ms.
DISKS_LIMIT = 62.4
STOPPED_LIMIT = 30.0
SMALL_REVERT_LIMIT, LARGE_REVERT_LIMIT = 150.0, 700.0
MEDIA_LIMIT = 60.0
TREE_LIMIT = 300.0
# Ratios.
STALL_LIMIT = 2.0
WRITE_LIMIT = 1.25

_PROFILE = """\
schema = 1
guest = "other"

[machine]
type = "pc"
accel = "tcg"
smm = false

[cpu]
model = "qemu64"

[memory]
size = "{memory}MiB"
balloon = false

[video]
model = "std"

[usb]
controller = "none"

[[disk]]
id = "disk0"
bus = "ide"
template = "{image}"
size = "512MiB"

[[disk]]
id = "data"
bus = "virtio"
size = "1GiB"

[[cdrom]]
id = "cd0"
bus = "ide"

[[serial]]
id = "serial0"
"""
_MIB_AT = 8
_DEEP, _NODES = 20, 200
_WRITES = 256
_WINDOW = 1.0
_TIMES = 5
ANSWER_TIMEOUT = 120.0
FIRMWARE_TIME = 3.0
"""Seconds after which the firmware has found that nothing can be booted."""


class Guest:
    """A machine of `mib` MiB and some, whose guest is `code`: a boot sector and what follows."""

    def __init__(self, place: Place, name: str, code: bytes, mib: int = 0) -> None:
        self.place, self.name = place, name
        image = place.folder / f"{name}.img"
        image.write_bytes(code.ljust(512 * 1024, b"\0"))
        text = _PROFILE.format(memory=mib + 32, image=image)
        profiles = Path(paths.config_dir()) / "profiles"
        (profiles / f"{name}.toml").write_text(text, encoding="utf-8")
        place.ask("up", profile=paths.find_profile(name), set=[], env={})

    def ask(self, verb: str, **args: Any) -> Any:
        return self.place.ask(verb, name=self.name, **args)

    def command(self, *words: str) -> float:
        """Run a whole command. Returns: its seconds."""
        verb, *rest = words
        at = 1 if verb == "snapshot" else 0
        argv = [*rest[:at], self.name, *rest[at:]]
        return process.run([self.place.qlaunch, verb, *argv, "-q"]).wall

    def prune(self) -> None:
        self.ask("snapshot-prune", keep=0)

    def end(self) -> None:
        self.ask("kill")


class Writer(Guest):
    """The guest that writes, with `mib` of memory in use."""

    def __init__(self, place: Place, mib: int) -> None:
        code = bytearray(assemble(SOURCE).ljust(_MIB_AT + 4, b"\0"))
        code[_MIB_AT : _MIB_AT + 4] = mib.to_bytes(4, "little")
        super().__init__(place, f"writer{mib}", bytes(code), mib)
        self._serial = client.open_connection(start=False)
        self._serial.ask("console", {"name": self.name})
        self._serial.socket.settimeout(ANSWER_TIMEOUT)
        self._heard = self._serial.rest()
        self._until(b"R")

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._heard:
            self._heard += self._serial.socket.recv(4096)
        found, _, self._heard = self._heard.partition(mark)
        return found

    def longest_wait(self) -> int:
        """The longest wait for a write since the last call, in 1024 cycles."""
        self._serial.socket.sendall(b"m")
        return int(self._until(b"\n")[-8:], 16)

    def end(self) -> None:
        self._serial.socket.close()
        super().end()


def measure(place: Place, rounds: int, say: Any) -> Iterator[Figure]:
    """Every figure of snapshots and media, as soon as it is known."""
    say("snapshots of a small machine")
    still = Guest(place, "still", b"")
    time.sleep(FIRMWARE_TIME)
    yield _disks_only(still, rounds)
    yield _media(place, still, rounds)
    still.end()
    small = Writer(place, 0)
    yield _reverts(small, rounds, "revert with memory, 32 MiB", SMALL_REVERT_LIMIT)
    yield from _stall(small, rounds)
    yield _writing(small)
    small.end()
    say(f"snapshots of a machine with {LARGE} MiB in use")
    large = Writer(place, LARGE)
    stopped = []
    for _ in range(rounds):
        stopped.append(large.ask("snapshot-create", snapshot="one")["stopped"])
        large.prune()
    what = f"checkpoint with {LARGE} MiB in use, the guest stands still"
    yield timed(what, stopped, limit=STOPPED_LIMIT)
    what = f"revert with memory, {LARGE} MiB in use"
    yield _reverts(large, max(3, rounds // 3), what, LARGE_REVERT_LIMIT)
    large.end()
    say(f"a tree of {_NODES}")
    yield _tree(place, rounds)


def _disks_only(guest: Guest, rounds: int) -> Figure:
    ours = []
    for _ in range(rounds):
        ours.append(guest.command("snapshot", "create", "one", "--disks-only"))
        guest.prune()
    return timed("`qlaunch snapshot create --disks-only`, whole command", ours, limit=DISKS_LIMIT)


def _stall(guest: Writer, rounds: int) -> Iterator[Figure]:
    """The longest wait for a write in a second with a snapshot, against a second in which QEMU is
    only asked how it is."""
    with_one, without = [], []
    for _ in range(rounds):
        guest.longest_wait()
        begun = time.monotonic()
        guest.ask("snapshot-create", disks_only=True)
        time.sleep(max(0, begun + _WINDOW - time.monotonic()))
        with_one.append(guest.longest_wait())
        guest.prune()
        guest.longest_wait()
        begun = time.monotonic()
        while time.monotonic() < begun + _WINDOW:
            guest.ask("qmp", command="query-status", arguments={})
        without.append(guest.longest_wait())
    yield Figure(
        what="longest wait for a write in the second of a snapshot, cycles / 1024",
        value=statistics.median(with_one),
        floor=statistics.median(without),
        limit=STALL_LIMIT,
    )


def _reverts(guest: Writer, rounds: int, what: str, limit: float) -> Figure:
    guest.ask("snapshot-create", snapshot="here")
    times = []
    for _ in range(rounds):
        times.append(guest.command("revert", "here", "--discard"))
        _settle(guest)
    guest.prune()
    return timed(f"{what}, whole command", times, limit=limit)


def _settle(guest: Writer) -> None:
    while guest.ask("jobs")["jobs"]:
        pass


def _media(place: Place, guest: Guest, rounds: int) -> Figure:
    discs = []
    for name in ("one.iso", "two.iso"):
        disc = place.folder / name
        disc.write_bytes(bytes(1 << 20))
        discs.append(str(disc))
    times = [guest.command("media", discs[at % 2]) for at in range(rounds)]
    return timed("`qlaunch media`, whole command", times, limit=MEDIA_LIMIT)


def _writing(guest: Writer) -> Figure:
    """Writing to a disk that stands on 20 layers, against one that stands on one."""

    def write(first: int) -> float:
        begun = time.monotonic()
        for at in range(first, first + _WRITES):
            line = f'qemu-io -d data-dev/virtio-backend "write -P 7 {at}m 1m"'
            answer = guest.ask("hmp", line=line)
            assert answer["text"] == "", answer
        return time.monotonic() - begun

    guest.ask("snapshot-create", disks_only=True)
    write(0)
    flat = [write(0) for _ in range(_TIMES)]
    for _ in range(_DEEP):
        guest.ask("snapshot-create", disks_only=True)
    write(0)
    deep = [write(0) for _ in range(_TIMES)]
    guest.prune()
    return timed(f"writing {_WRITES} MiB with {_DEEP} snapshots", deep, flat, limit=WRITE_LIMIT)


def _tree(place: Place, rounds: int) -> Figure:
    """A stopped machine with 200 snapshots in a row."""
    name = "writer0"
    folder = paths.machine_data(name)
    plan = machines.load_plan(name)
    assert isinstance(plan, Plan)
    names = ["disk0.qcow2", *(f"disk0.snap{n}.qcow2" for n in range(1001, 1001 + _NODES))]
    kept = Timeline(heads={"disk0": names[-1]}, owned={"disk0": tuple(names[1:])})
    for number in range(1, _NODES + 1):
        path = os.path.join(folder, names[number])
        below = names[number - 1]
        create_overlay(path, size=512 << 20, backing=below, backing_format="qcow2")
        layers = {"disk0": below}
        kept = kept.with_snapshot(Snapshot(id=number, name=f"s{number}", layers=layers))
    store.save(name, kept)
    times = [
        process.run([place.qlaunch, "snapshot", "tree", name, "--ascii"]).wall
        for _ in range(rounds)
    ]
    return timed(f"`qlaunch snapshot tree` of {_NODES}", times, limit=TREE_LIMIT)
