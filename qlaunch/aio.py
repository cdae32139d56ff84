"""Small asyncio tools that the standard library lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Spawner(Protocol):
    """Where background work is born: a TaskGroup, or what guards one."""

    def create_task(self, work: Coroutine[Any, Any, Any], /) -> asyncio.Task[Any]: ...


async def finish(work: Coroutine[object, object, T]) -> T:
    """Run `work` to its end even when the caller is cancelled meanwhile; then be cancelled.

    For clean-up that must not stop half-way. The work should have a time limit of its own.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # What the work raised comes second to the cancellation, but is not lost without a word.
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


async def first_of(*works: Coroutine[object, object, object]) -> int:
    """Run `works` side by side until one is done; the others are cancelled and waited for.

    Returns: the position of the one that was done first (the lowest if several were).
    Raises: what that one raised.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winner = next(at for at, task in enumerate(tasks) if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    tasks[winner].result()
    return winner
