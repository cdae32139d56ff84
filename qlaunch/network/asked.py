"""What requests of the network service say: every word checked before anybody acts on it."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from qlaunch import records
from qlaunch.errors import UsageError
from qlaunch.network import tap, wire
from qlaunch.plan.forwards import Forward, canonical
from qlaunch.plan.model import Attachment
from qlaunch.plan.networks.model import Card
from qlaunch.profile.fields import MAC_ADDRESS
from qlaunch.profile.network import NETWORK_NAME

_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}")
_NIC = re.compile(r"[a-z][a-z0-9_-]{0,19}")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def card(uid: int, message: wire.Message) -> tuple[Card, Attachment]:
    """The card that `message` describes, every word of it checked. Raises: UsageError."""
    machine, nic = who(message)
    try:
        wanted = records.from_plain(Attachment, message.get("attachment"))
    except records.RecordError as error:
        raise UsageError(f"the card cannot be read: {error}") from None
    match("network", wanted.network, NETWORK_NAME)
    match("mac", wanted.mac, MAC_ADDRESS["pattern"])
    if wanted.hostname:
        match("hostname", wanted.hostname, _HOST_NAME.pattern)
    if not 0 < wanted.queues <= tap.MAX_QUEUES:
        raise UsageError(f"queues are 1 to {tap.MAX_QUEUES}")
    for word, version in ((wanted.ipv4, 4), (wanted.ipv6, 6)):
        if word is not None:
            check_address(word, version)
    return (
        Card(
            user=uid,
            machine=machine,
            nic=nic,
            network=wanted.network,
            mac=wanted.mac.lower(),
            ifname="",
            ipv4=wanted.ipv4,
            ipv6=wanted.ipv6,
            filter=wanted.filter,
            forwards=forwards(list(wanted.forwards)),
            hostname=wanted.hostname,
        ),
        wanted,
    )


def check_address(text: str, version: int) -> None:
    try:
        good = ipaddress.ip_address(text).version == version
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"{text[:60]!r} is no IPv{version} address")


def forwards(texts: object) -> tuple[str, ...]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError("forwards are a list of texts")
    if len(texts) > 256:
        raise UsageError("at most 256 forwards")
    try:
        found = canonical(texts)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if any(Forward.parse(text).target for text in found):
        raise UsageError("the forwards of a card lead to its guest, they name no other")
    return found


def who(message: wire.Message) -> tuple[str, str]:
    return text(message, "machine", _MACHINE.pattern), text(message, "nic", _NIC.pattern)


def text(message: wire.Message, word: str, pattern: str) -> str:
    value: Any = message.get(word)
    if not isinstance(value, str):
        raise UsageError(f"{word} is a text")
    return match(word, value, pattern)


def match(word: str, value: str, pattern: str) -> str:
    if not re.fullmatch(pattern, value):
        raise UsageError(f"{word}: {value[:60]!r} cannot be")
    return value


def one_of(word: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{word} is one of {', '.join(known)}")
