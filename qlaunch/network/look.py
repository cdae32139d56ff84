"""What is now: interfaces, addresses, routes, switches, rules, dnsmasq."""

from __future__ import annotations

from attrs import evolve

from qlaunch.network import links, nft
from qlaunch.network.dnsmasq import Dnsmasq
from qlaunch.network.files import Files
from qlaunch.network.netlink import Netlink
from qlaunch.plan.networks.model import Desired, Kernel
from qlaunch.plan.networks.names import digest
from qlaunch.plan.networks.sysctls import looked_at

HOST_FILES = ("dhcp-hosts", "hosts")
SYSCTL = "/proc/sys"
_FILTERS_BRIDGED = "net/bridge/bridge-nf-call-iptables"


def look_at_links(netlink: Netlink) -> Kernel:
    """Interfaces, addresses and routes only: enough to decide about a network."""
    return Kernel(
        links=links.links(netlink),
        addresses=links.addresses(netlink),
        routes=links.routes(netlink),
    )


def look(desired: Desired, netlink: Netlink, files: Files) -> Kernel:
    """Everything that `steps` wants to know. Raises: HostError."""
    kernel = look_at_links(netlink)
    names = {*files.dns_networks(), *(net.name for net in desired.nets)}
    served = [Dnsmasq(name, files).running() for name in sorted(names)]
    written = {name: files.read_dns(name, HOST_FILES) for name in files.dns_networks()}
    return evolve(
        kernel,
        sysctls=_sysctls(desired, kernel),
        changed_sysctls=files.sysctls(),
        rules=nft.fingerprint(),
        served=tuple(each for each in served if each is not None),
        hosts={name: digest(text) if text is not None else "" for name, text in written.items()},
        filters_bridged=read_sysctl(_FILTERS_BRIDGED) == "1",
    )


def _sysctls(desired: Desired, kernel: Kernel) -> dict[str, str]:
    found = {key: read_sysctl(key) for key in {*looked_at(desired, kernel)}}
    return {key: value for key, value in found.items() if value is not None}


def read_sysctl(key: str) -> str | None:
    """The value of the switch `key`, None when this kernel has none."""
    try:
        with open(f"{SYSCTL}/{key}", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None
