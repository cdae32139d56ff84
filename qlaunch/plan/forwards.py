"""Port forwards: a port of this computer that leads to a port of a guest."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Literal, cast

from attrs import frozen

_TEXT = re.compile(
    r"(?:(?P<proto>tcp|udp):)?(?:(?:\[(?P<six>[^\]]*)\]|(?P<four>[0-9.]+)):)?"
    r"(?P<port>[0-9]{1,5}):(?:(?:\[(?P<to_six>[^\]]*)\]|(?P<to_four>[0-9.]+)):)?(?P<to>[0-9]{1,5})"
)
_RANGES = re.compile(
    r"(?P<head>(?:(?:tcp|udp):)?(?:(?:\[[^\]]*\]|[0-9.]+):)?)"
    r"(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?:(?P<to>[0-9]{1,5})(?:-(?P<to_last>[0-9]{1,5}))?"
)
# Ports that one range may have.
MOST = 256
ANY4, ANY6, LOOPBACK = "0.0.0.0", "::", "127.0.0.1"


@frozen(order=True)
class Forward:
    """`port` of this computer's `address` leads to `to_port`; `target` is the guest's address
    where a network says the forward, and empty where a network card does."""

    proto: Literal["tcp", "udp"]
    address: str
    port: int
    to_port: int
    target: str = ""

    @classmethod
    def parse(cls, text: str, default: str = LOOPBACK) -> Forward:
        """The forward that `text` says, on the address `default` unless it says one.

        Raises: ValueError in plain words.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:60]!r} is not [tcp:|udp:][ADDRESS:]PORT:GUESTPORT")
        address = _address(match["six"] or match["four"] or default, text)
        said = match["to_six"] or match["to_four"]
        target = _address(said, text) if said else ""
        if target and (":" in target) != (":" in address) and (match["six"] or match["four"]):
            raise ValueError(f"{text[:60]!r} leads from IPv{4 + 2 * (':' in address)} to the other")
        if target and ":" in target and address == ANY4:
            address = ANY6
        port, to_port = int(match["port"]), int(match["to"])
        if not (0 < port < 65536 and 0 < to_port < 65536):
            raise ValueError(f"{text[:60]!r}: ports are 1 to 65535")
        proto = cast("Literal['tcp', 'udp']", match["proto"] or "tcp")
        return cls(proto, address, port, to_port, target)

    @property
    def loopback(self) -> bool:
        """Whether only this computer itself can use it."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def version(self) -> int:
        """4 or 6, the family of its address."""
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        target = f"{_shown(self.target)}:" if self.target else ""
        return f"{self.proto}:{_shown(self.address)}:{self.port}:{target}{self.to_port}"

    def clashes(self, other: Forward) -> bool:
        """Whether the two ask for the same port."""
        same = (self.proto, self.port, self.version) == (other.proto, other.port, other.version)
        wild = {ANY4, ANY6}
        return same and bool(self.address == other.address or {self.address, other.address} & wild)


def canonical(texts: Iterable[str], default: str = LOOPBACK) -> tuple[str, ...]:
    """`texts` in the one spelling that each forward has. Raises: ValueError."""
    return tuple(str(Forward.parse(text, default)) for text in texts)


def expand(text: str, default: str = LOOPBACK) -> tuple[Forward, ...]:
    """The forwards that `text` says, in which ports may be ranges. Raises: ValueError."""
    match = _RANGES.fullmatch(text)
    if match is None:
        return (Forward.parse(text, default),)
    first, last, to = int(match["first"]), int(match["last"] or 0), int(match["to"])
    last = last or first
    to_last = int(match["to_last"] or to + last - first)
    if last < first or to_last - to != last - first:
        raise ValueError(f"{text[:60]!r}: the two ranges of ports are not of the same length")
    if last - first >= MOST:
        raise ValueError(f"{text[:60]!r}: a range has at most {MOST} ports")
    pairs = zip(range(first, last + 1), range(to, to_last + 1), strict=True)
    return tuple(Forward.parse(f"{match['head']}{port}:{goal}", default) for port, goal in pairs)


def short(each: Forward) -> str:
    """The forward as a person writes it: TCP and loopback need not be said."""
    proto = "" if each.proto == "tcp" else f"{each.proto}:"
    address = "" if each.address == LOOPBACK else f"{_shown(each.address)}:"
    return f"{proto}{address}{each.port}:{each.to_port}"


def readable(texts: Iterable[str]) -> Iterator[Forward]:
    """The forwards of `texts`, without those that are none."""
    for text in texts:
        with suppress(ValueError):
            yield from expand(text)


def _address(text: str, whole: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{whole[:60]!r}: {text!r} is no IP address") from None


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address
