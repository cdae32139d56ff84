"""Who listens on a TCP port of this computer."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator

from attrs import frozen

from qlaunch.host.procfs import socket_holder
from qlaunch.host.users import user_name

_LISTENING = "0A"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@frozen
class _Listener:
    address: _Address
    port: int
    uid: int
    inode: int


def port_holder(port: int, host: str = "0.0.0.0") -> str | None:
    """Who listens on `port` so that `host` cannot: `Xvnc (pid 812)`; None when nobody does.

    Another user's process is named by its user only, unless root asks.
    """
    try:
        wanted: _Address | None = _plain(ipaddress.ip_address(host))
    except ValueError:
        wanted = None
    for listener in _listeners():
        if listener.port == port and (wanted is None or _overlap(wanted, listener.address)):
            holder = socket_holder(listener.inode)
            if holder is not None:
                return holder.in_brackets
            return f"a process of the user {user_name(listener.uid)}"
    return None


def ports_in_use(addresses: list[tuple[str, int]]) -> dict[str, str]:
    """Of these (host, port), the taken ones, as `tcp/port` -> who has it."""
    found: dict[str, str] = {}
    for host, port in addresses:
        holder = port_holder(port, host)
        if holder is not None:
            found[f"tcp/{port}"] = holder
    return found


def _overlap(one: _Address, other: _Address) -> bool:
    return one == other or _covers(one, other) or _covers(other, one)


def _covers(whole: _Address, part: _Address) -> bool:
    """Whether listening on `whole` takes the port from `part`; `::` covers IPv4 too."""
    return whole.is_unspecified and (whole.version == 6 or part.version == 4)


def _plain(address: _Address) -> _Address:
    """IPv4 as it is reached through a socket for both kinds becomes plain IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _listeners() -> Iterator[_Listener]:
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        try:
            with open(path, encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 9 and words[3] == _LISTENING:
                address, _colon, port = words[1].partition(":")
                yield _Listener(
                    _address(address, family), int(port, 16), int(words[7]), int(words[9])
                )


def _address(text: str, family: int) -> _Address:
    # Each 32-bit word is printed as the number that this processor reads from the network's bytes.
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(packed)
    return _plain(ipaddress.IPv6Address(packed))
