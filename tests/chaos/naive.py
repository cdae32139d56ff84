"""A supervisor that pivots in the order that loses data: for a test that the campaign finds that.

QEMU goes on with the lower image, the guest writes to it, and only then do the heads say so.
"""

from __future__ import annotations

import asyncio
import sys

from attrs import evolve

from qlaunch.machine import merge as merging
from qlaunch.machine.bench import Bench, path_of
from qlaunch.supervisor.__main__ import main
from qlaunch.tree.model import Merge

# The guest flushes every 150 ms.
WINDOW = 0.6


async def pivot(bench: Bench, merge: Merge) -> None:
    """The order of `merge._pivot` without the pause."""
    await merging._complete(bench.session)
    await asyncio.sleep(WINDOW)
    bench.step("pivot: complete")
    await bench.look()
    disk = bench.disk(merge.disk)
    if bench.active(disk).path == path_of(disk, merge.ghost):
        heads = {**bench.timeline.heads, merge.disk: merge.ghost}
        await bench.save(evolve(bench.timeline, heads=heads))
    bench.step("pivot: heads")
    await bench.go_on()


if __name__ == "__main__":
    merging._pivot = pivot
    sys.exit(main())
