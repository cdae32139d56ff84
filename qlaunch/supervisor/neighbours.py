"""The supervisors of `qlaunch run`, each in the foreground for one machine: what they say of it."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from qlaunch.control import words
from qlaunch.errors import QlaunchError
from qlaunch.host.sockets import connect_unix
from qlaunch.store import paths

# One that does not answer must not keep `ps` from answering.
ANSWER_TIMEOUT = 2.0
_LONGEST_LINE = 1 << 20


async def rows() -> list[dict[str, Any]]:
    """The lines of `ps` of all machines that run in the foreground."""
    try:
        listed = os.listdir(paths.runtime_dir())
    except OSError:
        return []
    sockets = [name for name in listed if name.startswith("run-") and name.endswith(".sock")]
    answers = await asyncio.gather(*(_rows(name) for name in sockets))
    return [row for answer in answers for row in answer]


async def _rows(name: str) -> list[dict[str, Any]]:
    path = os.path.join(paths.runtime_dir(), name)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            answer = await _ask(path)
    except (QlaunchError, OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
        return []  # it ended just now, or hangs; its QEMU goes on either way
    found = answer.get("result", {}).get("machines", [])
    return [row for row in found if isinstance(row, dict)]


async def _ask(path: str) -> dict[str, Any]:
    connection = await connect_unix(path)
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LONGEST_LINE)
    try:
        writer.write(words.request("ps", {}))
        answer: dict[str, Any] = json.loads(await reader.readuntil(b"\n"))
        return answer
    finally:
        writer.close()
