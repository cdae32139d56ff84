"""QEMU's events, and waiting for one of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from attrs import field, frozen

from qlaunch.errors import SessionLostError, TimedOutError

# Events; a peer that sends more before anybody looks loses the newest.
MOST_EVENTS = 1000
_LONGEST_TIME = 1 << 53  # seconds; beyond it a float is not exact, and QEMU's clock is broken


@frozen
class Event:
    """What QEMU said happened: `seconds` is its wall clock then, 0.0 when it did not know."""

    name: str
    data: Mapping[str, object] = field(factory=dict)
    seconds: float = 0.0


def read_event(message: Mapping[str, object]) -> Event | None:
    """The event in a QMP message, or None when it makes no sense."""
    name, data = message.get("event"), message.get("data", {})
    if not isinstance(name, str) or not isinstance(data, dict):
        return None
    stamp = message.get("timestamp")
    return Event(name, data, _seconds(stamp) if isinstance(stamp, dict) else 0.0)


def _seconds(stamp: Mapping[str, object]) -> float:
    whole, micro = stamp.get("seconds"), stamp.get("microseconds", 0)
    if not isinstance(whole, int) or not isinstance(micro, int):
        return 0.0
    # QEMU says -1 for both when the host's clock fails.
    if not (0 <= whole < _LONGEST_TIME and 0 <= micro < 1_000_000):
        return 0.0
    return whole + micro / 1_000_000


class Expectation:
    """The events that a `Session.expect` block looks for, from its first line on."""

    def __init__(
        self,
        names: tuple[str, ...],
        match: Mapping[str, object] | None,
        lost: Callable[[], SessionLostError | None],
    ) -> None:
        self._names = names
        self._match = dict(match or {})
        self._lost = lost
        self._found: deque[Event] = deque()
        self._changed = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Keep `event` if it is one of those looked for."""
        if self._names and event.name not in self._names:
            return
        data = event.data
        if any(key not in data or data[key] != value for key, value in self._match.items()):
            return
        if len(self._found) < MOST_EVENTS:
            self._found.append(event)
        self._changed.set()

    def wake(self) -> None:
        """Let a waiting `get` look again: the connection is gone."""
        self._changed.set()

    async def get(self, timeout: float) -> Event:
        """The next event, in the order in which they came.

        Events that came before the connection was lost are still handed out.

        Raises: TimedOutError after `timeout` seconds, SessionLostError.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._found:
                    if (error := self._lost()) is not None:
                        raise error
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimedOutError(f"QEMU did not say {self} within {timeout:g} s") from None
        return self._found.popleft()

    def __str__(self) -> str:
        return " or ".join(self._names) or "anything"
