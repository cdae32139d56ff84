"""Clean-up that is not cut short, and waiting for the first of several."""

from __future__ import annotations

import asyncio

import pytest

from qlaunch.aio import finish, first_of

TIMEOUT = 5.0


async def after(event: asyncio.Event, done: list[str], word: str) -> str:
    await event.wait()
    done.append(word)
    return word


async def failing(event: asyncio.Event) -> None:
    await event.wait()
    raise OSError("the disk is full")


async def begun(task: asyncio.Task[object]) -> None:
    """Let `task` run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()


async def test_finish_gives_the_result() -> None:
    event, done = asyncio.Event(), list[str]()
    event.set()
    assert await finish(after(event, done, "a")) == "a"


async def test_finish_raises_what_the_work_raised() -> None:
    event = asyncio.Event()
    event.set()
    with pytest.raises(OSError, match="full"):
        await finish(failing(event))


async def test_finish_ends_its_work_before_it_is_cancelled() -> None:
    event, done = asyncio.Event(), list[str]()
    task: asyncio.Task[object] = asyncio.create_task(finish(after(event, done, "cleaned up")))
    await begun(task)
    for _ in range(3):  # a user presses Ctrl-C more than once
        task.cancel()
        await begun(task)
    event.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, TIMEOUT)
    assert done == ["cleaned up"]


async def test_finish_does_not_lose_the_error_of_cancelled_work() -> None:
    event, causes = asyncio.Event(), list[BaseException | None]()

    async def caller() -> None:
        try:
            await finish(failing(event))
        except asyncio.CancelledError as error:
            causes.append(error.__cause__)
            raise

    task: asyncio.Task[object] = asyncio.create_task(caller())
    await begun(task)
    task.cancel()
    await begun(task)
    event.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, TIMEOUT)
    assert [str(cause) for cause in causes] == ["the disk is full"]


async def test_the_first_that_is_done_wins_and_the_others_are_cancelled() -> None:
    event, never, done = asyncio.Event(), asyncio.Event(), list[str]()

    async def other() -> None:
        try:
            await never.wait()
        finally:
            done.append("cancelled")

    event.set()
    assert await first_of(other(), after(event, done, "won")) == 1
    assert done == ["won", "cancelled"]


async def test_of_several_the_lowest_is_named() -> None:
    event, done = asyncio.Event(), list[str]()
    event.set()
    assert await first_of(after(event, done, "a"), after(event, done, "b")) == 0


async def test_the_error_of_the_first_is_raised() -> None:
    event, never = asyncio.Event(), asyncio.Event()
    event.set()
    with pytest.raises(OSError, match="full"):
        await first_of(after(never, [], "x"), failing(event))


async def test_who_waits_for_the_first_can_be_cancelled_and_leaves_nothing() -> None:
    never = asyncio.Event()
    task: asyncio.Task[object] = asyncio.create_task(
        first_of(after(never, [], "a"), after(never, [], "b"))
    )
    await begun(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, TIMEOUT)
    assert asyncio.all_tasks() == {asyncio.current_task()}
