"""What verbs that were cut off together with their machine have left: removed at the next start."""

from __future__ import annotations

import asyncio
import contextlib
import os

from qlaunch.errors import QlaunchError
from qlaunch.host.newfile import remove_stale_in
from qlaunch.store import files, paths
from qlaunch.store import timeline as store


async def sweep(name: str) -> None:
    """Remove half-made files of `name`, which nobody else may be working on."""
    with contextlib.suppress(QlaunchError):  # what cannot be removed keeps no machine from starting
        await asyncio.to_thread(_sweep, name)


async def remove_half_made(name: str) -> None:
    """Remove files whose makers were killed; nobody who is at work loses anything."""
    await asyncio.to_thread(remove_stale_in, paths.machine_data(name))


def _sweep(name: str) -> None:
    remove_stale_in(paths.machine_data(name))
    files.sweep(store.folder(name))
    timeline = store.load(name)
    # Without a list nothing was taken yet. One that is damaged is no list: whose the files are, a
    # person may still find out.
    if not os.path.exists(store.list_path(name) + files.DAMAGED):
        store.remove_strays(name, timeline)
