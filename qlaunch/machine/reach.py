"""Where a guest can be reached: its addresses, and from where each is known."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from attrs import frozen

from qlaunch.errors import NotFoundError, QlaunchError
from qlaunch.machine.network import service_of
from qlaunch.network.client import NicState, Service
from qlaunch.plan.model import Nic
from qlaunch.qmp.agent import Agent

# The agent is asked last and may not be there.
AGENT_TIMEOUT = 2.0


@frozen(kw_only=True)
class Address:
    """An address of a guest's card. `sources` are `reservation`, `lease`, `agent`, `learnt` and
    `neighbour`, the surest first."""

    address: str
    sources: tuple[str, ...]

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.address).version


async def dial(machine: str, nic: Nic, port: int) -> socket.socket:
    """A connection to `port` of the guest behind the card.

    Raises: NotFoundError when no address is known, HostError with the guest's answer.
    """
    service = await service_of(nic.backend)
    state = await _state(service, machine, nic)
    known = await _known(service, state, nic)
    problem: QlaunchError = NotFoundError(f"{machine}: no address of {nic.id} is known yet")
    for address in sorted(known, key=lambda each: ":" in each):
        try:
            return await service.dial(state.ifname, address, port)
        except QlaunchError as error:
            problem = error
    raise problem


async def _state(service: Service, machine: str, nic: Nic) -> NicState:
    for state in await service.nics():
        if (state.machine, state.nic) == (machine, nic.id):
            return state
    raise NotFoundError(f"the network service does not know {nic.id} of {machine}")


async def _known(service: Service, state: NicState, nic: Nic) -> dict[str, list[str]]:
    """Addresses that the network knows, each with its sources."""
    found: dict[str, list[str]] = {}
    for address in (state.ipv4, state.ipv6):
        if address:
            found.setdefault(address, []).append("reservation")
    for lease in await service.leases(state.network):
        if lease.mac.lower() == nic.mac:
            found.setdefault(lease.address, []).append("lease")
    return found


async def from_network(machine: str, nic: Nic) -> dict[str, list[str]]:
    """Addresses that the card's network knows. Raises: HostError, NotFoundError."""
    service = await service_of(nic.backend)
    return await _known(service, await _state(service, machine, nic), nic)


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
