"""Background work of the supervisor: born in one TaskGroup, and one door for its bugs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import traceback
from collections.abc import Coroutine
from typing import Any

FEWEST_STARTS = 4


class Tasks:
    """A TaskGroup whose tasks cannot take their siblings down: a bug in one is written to the
    supervisor's log, and the other machines go on. `starts` is how many QEMUs may start at the
    same time: more would only make each of them late."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.starts = asyncio.Semaphore(max(FEWEST_STARTS, 2 * (os.cpu_count() or 1)))
        self._group = group
        self._born: set[asyncio.Task[Any]] = set()

    def create_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._group.create_task(guarded(work))
        self._born.add(task)
        task.add_done_callback(self._born.discard)
        return task

    def cancel_all(self) -> None:
        """End all background work."""
        for task in self._born:
            task.cancel()


async def guarded(work: Coroutine[Any, Any, Any]) -> Any:
    """Carry out `work`; None when there was a bug in it, which is then in the supervisor's log."""
    try:
        return await work
    except Exception as bug:  # noqa: BLE001 -- the supervisor's door: see CONTRIBUTING.md
        note_bug(bug)
        return None


def note_bug(bug: BaseException) -> None:
    """Write a bug to the supervisor's log, which is its standard error."""
    text = "".join(traceback.format_exception(bug))
    note(f"a bug:\n{text}")


def note(text: str) -> None:
    """Write a line to the supervisor's log."""
    with contextlib.suppress(OSError):  # a full disk must not end what the line is about
        sys.stderr.write(f"qlaunch supervisor: {text}\n")
        sys.stderr.flush()
