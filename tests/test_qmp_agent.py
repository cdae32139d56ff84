"""The guest agent's client against written agents, most of them hostile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from qlaunch.errors import QlaunchError, TimedOutError
from qlaunch.qmp.agent import Agent, AgentError
from qlaunch.qmp.hostile import DEEPEST_REPLY, NonsenseError, read_object
from qlaunch.qmp.printable import printable
from tests.scene import Script, Stage, nothing_left, scene

# Seconds: what never comes is given up after this.
SOON = 0.05


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    async with nothing_left():
        yield


@pytest.fixture
def path(runtime_dir: Path) -> str:
    return str(runtime_dir / "agent.sock")


@asynccontextmanager
async def agent_in(path: str, script: Script) -> AsyncIterator[Agent]:
    async with scene(path, script):
        agent = await Agent.connect(path)
        try:
            yield agent
        finally:
            await agent.close()


async def answer(stage: Stage, command: str, words: bytes = b'{"return": {}}') -> dict[str, Any]:
    heard = await stage.hear(command)
    await stage.say(words + b"\n")
    return heard


# ---- an honest agent ----------------------------------------------------------------------------


async def test_a_command_returns_what_the_agent_returns(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.synchronize()
        await answer(stage, "guest-ping")
        heard = await answer(stage, "guest-get-osinfo", b'{"return": {"id": "debian"}}')
        assert heard["arguments"] == {"x": 1}

    async with agent_in(path, script) as agent:
        await agent.ping()
        assert await agent.execute("guest-get-osinfo", {"x": 1}) == {"id": "debian"}


async def test_what_the_agent_refuses_comes_in_its_words_made_printable(path: str) -> None:
    error = b'{"error": {"class": "CommandNotFound", "desc": "no\\u001b[2J\\nsuch thing"}}'

    async def script(stage: Stage) -> None:
        await stage.synchronize()
        await answer(stage, "guest-fstrim", error)
        await answer(stage, "guest-ping")

    async with agent_in(path, script) as agent:
        with pytest.raises(AgentError, match=r"refused guest-fstrim: no\[2J such thing") as caught:
            await agent.execute("guest-fstrim")
        assert caught.value.error_class == "CommandNotFound"
        await agent.ping()


async def test_an_agent_that_is_not_there_is_a_time_out_and_may_come_later(path: str) -> None:
    async def script(stage: Stage) -> None:
        stale = await stage.hear("guest-sync-delimited")
        # Started only now, the agent answers all that is in the pipe.
        fresh = await stage.hear("guest-sync-delimited")
        assert fresh["arguments"]["id"] > stale["arguments"]["id"]
        for heard in (stale, fresh):
            await stage.say(b'\xff{"return": %d}\n' % heard["arguments"]["id"])
        await answer(stage, "guest-ping")

    async with agent_in(path, script) as agent:
        with pytest.raises(TimedOutError, match=r"did not answer guest-ping within 0\.05 s"):
            await agent.ping(SOON)
        await agent.ping()


async def test_a_late_answer_is_not_taken_for_the_next_one(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.synchronize()
        await stage.hear("guest-get-time")
        number = (await stage.hear("guest-sync-delimited"))["arguments"]["id"]
        await stage.say(b'{"return": "late"}\n\xff{"return": %d}\n' % number)
        await answer(stage, "guest-get-host-name", b'{"return": {"host-name": "xp"}}')

    async with agent_in(path, script) as agent:
        with pytest.raises(TimedOutError):
            await agent.execute("guest-get-time", timeout=SOON)
        assert await agent.execute("guest-get-host-name") == {"host-name": "xp"}


async def test_a_cancelled_call_leaves_the_agent_usable(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.synchronize()
        await stage.hear("guest-get-time")
        await stage.synchronize()
        await answer(stage, "guest-ping")

    async with agent_in(path, script) as agent:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON):
                await agent.execute("guest-get-time")
        await agent.ping()


async def test_calls_take_turns(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.synchronize()
        for number in range(3):
            await answer(stage, f"guest-{number}", b'{"return": %d}' % number)

    async with agent_in(path, script) as agent, asyncio.TaskGroup() as group:
        calls = [group.create_task(agent.execute(f"guest-{number}")) for number in range(3)]
        assert [await call for call in calls] == [0, 1, 2]


async def test_a_shutdown_needs_no_answer(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlaunch.qmp.agent.REFUSAL_TIMEOUT", SOON)

    async def script(stage: Stage) -> None:
        await stage.synchronize()
        assert (await stage.hear("guest-shutdown"))["arguments"] == {"mode": "reboot"}
        await stage.synchronize()
        await answer(stage, "guest-ping")

    async with agent_in(path, script) as agent:
        await agent.shutdown(mode="reboot")
        await agent.ping()


async def test_a_shutdown_that_ends_qemu_is_a_shutdown(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.synchronize()
        await stage.hear("guest-shutdown")
        stage.hang_up()

    async with agent_in(path, script) as agent:
        await agent.shutdown()


async def test_a_shutdown_that_is_refused_says_so(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.synchronize()
        await answer(stage, "guest-shutdown", b'{"error": {"desc": "disabled"}}')

    async with agent_in(path, script) as agent:
        with pytest.raises(AgentError, match="disabled"):
            await agent.shutdown()


async def test_a_closed_agent_answers_at_once(path: str) -> None:
    async with agent_in(path, synchronizes(b"")) as agent:
        await agent.close()
        await agent.close()
        with pytest.raises(AgentError, match="ended"):
            await agent.ping()


async def test_closing_ends_a_call_under_way(path: str) -> None:
    async def ping(agent: Agent) -> str:
        with pytest.raises(AgentError) as caught:
            await agent.ping()
        return caught.value.message

    async with agent_in(path, synchronizes(b"")) as agent, asyncio.TaskGroup() as group:
        pinging = group.create_task(ping(agent))
        await asyncio.wait([pinging], timeout=SOON)
        await agent.close()
        assert "ended" in await pinging


async def test_nobody_at_the_path_is_an_error_at_once(path: str) -> None:
    with pytest.raises(AgentError, match="No such file"):
        await Agent.connect(path)


# ---- hostile agents -----------------------------------------------------------------------------


def flood(words: bytes, *, synchronized: bool) -> Script:
    async def script(stage: Stage) -> None:
        if synchronized:
            await stage.synchronize()
        await stage.repeat(words)

    return script


def says(words: bytes) -> Script:
    async def script(stage: Stage) -> None:
        await stage.synchronize()
        await stage.hear("guest-ping")
        await stage.say(words)

    return script


def synchronizes(words: bytes) -> Script:
    async def script(stage: Stage) -> None:
        number = (await stage.hear("guest-sync-delimited"))["arguments"]["id"]
        await stage.say(words.replace(b"ID", b"%d" % number))

    return script


def hang_up_after(commands: int) -> Script:
    async def script(stage: Stage) -> None:
        if commands:
            await stage.synchronize()
            await stage.hear()
        stage.hang_up()

    return script


HOSTILE: dict[str, Script] = {
    "says nothing": synchronizes(b""),
    "hangs up at once": hang_up_after(0),
    "hangs up when asked": hang_up_after(1),
    "never ends its line": flood(b"x", synchronized=False),
    "never ends its delimiters": flood(b"\xff", synchronized=False),
    "never ends its empty lines": flood(b"\n", synchronized=False),
    "synchronizes for ever with another id": flood(b'\xff{"return": 1}\n', synchronized=False),
    "synchronizes with another id": synchronizes(b'\xff{"return": 7}\n'),
    "synchronizes with a fraction": synchronizes(b'\xff{"return": ID.0}\n'),
    "synchronizes with text": synchronizes(b'\xff{"return": "ID"}\n'),
    "synchronizes without the delimiter": synchronizes(b'{"return": ID}\n'),
    "synchronizes deep": synchronizes(b"\xff" + b"[" * 500_000 + b"\n"),
    "never ends its answer": flood(b"x", synchronized=True),
    "answers 2 MiB": says(b'{"return": "' + b"x" * (2 << 20) + b'"}\n'),
    "answers deep": says(b'{"return": ' + b"[" * 100_000 + b"\n"),
    "answers deep and closed": says(b'{"return":' + b"[" * 9999 + b"]" * 9999 + b"}\n"),
    "answers in text": says(b"pong\n"),
    "answers a list": says(b"[]\n"),
    "answers neither way": says(b"{}\n"),
    "answers a strange error": says(b'{"error": "no"}\n'),
    "answers a long error": says(b'{"error": {"desc": "' + b"x" * 900_000 + b'"}}\n'),
    "answers in latin-1": says(b'{"return": "\xe9"}\n'),
    "answers a number of 5,000 digits": says(b'{"return": ' + b"9" * 5000 + b"}\n"),
    "answers half a line": says(b'{"return": '),
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_agent_ends_in_an_error_and_never_in_a_hang(
    path: str, script: Script
) -> None:
    memory = psutil.Process().memory_info().rss
    began = time.monotonic()
    async with agent_in(path, script) as agent:
        for _ in range(2):
            with pytest.raises(QlaunchError) as caught:
                await agent.ping(2 * SOON)
            assert type(caught.value) in (AgentError, TimedOutError)
            assert len(str(caught.value)) < 3000
    assert time.monotonic() - began < 2
    assert psutil.Process().memory_info().rss - memory < 50 << 20


async def test_an_agent_may_recover_from_its_nonsense(path: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.synchronize()
        await stage.hear("guest-ping")
        await stage.say(b"\0\1\2 half" + b"x" * (3 << 20))
        await stage.synchronize()
        await answer(stage, "guest-ping")

    async with agent_in(path, script) as agent:
        with pytest.raises(AgentError, match="more than 1 MiB"):
            await agent.ping()
        await agent.ping()


# ---- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"a": "[[[[{{{{"}',
        b'{"a": "\\"[[[["}',
        b'{"a": "\\\\", "b": []}',
        b'{"a":' * (DEEPEST_REPLY - 1) + b"[]" + b"}" * (DEEPEST_REPLY - 1),
    ],
)
def test_brackets_in_strings_are_no_depth(line: bytes) -> None:
    assert read_object(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"]",
        b'{"a": [}',
        b'{"a": "',
        b'{"a": "\\',
        b'{"a":' * 2 * DEEPEST_REPLY + b"[]" + b"}" * 2 * DEEPEST_REPLY,
        b"[]" * 500_000,
        b'"\\' * 500_000,
        b'\\"' * 500_000,
        b'{"' * 300_000,
    ],
)
def test_damaged_json_is_refused_in_no_time(line: bytes) -> None:
    began = time.monotonic()
    with pytest.raises(NonsenseError):
        read_object(line)
    assert time.monotonic() - began < 0.5


def test_printable_text_has_no_control_characters() -> None:
    assert printable("a\tb\r\nc\x1b[0m\x07\x9b\u202e\udc80é") == "a b  c[0mé"
    assert len(printable("x" * 10_000)) == 2001
    assert printable(5) == "5"
