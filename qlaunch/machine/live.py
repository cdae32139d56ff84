"""Images of a QEMU that runs: what it has open, as a graph, and new files handed over to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from urllib.parse import quote, unquote

from qlaunch.argv.graph import Graph, read_graph
from qlaunch.errors import CommandError, HostError
from qlaunch.qmp.session import Session

_QUIET = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def mark(path: str) -> str:
    """`path` as QEMU keeps it with a descriptor (`opaque`): ASCII, whatever bytes are in it."""
    return quote(os.fsencode(path))


def path_of(opaque: str) -> str:
    """The path that `mark` made `opaque` of."""
    return os.fsdecode(unquote(opaque, errors="surrogateescape"))


def open_file(path: str, mode: int) -> int:
    """A descriptor of the file. Raises: HostError."""
    try:
        return os.open(path, mode | _QUIET)
    except OSError as error:
        raise HostError(f"cannot open {path}: {error.strerror}") from error


async def hand_over(session: Session, path: str, *, write: bool) -> int:
    """Put descriptors of the file at `path` into a new set; its number is N in `/dev/fdset/N`.

    What is written also gets a read-only descriptor: QEMU reopens a layer for reading once an
    overlay is on it, and finds only what is in the set.

    Raises: HostError when it cannot be opened, CommandError, SessionLostError, TimedOutError.
    """
    number: int | None = None
    for mode in (os.O_RDWR, os.O_RDONLY) if write else (os.O_RDONLY,):
        descriptor = open_file(path, mode)
        try:
            number = await session.add_fd(descriptor, fdset=number, opaque=mark(path))
        finally:
            os.close(descriptor)
    assert number is not None
    return number


async def take_back(session: Session, number: int) -> None:
    """Have QEMU close a set that no node uses any more; one that is gone is as good."""
    try:
        await session.remove_fd(number)
    except CommandError:
        return


async def sets(session: Session) -> dict[int, str]:
    """Which file each descriptor set of QEMU is of."""
    found: dict[int, str] = {}
    for entry in await session.execute("query-fdsets"):
        opaque = next((fd["opaque"] for fd in entry["fds"] if fd.get("opaque")), None)
        if opaque is not None:
            found[entry["fdset-id"]] = path_of(opaque)
    return found


async def read(session: Session, disks: Iterable[str]) -> Graph:
    """The block graph of a running QEMU that has the disks of these ids.

    Raises: CommandError, SessionLostError, TimedOutError.
    """
    # Each answer waits until the guest lets QEMU's main loop have a turn (1 ms while it writes);
    # asked together, they share the wait.
    stats, nodes, known = await asyncio.gather(
        session.execute("query-blockstats"),
        session.execute("query-named-block-nodes", {"flat": True}),
        sets(session),
    )
    return read_graph(disks, stats, nodes, known)
