"""The way from what the kernel has to what should be, as data: a tuple of steps.

Each step may be repeated, and whoever is killed between two of them begins anew. An interface
without our mark is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from qlaunch.errors import ConflictError
from qlaunch.plan.networks.model import CARD_ALIAS, NET_ALIAS, Card, Desired, Kernel, Link, Net
from qlaunch.plan.networks.names import Folders, config, dhcp_hosts, digest, hosts
from qlaunch.plan.networks.rules import rules
from qlaunch.plan.networks.sysctls import restored_sysctls, wanted_sysctls

STP_DELAY = 200  # hundredths of a second; the kernel takes no less with a spanning tree


@frozen(kw_only=True)
class Step:
    """Something to be done, for one `network` or for all; `about` says it for a person."""

    network: str = ""

    @property
    def about(self) -> str:
        raise NotImplementedError


@frozen(kw_only=True)
class SetSysctl(Step):
    """Write `value`; `before` is remembered (where it is not None) and written back in the end."""

    key: str
    value: str
    before: str | None = None

    @property
    def about(self) -> str:
        return f"set {self.key.replace('/', '.')} = {self.value}"


@frozen(kw_only=True)
class RestoreSysctl(Step):
    key: str
    value: str

    @property
    def about(self) -> str:
        return f"set {self.key.replace('/', '.')} = {self.value}, as it was before"


@frozen(kw_only=True)
class MakeBridge(Step):
    name: str
    alias: str
    mac: str
    mtu: int | None
    stp: bool

    @property
    def about(self) -> str:
        return f"make the bridge {self.name}"


@frozen(kw_only=True)
class SetBridge(Step):
    """Mend what is different: `stp` None leaves the spanning tree as it is."""

    name: str
    mac: str | None = None
    mtu: int | None = None
    stp: bool | None = None
    why: str = ""

    @property
    def about(self) -> str:
        return f"mend the bridge {self.name}: {self.why}"


@frozen(kw_only=True)
class AddAddress(Step):
    link: str
    address: str

    @property
    def about(self) -> str:
        return f"add the address {self.address} to {self.link}"


@frozen(kw_only=True)
class DropAddress(AddAddress):
    @property
    def about(self) -> str:
        return f"remove the address {self.address} from {self.link}"


@frozen(kw_only=True)
class LoadRules(Step):
    text: str = field(repr=False)
    fingerprint: str

    @property
    def about(self) -> str:
        return "load the firewall rules" if self.fingerprint else "remove the firewall rules"


@frozen(kw_only=True)
class WriteHosts(Step):
    """The files that dnsmasq reads again; `reload` tells it to."""

    files: Mapping[str, str] = field(repr=False)
    reload: bool

    @property
    def about(self) -> str:
        return f"write the names and reservations of {self.network}"


@frozen(kw_only=True)
class StartDns(Step):
    config: str = field(repr=False)
    again: bool = False

    @property
    def about(self) -> str:
        return f"{'restart' if self.again else 'start'} dnsmasq for {self.network}"


@frozen(kw_only=True)
class StopDns(Step):
    @property
    def about(self) -> str:
        return f"stop dnsmasq of {self.network}"


@frozen(kw_only=True)
class PlugCard(Step):
    """Put a TAP on its bridge, or set what is different there."""

    ifname: str
    index: int
    bridge: str
    alias: str
    mac: str
    mtu: int | None
    port: Mapping[str, int]
    stp: bool
    up: bool
    who: str

    @property
    def about(self) -> str:
        return f"plug {self.ifname} ({self.who}) into {self.bridge}"


@frozen(kw_only=True)
class RemoveBridge(Step):
    name: str

    @property
    def about(self) -> str:
        return f"remove the bridge {self.name}"


@frozen(kw_only=True)
class Forget(Step):
    """Remove what is kept in files of a network that is gone."""

    @property
    def about(self) -> str:
        return f"forget the network {self.network}"


@frozen(kw_only=True)
class RemoveTap(Step):
    """One that its user made to stay, and has closed."""

    name: str

    @property
    def about(self) -> str:
        return f"remove {self.name}, which nobody has open"


@frozen(kw_only=True)
class KeepBridge(Step):
    """Nothing is done: interfaces that are not ours hang on the bridge."""

    name: str
    ports: tuple[str, ...]

    @property
    def about(self) -> str:
        return f"keep the bridge {self.name}: {', '.join(self.ports)} on it is not ours"


def steps(desired: Desired, kernel: Kernel, folders: Mapping[str, Folders]) -> tuple[Step, ...]:
    """What has to be done, in order. `folders` are those of each network's dnsmasq.

    Raises: ConflictError when an interface of somebody else has the name of one of ours.
    """
    return tuple(_steps(desired, kernel, folders))


def _steps(desired: Desired, kernel: Kernel, folders: Mapping[str, Folders]) -> Iterator[Step]:
    managed = [net for net in desired.nets if net.managed]
    for net in managed:
        yield from _bridge(net, kernel)
    # A new bridge's own sysctls are there only now.
    yield from (
        SetSysctl(key=key, value=value, before=before)
        for key, value, before in wanted_sysctls(desired, kernel)
    )
    for net in managed:
        yield from _addresses(net, kernel)
    text, fingerprint = rules(desired)
    if kernel.rules != fingerprint:
        yield LoadRules(text=text, fingerprint=fingerprint)
    for net in managed:
        yield from _dns(net, desired, kernel, folders[net.name])
    for card in desired.cards:
        found = desired.net(card.network)
        if found is not None:
            yield from _card(card, found, kernel)
    yield from _leftovers(desired, kernel)
    yield from (
        RestoreSysctl(key=key, value=value) for key, value in restored_sysctls(desired, kernel)
    )


def _bridge(net: Net, kernel: Kernel) -> Iterator[Step]:
    link = kernel.links.get(net.bridge)
    alias = NET_ALIAS + net.name
    if link is None:
        yield MakeBridge(
            network=net.name, name=net.bridge, alias=alias, mac=net.mac, mtu=net.mtu, stp=net.stp
        )
        return
    if link.alias != alias:
        what = f"a {link.kind} of somebody else" if link.kind else "somebody else's"
        raise ConflictError(
            f"the interface {net.bridge} is there already, {what}; the network {net.name} needs it",
            hint=f'choose another name in the network\'s file: bridge = "{net.bridge[:13]}-2"',
        )
    wrong = list(_differences(net, link))
    if wrong:
        stp = net.stp if "spanning tree" in wrong else None
        yield SetBridge(
            network=net.name,
            name=net.bridge,
            mac=net.mac,
            mtu=net.mtu,
            stp=stp,
            why=", ".join(wrong),
        )


def _differences(net: Net, link: Link) -> Iterator[str]:
    if not link.up:
        yield "it is down"
    if link.mac != net.mac:
        yield "its MAC address"
    if net.mtu is not None and link.mtu != net.mtu:
        yield "its MTU"
    if link.bridge.get("stp_state") != int(net.stp):
        yield "spanning tree"


def _addresses(net: Net, kernel: Kernel) -> Iterator[Step]:
    link = kernel.links.get(net.bridge)
    have = {
        each.address
        for each in kernel.addresses
        if link is not None and each.index == link.index and not each.link_local
    }
    want = {at for at in (net.address, net.ipv6) if at}
    yield from (
        AddAddress(network=net.name, link=net.bridge, address=at) for at in sorted(want - have)
    )
    yield from (
        DropAddress(network=net.name, link=net.bridge, address=at) for at in sorted(have - want)
    )


def _dns(net: Net, desired: Desired, kernel: Kernel, folders: Folders) -> Iterator[Step]:
    running = next((each.config for each in kernel.served if each.network == net.name), None)
    if not net.serves:
        if running is not None:
            yield StopDns(network=net.name)
        return
    text = config(net, folders)
    files = {"dhcp-hosts": dhcp_hosts(net, desired), "hosts": hosts(net, desired)}
    written = kernel.hosts.get(net.name)
    good = running == digest(text)
    if written != digest("".join(files.values())):
        yield WriteHosts(network=net.name, files=files, reload=good)
    if not good:
        yield StartDns(network=net.name, config=text, again=running is not None)


def _card(card: Card, net: Net, kernel: Kernel) -> Iterator[Step]:
    link = kernel.links.get(card.ifname)
    if link is None or link.index != card.index:
        return
    bridge = kernel.links.get(net.bridge)
    hairpin = kernel.filters_bridged and bool(card.outer_forwards)
    port = {
        "isolated": int(net.apart),
        "bpdu_guard": int(card.filter != "none"),
        "hairpin": int(hairpin),
    }
    plugged = bridge is not None and link.master == bridge.index
    same = all(link.port.get(name) == value for name, value in port.items())
    if not plugged or not same or link.up != (card.link == "up") or link.alias != card.alias:
        yield PlugCard(
            network=net.name,
            ifname=card.ifname,
            index=card.index,
            bridge=net.bridge,
            alias=card.alias,
            # Never lower than the bridge's own, so that the bridge does not take it.
            mac=f"fe{card.mac[2:]}",
            mtu=net.mtu if net.managed else (bridge.mtu if bridge else None),
            port=port,
            stp=net.managed and net.stp,
            up=card.link == "up",
            who=f"{card.machine} {card.nic}",
        )


def _leftovers(desired: Desired, kernel: Kernel) -> Iterator[Step]:
    """What has our mark and is wanted by nobody."""
    wanted = {net.bridge: net.name for net in desired.nets if net.managed}
    gone = set()
    for link in kernel.links.values():
        if link.alias.startswith(CARD_ALIAS) and link.kind == "tun" and not link.carrier:
            yield RemoveTap(name=link.name)
    for name, link in kernel.net_bridges():
        if wanted.get(link.name) == name:
            continue
        ports = [
            port.name
            for port in kernel.links.values()
            if port.master == link.index and not port.alias.startswith(CARD_ALIAS)
        ]
        if name not in wanted.values():
            gone.add(name)
        if ports:
            yield KeepBridge(network=name, name=link.name, ports=tuple(sorted(ports)))
        else:
            yield RemoveBridge(network=name, name=link.name)
    gone |= {each.network for each in kernel.served if each.network not in wanted.values()}
    gone |= {name for name in kernel.hosts if name not in wanted.values()}
    for name in sorted(gone):
        if any(each.network == name for each in kernel.served):
            yield StopDns(network=name)
        yield Forget(network=name)


def without_notes(found: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps that change something."""
    return tuple(step for step in found if not isinstance(step, KeepBridge))
