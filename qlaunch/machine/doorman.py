"""Who may try to log in over the network, and how soon: failures are counted for each address.

Decides only. The gateway says who comes and what became of it; time is handed in.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

from attrs import Factory, define

# Mistakes that cost nothing; each one after them doubles the time until the next try.
FREE_FAILURES = 3
LONGEST_DELAY = 30.0
# Seconds after which an address that made no more mistakes is as good as new.
MEMORY = 600.0
# Clients of one address that have not logged in yet, and that wait until they may try. A viewer
# opens one connection and, when that is in, a dozen more.
MOST_TRYING = 32
MOST_WAITING = 16
# Addresses to remember: the oldest makes way.
MOST_ADDRESSES = 1024


@define
class _Record:
    failures: int = 0
    last: float = 0.0
    free_at: float = 0.0
    trying: int = 0
    waiting: int = 0


@define
class Doorman:
    """The book of one machine's door."""

    _records: dict[str, _Record] = Factory(dict)
    _trying: dict[str, str] = Factory(dict)

    def arrive(self, address: str, now: float) -> float | Literal["refused"]:
        """A client of `address` is at the door: the seconds it has to wait before it may try."""
        record = self._record(address, now)
        if record.trying >= MOST_TRYING or record.waiting >= MOST_WAITING:
            return "refused"
        if record.failures < FREE_FAILURES:
            return 0.0
        steps = min(record.failures - FREE_FAILURES, 16)
        delay = min(2.0**steps, LONGEST_DELAY)
        # One after the other: who opens many connections at once does not get more tries.
        record.free_at = max(record.free_at, now) + delay
        record.waiting += 1
        return record.free_at - now

    def waited(self, address: str, now: float) -> None:
        """A client that had to wait has waited, or has left."""
        record = self._record(address, now)
        record.waiting = max(record.waiting - 1, 0)

    def tries(self, address: str, client: str, now: float) -> None:
        """The client (`client` tells one connection from another) is handed to QEMU."""
        self._record(address, now).trying += 1
        self._trying[client] = address

    def logged_in(self, client: str, now: float) -> None:
        """It has logged in: its address has nothing to be held against it any more."""
        address = self._trying.pop(client, None)
        if address is not None:
            record = self._record(address, now)
            record.trying -= 1
            record.failures = 0

    def left(self, client: str, now: float) -> tuple[str, int] | None:
        """It has gone; if it never logged in, that is a failure: its address, and how many now."""
        address = self._trying.pop(client, None)
        if address is None:
            return None
        self._record(address, now).trying -= 1
        return address, self.failed(address, now)

    def failed(self, address: str, now: float) -> int:
        """Count a failure of `address`; how many it has now."""
        record = self._record(address, now)
        record.failures += 1
        record.last = now
        return record.failures

    def _record(self, address: str, now: float) -> _Record:
        name = network(address)
        record = self._records.get(name)
        if record is None:
            if len(self._records) >= MOST_ADDRESSES:
                idle = [key for key, each in self._records.items() if not each.trying]
                for key in sorted(idle, key=lambda key: self._records[key].last)[:64]:
                    del self._records[key]
            record = self._records[name] = _Record()
        elif now - record.last > MEMORY:
            record.failures = 0
        return record


def network(address: str) -> str:
    """What is counted as one: an IPv4 address, or the /64 that an IPv6 host picks its own from."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address
