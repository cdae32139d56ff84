"""Merging two layers of which nobody needs the one for itself: live by a job of QEMU, or offline.

Either way, and at every moment of it, the child shows what it showed before: `pull` gives it what
it lacks, `push` writes into the layer below what the child hides there anyway. So it may be cut off
anywhere and begun again. The one step that needs care is a push of the active layer: QEMU then goes
on with the lower one, and the heads must say so, on the disk, before the guest writes again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from qlaunch.aio import finish
from qlaunch.argv import graph
from qlaunch.errors import BusyError, CommandError, TimedOutError
from qlaunch.host.image_facts import image_contents
from qlaunch.host.image_rights import rights
from qlaunch.host.tool import failure, percentages, run_tool
from qlaunch.machine import live
from qlaunch.machine.bench import Bench, backing_name, path_of
from qlaunch.plan.model import Layer
from qlaunch.qmp.session import Session
from qlaunch.tree.model import Merge

JOB = "qlaunch-merge"
STOP_TIMEOUT = 30.0
# The last writes of a job that is ready, with the guest stopped.
PIVOT_TIMEOUT = 60.0
OFFLINE_TIMEOUT = 24 * 3600.0
_POLL, _POLL_MOST = 0.01, 0.25

_ENDS = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")
EVENT_TIMEOUT = 0.1
# What a job that waits is told.
_NEXT = {"ready": "job-complete", "pending": "job-finalize", "concluded": "job-dismiss"}

Progress = Callable[[int, int], None]


def noted(bench: Bench, merge: Merge) -> tuple[Merge, ...]:
    """The merges under way with `merge` among them, as it is now."""
    others = (each for each in bench.timeline.merges if (each.ghost, each.child) != _pair(merge))
    return (*others, merge)


def _pair(merge: Merge) -> tuple[str, str]:
    return merge.ghost, merge.child


def is_live(bench: Bench, merge: Merge) -> bool:
    """Whether the running QEMU has the child open."""
    disk = bench.disk(merge.disk)
    return bench.graph is not None and bench.graph.has_path(path_of(disk, merge.child))


# ---- by a job of QEMU ---------------------------------------------------------------------------


async def begin(bench: Bench, merge: Merge, *, speed: int = 0) -> None:
    """Start the job, at most `speed` bytes a second (0: as fast as it goes).

    Raises: CommandError, HostError.
    """
    disk = bench.disk(merge.disk)
    chain = _chain(bench, merge)
    child, ghost, base, above = chain
    await bench.save(evolve(bench.timeline, merges=noted(bench, merge)))
    bench.step("merge: noted")
    if merge.way == "pull":
        name = backing_name(child.path, base.path) if base else None
        command = graph.stream(JOB, child, base, name=name)
    else:
        name = backing_name(above.path, ghost.path) if above else None
        command = graph.commit(JOB, disk.id, child, ghost, name=name)
    arguments = {**command.arguments, "speed": speed}
    await bench.execute([graph.Command(command.name, arguments)])
    bench.step("merge: begun")


def _chain(bench: Bench, merge: Merge) -> tuple[Layer, Layer, Layer | None, Layer | None]:
    """Child, ghost, what is below the ghost, and what is above the child.

    Raises: CommandError when QEMU has them in another order.
    """
    disk = bench.disk(merge.disk)
    assert bench.graph is not None
    chain = bench.graph.chains[disk.id]
    paths = [layer.path for layer in chain]
    at = paths.index(path_of(disk, merge.child))
    if paths[at + 1 : at + 2] != [path_of(disk, merge.ghost)]:
        raise CommandError(f"{bench.name}: {merge.child} does not stand on {merge.ghost} in QEMU")
    base = chain[at + 2] if at + 2 < len(chain) else None
    return chain[at], chain[at + 1], base, chain[at - 1] if at else None


async def job(session: Session) -> dict[str, Any] | None:
    """The merge's job in QEMU, None when there is none."""
    jobs: list[dict[str, Any]] = await session.execute("query-jobs")
    return next((each for each in jobs if each["id"] == JOB), None)


async def watch(session: Session, progress: Progress) -> tuple[bool, str | None]:
    """Wait until the job is ready (a push of the active layer) or gone.

    Returns: whether it is ready, and what went wrong with one that is gone, as far as that is
    known: the graph says whether it has done its work. Raises: SessionLostError.
    """
    pause = _POLL
    with session.expect(*_ENDS, match={"device": JOB}) as ends:
        while (found := await job(session)) is not None:
            progress(found["current-progress"], found["total-progress"])
            if found["status"] in ("ready", "pending", "concluded"):
                return True, found.get("error")
            await asyncio.sleep(pause)
            pause = min(_POLL_MOST, pause * 1.5)
        try:
            end = await ends.get(timeout=EVENT_TIMEOUT)
        except TimedOutError:
            return False, None
    if end.name == "BLOCK_JOB_CANCELLED":
        return False, "it was cancelled"
    return False, str(end.data["error"]) if "error" in end.data else None


def check_done(bench: Bench, merge: Merge, error: str | None) -> None:
    """Nothing, when QEMU's graph is without the layer that goes.

    Raises: BusyError when the merge was cancelled, CommandError when it failed.
    """
    if is_done(bench, merge):
        return
    if error == "it was cancelled":
        raise BusyError(
            f"{bench.name}: the merge was cancelled; nothing is lost",
            hint="the next `qlaunch snapshot delete` or `prune` goes on with it",
        )
    raise CommandError(
        f"{bench.name}: the merge failed: {error or 'QEMU does not say why'}",
        hint="nothing is lost; `qlaunch logs` may say more",
    )


def is_done(bench: Bench, merge: Merge) -> bool:
    """Whether QEMU is without the layer that goes."""
    disk = bench.disk(merge.disk)
    goes, stays = merge.ghost, merge.child
    if merge.way == "push":
        goes, stays = stays, goes
    assert bench.graph is not None
    paths = [layer.path for layer in bench.graph.chains[disk.id]]
    return path_of(disk, goes) not in paths and path_of(disk, stays) in paths


async def pivot(bench: Bench, merge: Merge) -> None:
    """The job is ready: let the machine go on with the lower layer.

    Ready, stop, complete, gone, heads on the disk, cont: in any other order a kill could bring back
    the child, which the guest has left behind by then.

    Raises: CommandError; the machine goes on where it was then.
    """
    assert bench.machine is not None
    go = bench.timeline.resume or await bench.machine.run_state() == "running"
    await bench.save(evolve(bench.timeline, merges=noted(bench, merge), resume=go))
    bench.step("pivot: noted")
    await finish(_pivot(bench, merge))


async def _pivot(bench: Bench, merge: Merge) -> None:
    session = bench.session
    await session.execute("stop", timeout=STOP_TIMEOUT)
    bench.step("pivot: stopped")
    try:
        async with asyncio.timeout(PIVOT_TIMEOUT):
            await _complete(session)
        bench.step("pivot: complete")
        await bench.look()
        disk = bench.disk(merge.disk)
        if bench.active(disk).path == path_of(disk, merge.ghost):
            heads = {**bench.timeline.heads, merge.disk: merge.ghost}
            await bench.save(evolve(bench.timeline, heads=heads))
        bench.step("pivot: heads")
    except TimeoutError:
        await session.execute("job-cancel", {"id": JOB})
        raise TimedOutError(f"{bench.name}: the merge did not end in {PIVOT_TIMEOUT:g} s") from None
    finally:
        await bench.go_on()


async def _complete(session: Session) -> None:
    """From ready to gone, whatever of it was done before."""
    asked: set[str] = set()
    while (found := await job(session)) is not None:
        command = _NEXT.get(str(found["status"]))
        if command is not None and command not in asked:
            asked.add(command)
            await session.execute(command, {"id": JOB})
        await asyncio.sleep(_POLL / 10)


# ---- by qemu-img --------------------------------------------------------------------------------


async def offline(bench: Bench, merge: Merge, qemu_img: str, progress: Progress) -> None:
    """Merge two layers that no QEMU has open. A cancellation ends it; nothing is lost by that.

    Raises: HostError with qemu-img's words.
    """
    disk = bench.disk(merge.disk)
    child, ghost = path_of(disk, merge.child), path_of(disk, merge.ghost)
    await bench.save(evolve(bench.timeline, merges=noted(bench, merge)))
    bench.step("merge: noted")
    facts = image_contents(ghost)
    if merge.way == "push":
        words = ["commit", "-p", "-d", "-f", "qcow2", "-b", _header_name(child), "--", child]
        both = [child, ghost]
        await _qemu_img(qemu_img, words, facts.allocated or 0, progress, child, write=both)
        return
    raw = bench.is_raw(disk, ghost)
    base = None if raw else facts.backing_path
    if base is None:
        words = ["rebase", "-p", "-f", "qcow2", "-b", "", "--", child]
    else:
        form = _format(bench, merge.disk, base)
        name = backing_name(child, base)
        words = ["rebase", "-p", "-f", "qcow2", "-F", form, "-b", name, "--", child]
    await _qemu_img(qemu_img, words, facts.allocated or 0, progress, child)


def _header_name(child: str) -> str:
    """How the child itself calls its backing file, which is how qemu-img finds it in the chain."""
    return image_contents(child).backing or ""


def _format(bench: Bench, ident: str, path: str) -> str:
    disk = bench.disk(ident)
    if bench.is_raw(disk, path):
        return "raw"
    return image_contents(path).format or "raw"


async def adopt_children(
    bench: Bench, merge: Merge, children: Sequence[str], qemu_img: str
) -> None:
    """Let the layers at `children` stand on the ghost: after a push it holds what the child held.

    Their content is the same before, in between and after. Raises: HostError.
    """
    disk = bench.disk(merge.disk)
    ghost = path_of(disk, merge.ghost)
    form = _format(bench, merge.disk, ghost)
    for path in children:
        name = backing_name(path, ghost)
        words = ["rebase", "-u", "-f", "qcow2", "-F", form, "-b", name, "--", path]
        await _qemu_img(qemu_img, words, 0, lambda done, total: None, path)
        await asyncio.to_thread(_sync, path)


def _sync(path: str) -> None:
    descriptor = live.open_file(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _qemu_img(
    qemu_img: str,
    words: Sequence[str],
    size: int,
    progress: Progress,
    path: str,
    *,
    write: Sequence[str] = (),
) -> None:
    def watched(percent: float) -> None:
        progress(int(size * percent / 100), size)

    output = await run_tool(
        [qemu_img, *words],
        timeout=OFFLINE_TIMEOUT,
        on_output=percentages(watched),
        confinement=rights(qemu_img, write=write or [path], below=[path]),
    )
    if output.status:
        raise failure(path, output)
    await asyncio.to_thread(_sync, path)
