"""Events and file descriptors of a QMP session, against written scenes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from qlaunch.errors import SessionLostError, TimedOutError
from qlaunch.qmp.session import Event
from tests.scene import GREETING, Stage, failure_of, nothing_left, session_in

# Seconds: what never comes is given up after this.
SOON = 0.05


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    async with nothing_left():
        yield


@pytest.fixture
def path(runtime_dir: Path) -> str:
    return str(runtime_dir / "qmp.sock")


async def lose_after_an_event(stage: Stage) -> None:
    await stage.greet()
    await stage.hear("stop")
    await stage.event("STOP")
    stage.hang_up()


# ---- events -------------------------------------------------------------------------------------


async def test_an_event_has_a_name_data_and_a_time(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.hear("stop")
        await stage.event("STOP")
        await stage.reply()
        await stage.say({"event": "RTC_CHANGE", "data": {"offset": 3}})
        await stage.say({"event": "RESUME", "timestamp": {"seconds": -1, "microseconds": -1}})

    async with session_in(path, script) as (session, _):
        with session.expect() as events:
            await session.execute("stop")
            assert await events.get(timeout=1) == Event("STOP", {}, 1_700_000_000.25)
            assert await events.get(timeout=1) == Event("RTC_CHANGE", {"offset": 3}, 0.0)
            assert await events.get(timeout=1) == Event("RESUME", {}, 0.0)


async def test_events_before_the_greeting_and_before_the_first_callback_are_kept(
    path: str,
) -> None:
    async def script(stage: Stage) -> None:
        await stage.event("SHUTDOWN")
        await stage.say(GREETING)
        await stage.hear("qmp_capabilities")
        await stage.event("STOP")
        await stage.reply()
        await stage.event("RESET")
        await stage.answer("query-status")
        await stage.hear("cont")
        await stage.event("RESUME")
        await stage.reply()

    seen: list[str] = []
    async with session_in(path, script) as (session, _):
        await session.execute("query-status")
        session.on_event(lambda event: seen.append(event.name))
        await session.execute("cont")
    assert seen == ["SHUTDOWN", "STOP", "RESET", "RESUME"]


async def test_a_callback_that_fails_does_not_end_the_session(path: str) -> None:
    seen: list[str] = []
    complaints: list[str] = []

    def broken(event: Event) -> None:
        raise ValueError(event.name)

    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.hear("stop")
        await stage.event("STOP")
        await stage.reply()
        await stage.answer("query-status", "fine")

    async with session_in(path, script) as (session, _):
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context["exception"])))
        session.on_event(broken)
        session.on_event(lambda event: seen.append(event.name))
        await session.execute("stop")
        assert await session.execute("query-status") == "fine"
        loop.set_exception_handler(handler)
    assert (seen, complaints) == (["STOP"], ["STOP"])


async def test_an_event_that_comes_before_the_answer_is_not_missed(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.hear("system_powerdown")
        await stage.event("POWERDOWN")
        await stage.event("SHUTDOWN", {"guest": True})
        await stage.reply()

    async with session_in(path, script) as (session, _):
        with session.expect("SHUTDOWN", "RESET") as events:
            await session.execute("system_powerdown")
            assert (await events.get(timeout=1)).data == {"guest": True}


async def test_an_expectation_can_ask_for_data(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.hear("device_del")
        await stage.reply()
        for device in ("disk1", "disk0"):
            await stage.event("DEVICE_DELETED", {"device": device, "path": f"/{device}"})

    async with session_in(path, script) as (session, _):
        with session.expect("DEVICE_DELETED", match={"device": "disk0"}) as events:
            await session.execute("device_del", {"id": "disk0"})
            assert (await events.get(timeout=1)).data["path"] == "/disk0"


async def test_an_event_that_never_comes_has_a_time_limit(path: str) -> None:
    async with session_in(path, Stage.greet) as (session, _):
        with (
            session.expect("SHUTDOWN", "RESET") as events,
            pytest.raises(TimedOutError, match=r"SHUTDOWN or RESET within 0\.05 s"),
        ):
            await events.get(timeout=SOON)


async def test_an_expectation_hands_out_what_came_and_then_knows_of_the_loss(path: str) -> None:
    async with session_in(path, lose_after_an_event) as (session, _):
        with session.expect("STOP") as events:
            with pytest.raises(SessionLostError):
                await session.execute("stop")
            assert (await events.get(timeout=1)).name == "STOP"
            with pytest.raises(SessionLostError):
                await events.get(timeout=1)


async def test_a_loss_wakes_who_waits_for_an_event(path: str) -> None:
    curtain = asyncio.Event()

    async def script(stage: Stage) -> None:
        await stage.greet()
        await curtain.wait()
        stage.hang_up()

    async with session_in(path, script) as (session, _):
        with session.expect("SHUTDOWN") as events:
            asyncio.get_running_loop().call_soon(curtain.set)
            with pytest.raises(SessionLostError, match="QEMU closed the connection"):
                await events.get(timeout=5)


# ---- descriptors --------------------------------------------------------------------------------


def inode(descriptor: int | None) -> int:
    assert descriptor is not None
    return os.fstat(descriptor).st_ino


@pytest.fixture
def two_files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    with (tmp_path / "a").open("wb") as first, (tmp_path / "b").open("wb") as second:
        yield first.fileno(), second.fileno()


async def test_a_descriptor_goes_with_its_command(path: str, two_files: tuple[int, int]) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        assert (await stage.hear("getfd"))["arguments"] == {"fdname": "mem"}
        assert inode(stage.descriptor) == inode(two_files[0])
        stage.forget_descriptor()
        await stage.reply()
        heard = await stage.answer("add-fd", {"fdset-id": 7, "fd": 12})
        assert heard["arguments"] == {"fdset-id": 7, "opaque": "disk0"}
        assert inode(stage.descriptor) == inode(two_files[1])
        await stage.answer("remove-fd")

    async with session_in(path, script) as (session, _):
        await session.send_fd(two_files[0], "mem")
        assert await session.add_fd(two_files[1], fdset=7, opaque="disk0") == 7
        await session.remove_fd(7)


async def test_two_senders_take_turns(path: str, two_files: tuple[int, int]) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        for name, file in zip("ab", two_files, strict=True):
            assert (await stage.hear("getfd"))["arguments"] == {"fdname": name}
            assert inode(stage.descriptor) == inode(file)
            stage.forget_descriptor()
            await stage.reply()

    async with session_in(path, script) as (session, _), asyncio.TaskGroup() as group:
        for name, file in zip("ab", two_files, strict=True):
            group.create_task(session.send_fd(file, name))


async def test_a_sender_that_gave_up_keeps_its_descriptor_apart_from_the_next(
    path: str, two_files: tuple[int, int]
) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        given_up = await stage.hear("getfd")
        in_between = await stage.hear("query-version")
        assert inode(stage.descriptor) == inode(two_files[0])
        stage.forget_descriptor()
        await stage.reply(to=given_up)
        await stage.reply(to=in_between)
        assert (await stage.hear("getfd"))["arguments"] == {"fdname": "b"}
        assert inode(stage.descriptor) == inode(two_files[1])
        await stage.reply()

    async with session_in(path, script) as (session, _):
        with pytest.raises(TimedOutError):
            await session.send_fd(two_files[0], "a", timeout=SOON)
        await session.send_fd(two_files[1], "b")


async def test_a_descriptor_waits_until_the_command_before_it_is_out(
    path: str, two_files: tuple[int, int]
) -> None:
    curtain = asyncio.Event()
    long = {"value": "x" * 2_000_000}

    async def script(stage: Stage) -> None:
        await stage.greet()
        await curtain.wait()
        assert (await stage.answer("qom-set"))["arguments"] == long
        await stage.answer("getfd")

    async with session_in(path, script) as (session, _), asyncio.TaskGroup() as group:
        group.create_task(session.execute("qom-set", long))
        sending = group.create_task(session.send_fd(two_files[0], "a"))
        await asyncio.wait([sending], timeout=SOON)
        assert not sending.done()
        curtain.set()


async def test_a_loss_ends_who_waits_to_send_a_descriptor(
    path: str, two_files: tuple[int, int]
) -> None:
    async def deaf(stage: Stage) -> None:
        await stage.greet()

    async with session_in(path, deaf) as (session, _), asyncio.TaskGroup() as group:
        with pytest.raises(TimedOutError):
            await session.execute("qom-set", {"value": "x" * 2_000_000}, timeout=SOON)
        sending = group.create_task(failure_of(session.send_fd(two_files[0], "a")))
        await asyncio.wait([sending], timeout=SOON)
        assert not sending.done()
        await session.close()
        assert isinstance(await sending, SessionLostError)
