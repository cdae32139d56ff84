"""A bridge over a real interface: what has to be written down, and who else owns the interface."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from attrs import frozen

UPLINK_ALIAS = "qlaunch:uplink:"


@frozen(kw_only=True)
class Moved:
    """An address that moves, with what it takes to put it elsewhere."""

    address: str
    no_route: bool = False
    preferred: int | None = None
    valid: int | None = None


@frozen(kw_only=True)
class Journal:
    """How the interface was before: enough to bring all of it back. `routes` are the kernel's own
    messages, in hex; `confirmed` says that the bridge is to stay."""

    version: int = 1
    bridge: str
    uplink: str
    mac: str
    mtu: int
    addresses: tuple[Moved, ...] = ()
    routes: tuple[str, ...] = ()
    confirmed: bool = False

    @property
    def alias(self) -> str:
        """The mark on the bridge."""
        return UPLINK_ALIAS + self.uplink


# ---- whose the interface is ---------------------------------------------------------------------


def advice(owner: str, bridge: str, uplink: str, addresses: Sequence[str]) -> str:
    """What a person writes where `owner` looks after `uplink`, so that it makes the bridge."""
    four = [at for at in addresses if ipaddress.ip_interface(at).version == 4]
    kind, _, detail = owner.partition(" ")
    text = {
        "NetworkManager": _network_manager,
        "systemd-networkd": _networkd,
        "netplan": _netplan,
        "ifupdown": _ifupdown,
    }.get(kind)
    del detail
    if text is None:
        return f"{owner} asks for the address of {uplink}: end it, and have it ask for {bridge}'s\n"
    return text(bridge, uplink, four[0] if four else "")


def _network_manager(bridge: str, uplink: str, address: str) -> str:
    how = f"ipv4.method manual ipv4.addresses {address}" if address else "ipv4.method auto"
    return (
        f"nmcli connection add type bridge ifname {bridge} con-name {bridge} stp no\n"
        f"nmcli connection add type ethernet ifname {uplink} con-name {bridge}-{uplink}"
        f" master {bridge} slave-type bridge\n"
        "# its address by DHCP, or as it is now:\n"
        f"nmcli connection modify {bridge} ipv4.method auto\n"
        f"#nmcli connection modify {bridge} {how}\n"
        f"nmcli connection up {bridge}-{uplink}\n"
    )


def _networkd(bridge: str, uplink: str, address: str) -> str:
    static = f"#Address={address}\n" if address else ""
    return (
        f"# /etc/systemd/network/10-{bridge}.netdev\n[NetDev]\nName={bridge}\nKind=bridge\n\n"
        f"# /etc/systemd/network/10-{uplink}.network\n[Match]\nName={uplink}\n[Network]\n"
        f"Bridge={bridge}\n\n"
        f"# /etc/systemd/network/10-{bridge}.network\n[Match]\nName={bridge}\n[Network]\nDHCP=yes\n"
        f"{static}\n# then: networkctl reload\n"
    )


def _netplan(bridge: str, uplink: str, address: str) -> str:
    static = f"      #addresses: [{address}]\n" if address else ""
    return (
        f"# /etc/netplan/60-{bridge}.yaml; then: netplan try\n"
        f"network:\n  version: 2\n  ethernets:\n    {uplink}: {{dhcp4: false, dhcp6: false}}\n"
        f"  bridges:\n    {bridge}:\n      interfaces: [{uplink}]\n      dhcp4: true\n{static}"
    )


def _ifupdown(bridge: str, uplink: str, address: str) -> str:
    static = f"#iface {bridge} inet static\n#    address {address}\n" if address else ""
    return (
        f"# /etc/network/interfaces (with the package bridge-utils); then: ifup {bridge}\n"
        f"iface {uplink} inet manual\nauto {bridge}\niface {bridge} inet dhcp\n{static}"
        f"    bridge_ports {uplink}\n    bridge_stp off\n"
    )
