"""One request on the control socket: its arguments, checked, and its way back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define

from qlaunch.control import words
from qlaunch.errors import NotFoundError, UsageError
from qlaunch.store import machines, paths
from qlaunch.supervisor.actor import Actor

if TYPE_CHECKING:
    from qlaunch.supervisor.server import Server

# Seconds; what is longer is a mistake.
LONGEST_TIME = 1e9


@define(kw_only=True, eq=False)
class Request:
    """One request under way. `last` makes the supervisor end after its answer, and with `anew`
    begin again in place."""

    server: Server
    args: Mapping[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    last: bool = False
    anew: bool = False

    def text(self, key: str) -> str:
        """A text among the arguments. Raises: UsageError."""
        value = self.optional_text(key)
        if value is None:
            raise UsageError(f"the request lacks {key!r}")
        return value

    def optional_text(self, key: str) -> str | None:
        """A text among the arguments; None when it is empty or not there. Raises: UsageError."""
        value = self.args.get(key)
        if value is None or value == "":
            return None
        return _checked_text(key, value)

    def texts(self, key: str) -> list[str]:
        """A list of texts among the arguments, empty when not there. Raises: UsageError."""
        value = self.args.get(key) or []
        if not isinstance(value, list):
            raise UsageError(f"{key!r} is not a list of texts")
        return [_checked_text(key, item) for item in value]

    def seconds(self, key: str) -> float | None:
        """A time limit among the arguments. Raises: UsageError."""
        value = self.args.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 <= value <= LONGEST_TIME:
            raise UsageError(f"{key!r} is not a number of seconds")
        return float(value)

    def flag(self, key: str) -> bool:
        """A yes or no among the arguments, no when not there. Raises: UsageError."""
        value = self.args.get(key)
        if value not in (None, True, False):
            raise UsageError(f"{key!r} is neither true nor false")
        return bool(value)

    def environment(self) -> dict[str, str]:
        value = self.args.get("env") or {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise UsageError("'env' is not a table of texts")
        return value

    async def actor(self) -> Actor:
        """The machine that the request names. Raises: NotFoundError when it does not run."""
        name = paths.check_name(self.text("name"))
        if name not in self.server.actors and name in machines.running_names():
            await self.server.adopt_strays()
        actor = self.server.actors.get(name)
        if actor is None:
            raise not_running(name)
        return actor

    def tell(self, step: str, text: str, seconds: float, *, machine: str = "") -> None:
        """Send a progress line."""
        line = {
            "machine": machine or self.args.get("name"),
            "step": step,
            "text": text,
            "seconds": round(seconds, 3),
        }
        if not self.writer.is_closing():
            self.writer.write(words.encode({"progress": line}))


def _checked_text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{key!r} is not a text")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise UsageError(f"{key!r} is no text that this computer can hold") from None
    if "\0" in value:
        raise UsageError(f"{key!r} contains a NUL")
    return value


def not_running(name: str) -> NotFoundError:
    if name in machines.names() or name in paths.profile_names():
        return NotFoundError(f"{name} is not running", hint=f"`qlaunch up {name}` starts it")
    return NotFoundError(f"there is no machine {name!r}", hint="`qlaunch list` shows the profiles")
