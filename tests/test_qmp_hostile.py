"""QMP peers that are no QEMU, or one gone mad."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from qlaunch.errors import SessionLostError, TimedOutError
from qlaunch.qmp.session import Session
from tests.scene import GREETING, Script, Stage, nothing_left, scene

# Seconds: what never comes is given up after this.
SOON = 0.05


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    async with nothing_left():
        yield


@pytest.fixture
def path(runtime_dir: Path) -> str:
    return str(runtime_dir / "qmp.sock")


async def ask(path: str) -> None:
    """Connect, ask once, close; each with a short time limit."""
    session = await Session.connect(path, name="xp", timeout=4 * SOON)
    try:
        await session.execute("query-status", timeout=4 * SOON)
    finally:
        await session.close()


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
