"""A network: every table and key of `networks/NAME.toml`, declared once.

`None` (or an empty tuple) means "not said"; only `plan.networks` gives it a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import field, frozen

from qlaunch.profile import fields as key

NETWORK_SCHEMA = 1
MODES = ("nat", "routed", "isolated", "open", "bridge", "uplink")
# Modes of which qlaunch makes the bridge, its address and its DHCP.
MANAGED = ("nat", "routed", "isolated", "open")
NETWORK_NAME, NETWORK_NAME_WORDS = key.NETWORK_NAME, key.NETWORK_NAME_WORDS
AUTO, NONE = "auto", "none"

_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_ADDRESS = r"(\[[0-9a-fA-F:.]+\]|[0-9.]+)"
NETWORK_FORWARD = rf"((tcp|udp):)?({_ADDRESS}:)?{_PORT}:{_ADDRESS}:{_PORT}"
_HOST_NAME = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_INTERFACE: dict[str, Any] = {
    "pattern": r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}",
    "pattern_words": "the name of an interface: at most 15 letters, digits and _.-",
}


@frozen(kw_only=True)
class Dhcp:
    """Addresses for guests: DHCP, and router advertisements where there is IPv6."""

    enabled: bool | None = key.boolean(
        "Give addresses to guests.", otherwise="true where the network has an address"
    )
    range: str | None = key.text(
        "First and last IPv4 address that guests may get.",
        example="192.168.150.2-192.168.150.199",
        otherwise="the whole subnet",
        pattern=r"[0-9.]{7,15} ?- ?[0-9.]{7,15}",
        pattern_words="two addresses with a - between them",
    )
    lease: float | None = key.duration(
        "How long a guest may keep an address without asking again.",
        example="12h",
        otherwise="1h",
        least=120,
        most=30 * 86400,
    )


@frozen(kw_only=True)
class Dns:
    """Names: guests find each other by name, and this computer finds them."""

    enabled: bool | None = key.boolean("Answer names.", otherwise="true")
    domain: str | None = key.text(
        "What comes after the names of guests: `xp.vm`.",
        example="vm",
        otherwise="`vm`",
        pattern=rf"{_HOST_NAME}(\.{_HOST_NAME}){{0,5}}",
        pattern_words="a domain, such as 'vm' or 'lab.example.org'",
    )
    forward: bool | None = key.boolean(
        "Ask the resolvers of this computer for all other names.",
        otherwise="true; false where `mode` is `isolated`",
    )
    servers: tuple[str, ...] = key.words(
        "Resolvers to ask instead of those of this computer.",
        example='["192.0.2.53"]',
        pattern=r"[0-9a-fA-F.:]{2,45}",
        pattern_words="an IP address",
    )
    names: tuple[str, ...] = key.words(
        "More names, as NAME=ADDRESS.",
        example='["printer=192.168.150.9"]',
        pattern=rf"{_HOST_NAME}(\.{_HOST_NAME}){{0,5}}=[0-9a-fA-F.:]{{2,45}}",
        pattern_words="a name and an address, such as 'printer=192.168.150.9'",
    )


@frozen(kw_only=True)
class Isolation:
    """What guests of this network can reach besides the outside."""

    guests: bool | None = key.boolean(
        "Keep the guests of this network from each other, too.", otherwise="false"
    )
    allow: tuple[str, ...] = key.words(
        "Other networks of qlaunch that guests of this one may reach.",
        example='["lab"]',
        pattern=NETWORK_NAME,
        pattern_words="the name of a network",
    )
    host: str | None = key.choice(
        "What of this computer guests can reach: all, only DHCP, names and ping, or nothing"
        " (addresses are given all the same).",
        "full",
        "services",
        "none",
        otherwise="`full`",
    )


@frozen(kw_only=True)
class Reservation:
    """An address that is kept for a MAC address, whether qlaunch knows its machine or not."""

    id: str = key.ident("Its name, which it can be found by, too.")
    mac: str | None = key.text(
        "MAC address.", required=True, example="52:54:00:12:34:56", **key.MAC_ADDRESS
    )
    ipv4: str | None = key.text(
        "IPv4 address.",
        example="192.168.150.10",
        otherwise="chosen by the MAC address",
        pattern=r"[0-9.]{7,15}",
        pattern_words="an IPv4 address",
    )
    ipv6: str | None = key.text(
        "IPv6 address, for guests that ask by DHCPv6.",
        example="fd00:150::10",
        otherwise="none",
        pattern=r"[0-9a-fA-F:.]{2,45}",
        pattern_words="an IPv6 address",
    )


@frozen(kw_only=True)
class Network:
    """A network as its user wishes it."""

    TABLES: ClassVar[tuple[str, ...]] = ("dhcp", "dns", "isolation")
    ARRAYS: ClassVar[tuple[str, ...]] = ("reservation",)

    schema: int = key.version("Version of this format: `schema = 1`.", NETWORK_SCHEMA)
    title: str | None = key.text("A line for people, shown in lists.", example="The lab")
    mode: str | None = key.choice(
        "How guests reach the outside: `nat` behind this computer's address, `routed` with their"
        " own addresses, `isolated` not at all, `open` with no rule of ours; `bridge` is a bridge"
        " that somebody else made, `uplink` one that qlaunch makes of an interface.",
        *MODES,
        otherwise="`nat`",
    )
    bridge: str | None = key.text(
        "The bridge's name.",
        example="ql-lab",
        otherwise="`ql-NAME`; must be said where `mode` is `bridge` or `uplink`",
        **_INTERFACE,
    )
    uplink: str | None = key.text(
        "The interface that becomes part of the bridge, where `mode` is `uplink`.",
        example="eth0",
        **_INTERFACE,
    )
    autostart: bool | None = key.boolean(
        "Make the network as soon as the service runs, not when the first guest needs it.",
        otherwise="false",
    )
    address: str | None = key.text(
        "This computer's IPv4 address in the network. `auto` takes the first free /24 and keeps"
        " it; `none` is no IPv4.",
        example="192.168.150.1/24",
        otherwise="`auto` where qlaunch makes the network",
        pattern=r"auto|none|[0-9.]{7,15}/[0-9]{1,2}",
        pattern_words="'auto', 'none', or an address such as '192.168.150.1/24'",
    )
    ipv6: str | None = key.text(
        "This computer's IPv6 address in the network. `auto` makes a private prefix (ULA) of its"
        " own; `none` is no IPv6.",
        example="fd00:150::1/64",
        otherwise="`auto` where qlaunch makes the network",
        pattern=r"auto|none|[0-9a-fA-F:.]{2,45}/[0-9]{1,3}",
        pattern_words="'auto', 'none', or an address such as 'fd00:150::1/64'",
    )
    mtu: int | None = key.integer(
        "Largest packet.", 576, 65521, example="9000", otherwise="1500; with IPv6 at least 1280"
    )
    stp: bool | None = key.boolean(
        "Spanning tree: a loop of bridges does not bring the network down.", otherwise="true"
    )
    forward: tuple[str, ...] = key.words(
        "Ports of this computer that lead to an address in the network:"
        " `[tcp:|udp:][ADDRESS:]PORT:GUESTADDRESS:GUESTPORT`.",
        example='["8080:192.168.150.10:80"]',
        pattern=NETWORK_FORWARD,
        pattern_words="a forward such as '8080:192.168.150.10:80', ports 1 to 65535",
    )
    dhcp: Dhcp = key.table(Dhcp, "Addresses for guests.")
    dns: Dns = key.table(Dns, "Names.")
    isolation: Isolation = key.table(Isolation, "What guests can reach.")
    reservation: tuple[Reservation, ...] = key.tables(Reservation, "Kept addresses.")
    name: str = field(default="", kw_only=True)
    # Where each key is said, as in a profile.
    origins: Mapping[str, str] = field(factory=dict, eq=False, repr=False)
    file: str = field(default="", eq=False)

    def where(self, name: str) -> str:
        """`FILE:LINE: KEY` of a key called `dhcp.range`, or of the nearest table above it."""
        at = name
        while at and at not in self.origins:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        place = self.origins.get(at) or self.file or "network"
        return f"{place}: {name}" if name else place
