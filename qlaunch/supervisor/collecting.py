"""Merging and removing layers that nobody needs any more: in the background, machine by machine.

A collector goes on when the client that began it hangs up, and the machine's next supervisor takes
it up again. It holds the machine only at the beginning and at the end of each merge.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import Factory, define, evolve

from qlaunch.aio import finish
from qlaunch.errors import BusyError, CommandError, QlaunchError
from qlaunch.host.image_facts import image_contents
from qlaunch.machine import internal
from qlaunch.machine import merge as merging
from qlaunch.machine.bench import Bench, path_of, telling
from qlaunch.machine.garbage import find_steps, still_owned
from qlaunch.machine.unused import drop_unused_nodes
from qlaunch.store import files
from qlaunch.supervisor import leftovers
from qlaunch.supervisor.benches import bench_of
from qlaunch.tree.garbage import Keep, Unlink, after
from qlaunch.tree.model import Merge

if TYPE_CHECKING:
    from qlaunch.supervisor.server import Server


_LATER = "an internal snapshot in it can be removed when the machine is stopped"


@define(eq=False)
class Collector:
    """The background work on one machine's layers. Sizes in bytes, `limit` in bytes a second."""

    server: Server
    name: str
    limit: int = 0
    doing: str = "looking what is to be done"
    live: bool = False
    done: int = 0
    total: int = 0
    begun: float = Factory(time.monotonic)
    merged: int = 0
    removed: int = 0
    freed: int = 0
    kept: list[Keep] = Factory(list)
    tellers: list[Callable[[str, str, float], None]] = Factory(list)
    task: asyncio.Task[Any] | None = None
    error: QlaunchError | None = None
    cancelled: bool = False
    _teller: Callable[[int, int], None] | None = None

    def words(self) -> str:
        """What it does, and how far it is."""
        part = f", {100 * self.done // self.total} %" if self.total else ""
        return f"{self.doing}{part}"

    def row(self) -> dict[str, Any]:
        """The collector as `jobs` shows it."""
        return {
            "id": merging.JOB, "what": self.doing, "done": self.done, "total": self.total,
            "limit": self.limit, "seconds": round(time.monotonic() - self.begun, 1),
        }  # fmt: skip

    async def cancel(self) -> None:
        """End it where it is; nothing is lost. Returns when it has ended."""
        self.cancelled = True
        if self.task is not None:
            if not self.live:
                self.task.cancel()
            else:
                await self._cancel_job()
            await asyncio.wait({self.task})

    async def _cancel_job(self) -> None:
        actor = self.server.actors.get(self.name)
        if actor is not None and actor.machine is not None:
            try:
                await actor.session().execute("job-cancel", {"id": merging.JOB})
            except CommandError:
                return

    async def run(self) -> None:
        """Work until nothing is left to be done; what goes wrong is in `error`."""
        try:
            while not self.cancelled and await self._one():
                pass
            if self.cancelled:
                self.error = BusyError("cancelled; nothing is lost")
        except QlaunchError as error:
            self.error = error
        except asyncio.CancelledError:
            self.error = BusyError("cancelled; nothing is lost")
            if not self.cancelled:
                raise

    async def _one(self) -> bool:
        """Do the next step. Returns: whether there was one."""
        async with bench_of(self.server, self.name, "merging", self._tell) as bench:
            if await self._finish_merged(bench):
                return True
            waiting = await internal.clear(bench)
            found = await asyncio.to_thread(find_steps, bench)
            self.kept = [Keep(path, _LATER) for path in waiting]
            self.kept += [step for step in found if isinstance(step, Keep)]
            step = next((each for each in found if not isinstance(each, Keep)), None)
            if step is None:
                await self._leave_tidy(bench)
                return False
            if isinstance(step, Unlink):
                await finish(self._unlink(bench, step))
                return True
            self._name(bench, step)
            if not merging.is_live(bench, step):
                self.live = False
                await merging.offline(bench, step, bench.qemu_img, self._progress)
                await finish(self._conclude(bench, step))
                return True
            self.live = True
            if await merging.job(bench.session) is None:
                await merging.begin(bench, step, speed=self.limit)
            session = bench.session
        # The machine is free meanwhile: it may be paused, stopped, looked at.
        ready, error = await merging.watch(session, self._progress)
        await self._until_free()
        async with bench_of(self.server, self.name, "merging", self._tell) as bench:
            if ready and not self.cancelled:
                await merging.pivot(bench, step)
                await bench.look()
            merging.check_done(bench, step, error)
            await finish(self._conclude(bench, step))
        return True

    async def _leave_tidy(self, bench: Bench) -> None:
        await leftovers.sweep(bench.name)
        owned = await asyncio.to_thread(still_owned, bench)
        tidy = evolve(bench.timeline, owned=owned, merges=(), due=False)
        if tidy != bench.timeline:
            await bench.save(tidy)

    async def _finish_merged(self, bench: Bench) -> bool:
        """Conclude a merge that QEMU did while nobody looked. Returns: whether there was one."""
        for step in bench.timeline.merges:
            live = bench.graph is not None and step.disk in bench.graph.chains
            if live and merging.is_done(bench, step):
                await finish(self._conclude(bench, step))
                return True
        return False

    async def _until_free(self) -> None:
        actor = self.server.actors.get(self.name)
        while actor is not None and actor.operation is not None:
            await actor.operation.done.wait()

    def _name(self, bench: Bench, step: Merge) -> None:
        self.doing = f"merging {step.ghost} and {step.child} ({step.disk})"
        self.done = self.total = 0
        self._teller = None
        self.begun = time.monotonic()

    async def _conclude(self, bench: Bench, step: Merge) -> None:
        """Both layers show the same now: whoever meant the one that goes gets the other."""
        bench.step("merge: done")
        if step.way == "push":
            gone = path_of(bench.disk(step.disk), step.child)
            await self._move_children(bench, step, gone)
        await bench.save(after(bench.timeline, step))
        bench.step("merge: noted as done")
        if bench.machine is not None:
            await bench.go_on()  # a pivot that was cut off has left the guest stopped
            await drop_unused_nodes(bench)
            await bench.note_layers()
        self.merged += 1

    async def _move_children(self, bench: Bench, step: Merge, gone: str) -> None:
        found = await asyncio.to_thread(_standing_on, gone)
        live = {
            layer.path for chain in (bench.graph.chains.values() if bench.graph else ())
            for layer in chain
        }  # fmt: skip
        others = [path for path in found if path not in live]
        await merging.adopt_children(bench, step, others, bench.qemu_img)

    async def _unlink(self, bench: Bench, step: Unlink) -> None:
        path = path_of(bench.disk(step.disk), step.layer)
        if bench.graph is not None:
            await drop_unused_nodes(bench)
        await self._remove(path)
        bench.step("collect: unlinked")
        await bench.save(after(bench.timeline, step))
        self.removed += 1

    async def _remove(self, path: str) -> None:
        self.freed += image_contents(path).allocated or 0
        await asyncio.to_thread(files.remove, path)

    # ---- telling --------------------------------------------------------------------------------

    def _progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self._teller is None:
            self._teller = telling(self._tell, "merge")
        self._teller(done, total)

    def _tell(self, name: str, text: str, seconds: float) -> None:
        for tell in self.tellers:
            tell(name, text, seconds)


def _standing_on(path: str) -> list[str]:
    """The images beside `path` that stand on it."""
    from qlaunch.host.below import stands_on

    folder = os.path.dirname(path)
    with os.scandir(folder) as entries:
        listed = [entry.path for entry in entries if entry.is_file()]
    return sorted(each for each in listed if path in map(os.path.normpath, stands_on(each)))
