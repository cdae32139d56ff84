"""QMP sessions against written scenes: nothing here starts a QEMU."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from qlaunch.errors import CommandError, QlaunchError, SessionLostError, TimedOutError
from qlaunch.qmp.session import Event, Session
from tests.scene import GREETING, Script, Stage, scene

# Seconds: what never comes is given up after this.
SOON = 0.05


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """No descriptor stays open, and no task's exception is left for the loop to complain about."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert not complaints
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def path(runtime_dir: Path) -> str:
    return str(runtime_dir / "qmp.sock")


@asynccontextmanager
async def session_in(path: str, *scripts: Script) -> AsyncIterator[tuple[Session, list[Stage]]]:
    async with scene(path, *scripts) as stages:
        session = await Session.connect(path, name="xp", timeout=2)
        try:
            yield session, stages
        finally:
            await session.close()


async def failure_of(work: Awaitable[object]) -> QlaunchError | None:
    """What `work` ends in, as a result: a task group would end with it."""
    try:
        await work
    except QlaunchError as error:
        return error
    return None


async def ask(path: str) -> None:
    """Connect, ask once, close; each with a short time limit."""
    session = await Session.connect(path, name="xp", timeout=4 * SOON)
    try:
        await session.execute("query-status", timeout=4 * SOON)
    finally:
        await session.close()


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
def two_files(tmp_path: Path) -> Any:
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


# ---- hostile peers ------------------------------------------------------------------------------

Sentence = Callable[[Stage], bytes]


def answered(words: Sentence) -> Script:
    async def script(stage: Stage) -> None:
        await stage.greet()
        await stage.hear("query-status")
        await stage.say(words(stage))

    return script


def opened(words: bytes) -> Script:
    async def script(stage: Stage) -> None:
        await stage.say(words)

    return script


def negotiated(words: bytes) -> Script:
    async def script(stage: Stage) -> None:
        await stage.say(GREETING)
        await stage.hear("qmp_capabilities")
        await stage.say(words)

    return script


def endless(words: bytes, *, greeted: bool) -> Script:
    async def script(stage: Stage) -> None:
        if greeted:
            await stage.greet()
        await stage.repeat(words)

    return script


def number(stage: Stage) -> bytes:
    return json.dumps(stage.heard[-1]["id"]).encode()


DEEP = b"[" * 200_000
EVENT = b'{"event": "STOP"}\n'
HOSTILE: dict[str, Script] = {
    "says nothing": opened(b""),
    "greets with text": opened(b"hello\n"),
    "greets with a list": opened(b"[]\n"),
    "greets without QMP": opened(b'{"hello": 1}\n'),
    "greets with a list as QMP": opened(b'{"QMP": []}\n'),
    "greets in latin-1": opened(b'{"QMP": "\xe9"}\n'),
    "greets deep": opened(DEEP + b"\n"),
    "greets with NULs": opened(b"\0" * 1000 + b"\n"),
    "never ends its greeting": endless(b"x", greeted=False),
    "never greets for events": endless(EVENT, greeted=False),
    "refuses to negotiate": negotiated(b'{"error": {"class": "GenericError", "desc": "no"}}\n'),
    "negotiates in text": negotiated(b"sure\n"),
    "never negotiates": negotiated(b""),
    "answers in text": answered(lambda _: b"running\n"),
    "answers another id": answered(lambda _: b'{"return": 1, "id": "other"}\n'),
    "answers with a list as id": answered(lambda _: b'{"return": 1, "id": []}\n'),
    "answers neither way": answered(lambda stage: b'{"id": %s}\n' % number(stage)),
    "answers a strange error": answered(lambda stage: b'{"error": 5, "id": %s}\n' % number(stage)),
    "answers an error without id": answered(lambda _: b'{"error": {"class": "", "desc": ""}}\n'),
    "answers deep": answered(lambda _: b'{"return": ' + DEEP + b"\n"),
    "answers a number of 5,000 digits": answered(lambda _: b'{"return": ' + b"9" * 5000 + b"}\n"),
    "answers half in UTF-8": answered(lambda _: b'{"return": "\xc3"}\n'),
    "never ends its answer": endless(b"x", greeted=True),
    "answers with events for ever": endless(EVENT, greeted=True),
    "answers with broken events for ever": endless(b'{"event": []}\n', greeted=True),
    "answers others for ever": endless(b'{"return": 1, "id": "x"}\n', greeted=True),
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_peer_ends_in_an_error_and_never_in_a_hang(
    path: str, script: Script
) -> None:
    memory = psutil.Process().memory_info().rss
    began = time.monotonic()
    async with scene(path, script):
        with pytest.raises((SessionLostError, TimedOutError)) as caught:
            await ask(path)
    assert len(str(caught.value)) < 300
    assert time.monotonic() - began < 2
    assert psutil.Process().memory_info().rss - memory < 100 << 20
