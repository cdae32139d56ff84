"""Where a guest can be reached: its addresses, and from where each is known."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from qlaunch.errors import NotFoundError, QlaunchError
from qlaunch.machine.network import service_of
from qlaunch.network.client import NicState, Service
from qlaunch.plan.model import Nic, Plan
from qlaunch.qmp.agent import Agent

# The agent is asked last and may not be there.
AGENT_TIMEOUT = 2.0
# The address that QEMU's user network gives to its guest.
USER_ADDRESS = "10.0.2.15"
# From the surest on: what the network keeps for a card, what it gave out, what a cable always
# gives, what its guest says of itself, what it was seen to use, who has answered lately.
SOURCES = ("reservation", "lease", "user network", "passt", "agent", "learnt", "neighbour")
# To find out which address of ours leads outside; nothing is sent there.
_OUTSIDE = "192.0.2.1"


@frozen(kw_only=True)
class Address:
    """An address of a guest's card, and from where it is known: some of `SOURCES`."""

    address: str
    sources: tuple[str, ...]

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.address).version


@frozen(kw_only=True)
class Reach:
    """What is known of a card's addresses, the surest first. `problem` says what could not be
    asked."""

    nic: Nic
    addresses: tuple[Address, ...]
    problem: str = ""


async def reaches(plan: Plan) -> tuple[Reach, ...]:
    """Where the guest of a running machine can be reached, card by card."""
    agent = await from_agent(plan.chardev(plan.agent).path) if plan.agent else {}
    return tuple([await _reach(plan.name, nic, agent.get(nic.mac, ())) for nic in plan.nics])


async def _reach(machine: str, nic: Nic, said: Iterable[str]) -> Reach:
    found: dict[str, list[str]] = {}
    problem = ""
    if nic.attachment is not None:
        try:
            found = await from_network(machine, nic)
        except QlaunchError as error:
            problem = error.message
    elif nic.backend == "user":
        found[USER_ADDRESS] = ["user network"]
    elif nic.backend == "passt" and (own := outer_address()):
        found[own] = ["passt"]
    for address in said:
        found.setdefault(address, []).append("agent")
    known = [
        Address(address=address, sources=tuple(sorted(set(sources), key=SOURCES.index)))
        for address, sources in found.items()
    ]
    known.sort(key=lambda each: (SOURCES.index(each.sources[0]), each.version))
    return Reach(nic=nic, addresses=tuple(known), problem=problem)


def outer_address() -> str | None:
    """This computer's own IPv4 address towards the outside, which passt gives to its guest."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect((_OUTSIDE, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None


async def dial(machine: str, nic: Nic, port: int) -> socket.socket:
    """A connection to `port` of the guest behind the card.

    Raises: NotFoundError when no address is known, HostError with the guest's answer.
    """
    service = await service_of(nic.backend)
    state = await _state(service, machine, nic)
    known = [each for each in (state.ipv4, state.ipv6) if each]
    problem: QlaunchError | None = None
    for address in known:
        try:
            return await service.dial(state.ifname, address, port)
        except QlaunchError as error:
            problem = problem or error
    raise problem or NotFoundError(f"{machine}: no address of {nic.id} is known yet")


async def _state(service: Service, machine: str, nic: Nic) -> NicState:
    for state in await service.nics():
        if (state.machine, state.nic) == (machine, nic.id):
            return state
    raise NotFoundError(f"the network service does not know {nic.id} of {machine}")


async def from_network(machine: str, nic: Nic) -> dict[str, list[str]]:
    """Addresses that the card's network knows. Raises: HostError, NotFoundError."""
    service = await service_of(nic.backend)
    found = await service.addresses(machine, nic.id)
    return {address: list(sources) for address, sources in found.items()}


async def from_agent(path: str) -> dict[str, list[str]]:
    """Addresses by MAC address, as the guest agent at `path` says; nothing where none answers.

    What a guest says of itself is data: it can claim any address.
    """
    found: dict[str, list[str]] = {}
    agent = None
    try:
        agent = await Agent.connect(path)
        await agent.ping(timeout=AGENT_TIMEOUT)
        answer = await agent.execute("guest-network-get-interfaces", timeout=AGENT_TIMEOUT)
    except QlaunchError:
        return found
    finally:
        if agent is not None:
            await agent.close()
    for interface in answer if isinstance(answer, list) else ():
        if isinstance(interface, dict):
            mac = str(interface.get("hardware-address", "")).lower()
            found.setdefault(mac, []).extend(_addresses(interface))
    return found


def _addresses(interface: dict[str, Any]) -> list[str]:
    said = interface.get("ip-addresses")
    found = []
    for entry in said if isinstance(said, list) else ():
        text = entry.get("ip-address") if isinstance(entry, dict) else None
        try:
            address = ipaddress.ip_address(str(text).partition("%")[0])
        except ValueError:
            continue
        if not (address.is_link_local or address.is_loopback or address.is_multicast):
            found.append(str(address))
    return found
