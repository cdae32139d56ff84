"""QMP sessions against written scenes: nothing here starts a QEMU."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qlaunch.errors import CommandError, SessionLostError, TimedOutError
from qlaunch.qmp.session import Session
from tests.scene import GREETING, Script, Stage, failure_of, nothing_left, scene, session_in

# Seconds: what never comes is given up after this.
SOON = 0.05


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    async with nothing_left():
        yield


@pytest.fixture
def path(runtime_dir: Path) -> str:
    return str(runtime_dir / "qmp.sock")


# ---- connecting ---------------------------------------------------------------------------------


async def test_a_greeting_makes_a_session_that_knows_who_sent_it(path: str) -> None:
    async with session_in(path, Stage.greet) as (session, _):
        assert session.peer_pid == os.getpid()
        assert not session.lost.is_set()
        assert session.lost_reason is None


async def test_a_greeting_may_come_long_after_the_connection(path: str) -> None:
    curtain = asyncio.Event()

    async def late(stage: Stage) -> None:
        await curtain.wait()
        await stage.greet()

    async with scene(path, late), asyncio.TaskGroup() as group:
        connecting = group.create_task(Session.connect(path, name="xp", timeout=2))
        await asyncio.wait([connecting], timeout=SOON)
        assert not connecting.done()
        curtain.set()
        await (await connecting).close()


async def test_a_path_may_be_longer_than_a_socket_address(runtime_dir: Path) -> None:
    folder = runtime_dir / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    handle = os.open(folder, os.O_PATH)
    try:
        async with scene(f"/proc/self/fd/{handle}/qmp.sock", Stage.greet):
            session = await Session.connect(str(folder / "qmp.sock"), name="xp")
            await session.close()
    finally:
        os.close(handle)


async def test_nobody_at_the_path_is_a_lost_session_at_once(path: str) -> None:
    with pytest.raises(SessionLostError, match="No such file"):
        await Session.connect(path, name="xp")


async def test_a_socket_that_its_qemu_left_behind_is_a_lost_session(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with pytest.raises(SessionLostError, match="refused"):
        await Session.connect(path, name="xp")


async def test_a_full_queue_of_clients_is_a_time_out_and_not_a_wait(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with pytest.raises(TimedOutError, match="too many"):
            await Session.connect(path, name="xp")


async def test_connecting_can_be_cancelled_at_every_step(path: str) -> None:
    async def silent(stage: Stage) -> None:
        await stage.hear()

    async def without_capabilities(stage: Stage) -> None:
        await stage.say(GREETING)
        await stage.hear("qmp_capabilities")
        await stage.hear()

    async with scene(path, silent, without_capabilities):
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SOON):
                    await Session.connect(path, name="xp")


# ---- commands -----------------------------------------------------------------------------------


async def test_a_command_returns_what_qemu_returns(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        heard = await stage.answer("query-block", [{"device": "disk0"}])
        assert heard["arguments"] == {"flat": True}

    async with session_in(path, script) as (session, _):
        assert await session.execute("query-block", {"flat": True}) == [{"device": "disk0"}]


async def test_an_error_carries_the_words_of_qemu(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.hear("device_del")
        await stage.refuse("Device 'tablet' not found\x1b[31m", "DeviceNotFound")

    async with session_in(path, script) as (session, _):
        with pytest.raises(CommandError) as caught:
            await session.execute("device_del", {"id": "tablet"})
    assert caught.value.message == "Device 'tablet' not found[31m"
    assert caught.value.error_class == "DeviceNotFound"


async def test_answers_may_come_in_another_order(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        first, second = await stage.hear(), await stage.hear()
        await stage.reply(second["execute"], to=second)
        await stage.reply(first["execute"], to=first)

    async with session_in(path, script) as (session, _), asyncio.TaskGroup() as group:
        commands = ("query-name", "query-uuid")
        asked = [group.create_task(session.execute(command)) for command in commands]
        assert [await answer for answer in asked] == list(commands)


async def test_an_answer_of_300_kilobytes_comes_whole(path: str) -> None:
    schema = [{"name": "x" * 100, "meta-type": "object"}] * 2500

    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.answer("query-qmp-schema", schema)

    async with session_in(path, script) as (session, _):
        assert await session.execute("query-qmp-schema") == schema


async def test_a_late_answer_after_a_time_out_harms_nobody(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        slow = await stage.hear("blockdev-del")
        second = await stage.hear("query-status")
        await stage.reply("late", to=slow)
        await stage.reply("in time", to=second)

    async with session_in(path, script) as (session, _):
        with pytest.raises(TimedOutError, match=r"xp: QEMU did not answer blockdev-del"):
            await session.execute("blockdev-del", timeout=SOON)
        assert await session.execute("query-status") == "in time"


async def test_a_cancelled_command_leaves_the_session_as_it_was(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.greet()
        slow = await stage.hear("stop")
        await stage.reply("late", to=slow)
        await stage.answer("query-status", "fine")

    async with session_in(path, script) as (session, _), asyncio.TaskGroup() as group:
        given = group.create_task(session.execute("stop"))
        await asyncio.wait([given], timeout=0)
        given.cancel()
        await asyncio.wait([given])
        assert given.cancelled()
        assert await session.execute("query-status") == "fine"


@pytest.mark.parametrize("value", ["half \udc80", "nul \0", float("nan"), ["deep", {"\0": 1}]])
async def test_what_qemu_could_not_parse_is_refused_before_it_is_sent(
    path: str, value: object
) -> None:
    async with session_in(path, answer_all) as (session, _):
        with pytest.raises(CommandError, match="cannot be said in QMP"):
            await session.execute("getfd", {"fdname": value})
        assert await session.execute("query-status", {"harmless": "\\u0000"}) == {}


async def answer_all(stage: Stage) -> None:
    await stage.greet()
    while True:
        await stage.hear()
        await stage.reply()


# ---- the end of a connection --------------------------------------------------------------------


async def lose_before_hearing(stage: Stage) -> None:
    await stage.greet()
    stage.hang_up()


async def lose_after_hearing(stage: Stage) -> None:
    await stage.greet()
    await stage.hear("stop")
    stage.hang_up()


async def lose_after_an_event(stage: Stage) -> None:
    await stage.greet()
    await stage.hear("stop")
    await stage.event("STOP")
    stage.hang_up()


async def lose_in_the_middle_of_an_answer(stage: Stage) -> None:
    await stage.greet()
    await stage.hear("stop")
    await stage.say(b'{"return": {')
    stage.hang_up()


@pytest.mark.parametrize(
    "script",
    [
        lose_before_hearing,
        lose_after_hearing,
        lose_after_an_event,
        lose_in_the_middle_of_an_answer,
    ],
)
async def test_a_connection_lost_at_any_step_is_known_to_all_who_wait(
    path: str, script: Script
) -> None:
    called: list[str] = []
    async with scene(path, script):
        try:
            session = await Session.connect(path, name="xp")
        except SessionLostError:
            return  # gone so early that there was no session
        session.on_lost(lambda: called.append("lost"))
        with pytest.raises(SessionLostError):
            await session.execute("stop", timeout=2)
        await session.wait_lost()
        with pytest.raises(SessionLostError):
            await session.execute("query-status")
        await session.close()
    assert called == ["lost"]
    assert session.lost_reason


async def test_a_callback_for_a_loss_that_was_is_called_too(path: str) -> None:
    async with session_in(path, lose_after_hearing) as (session, _):
        with pytest.raises(SessionLostError):
            await session.execute("stop")
        called = asyncio.Event()
        session.on_lost(called.set)
        await asyncio.wait_for(called.wait(), 1)


async def test_closing_ends_waiting_commands_but_is_no_loss(path: str) -> None:
    called: list[str] = []

    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.hear("stop")
        with pytest.raises(EOFError):
            await stage.hear()

    async with session_in(path, script) as (session, _), asyncio.TaskGroup() as group:
        session.on_lost(lambda: called.append("lost"))
        given = group.create_task(failure_of(session.execute("stop")))
        await asyncio.wait([given], timeout=0)
        await session.close()
        assert "it was closed" in str(await given)
        await session.wait_lost()
        await session.close()
    assert called == []


async def test_closing_ends_also_when_qemu_reads_nothing(path: str) -> None:
    async def deaf(stage: Stage) -> None:
        await stage.greet()

    async with session_in(path, deaf) as (session, _):
        with pytest.raises(TimedOutError):
            await session.execute("qom-set", {"value": "x" * 3_000_000}, timeout=SOON)
        await asyncio.wait_for(session.close(), 1)


async def test_closing_goes_on_when_it_is_cancelled(path: str) -> None:
    async with session_in(path, Stage.greet) as (session, _), asyncio.TaskGroup() as group:
        closing = group.create_task(session.close())
        await asyncio.wait([closing], timeout=0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert session.lost.is_set()
