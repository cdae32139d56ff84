"""Which switches of the kernel a network needs, one interface at a time.

The global ones stay as they are: Docker sets a policy of DROP where it finds forwarding switched
off, and a router that forwards on all interfaces is more than anybody asked for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from qlaunch.plan.networks.model import Desired, Kernel
from qlaunch.plan.networks.rules import all_forwards

ALL6 = "net/ipv6/conf/all/forwarding"


def forwarding4(link: str) -> str:
    return f"net/ipv4/conf/{link}/forwarding"


def forced6(link: str) -> str:
    return f"net/ipv6/conf/{link}/force_forwarding"


def accept_ra(link: str) -> str:
    return f"net/ipv6/conf/{link}/accept_ra"


def outside_links(kernel: Kernel, *, version: int) -> list[str]:
    """The interfaces through which packets leave for other networks: those with a gateway."""
    found = set()
    for route in kernel.routes:
        to = ipaddress.ip_network(route.to)
        link = kernel.by_index(route.link)
        if to.version == version and link is not None and (route.gateway or to.prefixlen == 0):
            found.add(link.name)
    ours = {link.name for _, link in kernel.net_bridges()}
    return sorted(found - ours - {"lo"})


def looked_at(desired: Desired, kernel: Kernel) -> Iterator[str]:
    """The switches whose values have to be known; `kernel` has its links and routes already."""
    yield from (forced6("all"), ALL6)
    for net in desired.nets:
        if net.managed:
            yield from (forwarding4(net.bridge), forced6(net.bridge), accept_ra(net.bridge))
            yield f"net/ipv6/conf/{net.bridge}/disable_ipv6"
    yield from map(forwarding4, outside_links(kernel, version=4))
    yield from map(forced6, outside_links(kernel, version=6))
    yield from map(accept_ra, kernel.links)


def wanted_sysctls(desired: Desired, kernel: Kernel) -> Iterator[tuple[str, str, str | None]]:
    """Key, value and what was there before, where it has to be written back one day."""
    passing = [net for net in desired.nets if net.managed and net.mode != "isolated"]
    # Forwards lead into isolated networks, too, and networks may be open to each other.
    inside = [net for net in desired.nets if net.managed]
    for net in inside:
        yield from _unless(kernel, accept_ra(net.bridge), "0", keep=False)
        if not net.ipv6:
            yield from _unless(kernel, f"net/ipv6/conf/{net.bridge}/disable_ipv6", "1", keep=False)
    led = {forward.version for forward in all_forwards(desired)}
    four = [net for net in inside if net.address]
    for link in [net.bridge for net in four]:
        yield from _unless(kernel, forwarding4(link), "1", keep=False)
    if any(net.address for net in passing) or 4 in led:
        for link in outside_links(kernel, version=4):
            yield from _unless(kernel, forwarding4(link), "1", keep=True)
    six = [net for net in inside if net.ipv6]
    if not six:
        return
    if forced6("all") in kernel.sysctls:
        for link in [net.bridge for net in six]:
            yield from _unless(kernel, forced6(link), "1", keep=False)
        if any(net.ipv6 for net in passing) or 6 in led:
            for link in outside_links(kernel, version=6):
                yield from _unless(kernel, forced6(link), "1", keep=True)
    elif any(net.ipv6 for net in passing) or 6 in led:
        # Kernels before 6.17: a computer that forwards listens to no router unless told to.
        for key, value in sorted(kernel.sysctls.items()):
            if key.endswith("/accept_ra") and value == "1" and "/all/" not in key:
                yield from _unless(kernel, key, "2", keep=True)
        yield from _unless(kernel, ALL6, "1", keep=True)


def _unless(
    kernel: Kernel, key: str, value: str, *, keep: bool
) -> Iterator[tuple[str, str, str | None]]:
    have = kernel.sysctls.get(key)
    if have != value:
        yield key, value, (have if keep else None)


def restored_sysctls(desired: Desired, kernel: Kernel) -> Iterator[tuple[str, str]]:
    """What was changed and is needed no longer, with the value from before."""
    if any(net.managed for net in desired.nets):
        return
    yield from kernel.changed_sysctls.items()
