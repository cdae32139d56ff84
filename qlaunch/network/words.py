"""The requests of the network service: each checked, allowed or refused, and carried out."""

from __future__ import annotations

import grp
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

from attrs import evolve, frozen

from qlaunch import records
from qlaunch.errors import (
    ConflictError,
    NotFoundError,
    QlaunchError,
    RefusedError,
    UsageError,
)
from qlaunch.host.users import user_name
from qlaunch.network import asked, nft, tap, wire
from qlaunch.network.client import Lease, NicState
from qlaunch.network.dialing import dial
from qlaunch.network.dnsmasq import Dnsmasq
from qlaunch.network.service import Networks
from qlaunch.plan.forwards import Forward
from qlaunch.plan.model import Filter
from qlaunch.plan.networks import access
from qlaunch.plan.networks.addresses import by_mac
from qlaunch.plan.networks.model import Card, Desired, Net
from qlaunch.profile.access import load_access
from qlaunch.profile.network import NETWORK_NAME

_SO_PEERGROUPS = 59
_MOST_BYTES = 1024  # more than that getsockopt of Python does not take

Answer = tuple[wire.Message, list[int]]


@frozen(kw_only=True)
class Peer:
    """Who asks, as the kernel knows it."""

    uid: int
    groups: frozenset[int] = frozenset()

    @classmethod
    def of(cls, sock: socket.socket) -> Peer:
        """The other end of `sock`, as it was when it connected."""
        plain = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, gid = struct.unpack("=3I", plain)
        try:
            groups = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
            others = list(struct.unpack(f"={len(groups) // 4}I", groups))
        except OSError:  # more of them than Python has room for: those of the group file then
            others = os.getgrouplist(user_name(uid), gid)
        return cls(uid=uid, groups=frozenset((gid, *others)))

    @property
    def name(self) -> str:
        return user_name(self.uid)


class Words:
    """Answers requests for the networks of one service, whose user is `owner`."""

    def __init__(self, networks: Networks, owner: int) -> None:
        self.networks = networks
        self.owner = owner
        self.verbs: dict[str, Callable[[Peer, wire.Message], Awaitable[Answer]]] = {
            name.removeprefix("_on_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_on_")
        }

    async def answer(self, peer: Peer, message: wire.Message) -> Answer:
        """The answer to `message`, and descriptors that are the caller's to close.

        Raises: QlaunchError.
        """
        verb = message.get("verb")
        found = self.verbs.get(verb) if isinstance(verb, str) else None
        if found is None:
            raise UsageError(f"there is no request {str(verb)[:40]!r}")
        return await found(peer, message)

    def rights(self, peer: Peer) -> access.Rights:
        """What `peer` may do. Raises: ProfileError when the allow list cannot be read."""
        if peer.uid in (0, self.owner):
            return access.EVERYTHING
        if not self.networks.places.rules:
            return access.Rights()
        return access.rights(load_access(self.networks.places.rules), peer.name, _names(peer))

    def _require(self, peer: Peer, network: str | None = None) -> access.Rights:
        rights = self.rights(peer)
        if network is not None:
            access.check_network(rights, peer.name, network)
        elif not rights.networks:
            access.check_network(rights, peer.name, "any")
        return rights

    def _require_owner(self, peer: Peer, what: str) -> None:
        if not self.rights(peer).free:
            hint = "sudo qlaunch net ..."
            raise RefusedError(f"{what} is the administrator's to do", hint=hint)

    # ---- anybody --------------------------------------------------------------------------------

    async def _on_hello(self, peer: Peer, message: wire.Message) -> Answer:
        del message
        allowed = list(self.rights(peer).networks)
        folder = self.networks.places.networks[0]
        return {"version": wire.VERSION, "allowed": allowed, "folder": folder}, []

    async def _on_networks(self, peer: Peer, message: wire.Message) -> Answer:
        del message
        rights = self._require(peer)
        states = [each for each in self.networks.states() if rights.may_use(each.name)]
        return {"networks": [records.to_plain(each) for each in states]}, []

    async def _on_nics(self, peer: Peer, message: wire.Message) -> Answer:
        del message
        rights = self._require(peer)
        nets = self.networks.files.wanted()
        cards = [c for c in self.networks.cards() if rights.free or c.user == peer.uid]
        seen = self.networks.seen() if cards else {}
        states = [evolve(_nic(c, nets.get(c.network)), seen=seen.get(c.mac, ())) for c in cards]
        return {"nics": [records.to_plain(state) for state in states]}, []

    async def _on_leases(self, peer: Peer, message: wire.Message) -> Answer:
        name = asked.text(message, "network", NETWORK_NAME) if message.get("network") else None
        rights = self._require(peer, name)
        if name is not None:
            self.networks.wish(name)
        names = [name] if name else self.networks.files.wanted()
        cards = {(c.network, c.mac): c for c in self.networks.cards()}
        found = []
        for each in names:
            if rights.may_use(each):
                leases = Dnsmasq(each, self.networks.files).leases()
                found += [_known(lease, cards.get((each, lease.mac))) for lease in leases]
        return {"leases": [records.to_plain(each) for each in found]}, []

    async def _on_addresses(self, peer: Peer, message: wire.Message) -> Answer:
        """The addresses of a card, and where each is known from; a guest may claim what it likes
        where it has no filter."""
        machine, nic = asked.who(message)
        card = self.networks.find(self._whose(peer), machine, nic)
        known = self._known(card)
        plain = [{"address": each, "sources": sources} for each, sources in known.items()]
        return {"addresses": plain}, []

    def _known(self, card: Card) -> dict[str, list[str]]:
        """The addresses of the card's guest, each with its sources, the surest first."""
        state = _nic(card, self.networks.files.wanted().get(card.network))
        leases = Dnsmasq(card.network, self.networks.files).leases()
        found: dict[str, list[str]] = {}
        for source, addresses in (
            ("reservation", [at for at in (state.ipv4, state.ipv6) if at]),
            ("lease", [each.address for each in leases if each.mac == card.mac]),
            ("learnt", nft.learnt(card.ifname, card.mac)),
            ("neighbour", self.networks.seen().get(card.mac, ())),
        ):
            for address in addresses:
                found.setdefault(address, []).append(source)
        return found

    # ---- cards ----------------------------------------------------------------------------------

    async def _on_attach(self, peer: Peer, message: wire.Message) -> Answer:
        card, wanted = asked.card(peer.uid, message)
        rights = self._require(peer, wanted.network)
        with self.networks.locked():
            have = self.networks.cards()
            net = self.networks.files.wanted().get(wanted.network)
            net = net or self.networks.decided(wanted.network)
            mine = sum(other.user == peer.uid for other in have)
            forwards = [Forward.parse(text) for text in card.forwards]
            access.check_all(rights, peer.name, net, wanted, forwards, mine)
            if any((o.user, o.machine, o.nic) == (card.user, card.machine, card.nic) for o in have):
                raise ConflictError(f"{card.machine} has {card.nic} plugged in already")
            queues = wanted.queues
            card, net, fds = self.networks.plug(card, queues, offload=wanted.offload)
        try:
            vhost = tap.open_vhost(queues) if wanted.offload else []
        except QlaunchError:
            tap.close(fds)
            raise
        nic = _nic(card, net)
        answer = {
            "queues": queues,
            "ifname": card.ifname,
            "ipv4": nic.ipv4,
            "ipv6": nic.ipv6,
            "gateway": net.gateway,
            "mtu": net.mtu or 1500,
            "bridge": net.bridge,
        }
        return answer, [*fds, *vhost]

    async def _on_detach(self, peer: Peer, message: wire.Message) -> Answer:
        machine, nic = asked.who(message)
        with self.networks.locked():
            self.networks.unplug(self.networks.find(self._whose(peer), machine, nic))
        return {}, []

    async def _on_change(self, peer: Peer, message: wire.Message) -> Answer:
        machine, nic = asked.who(message)
        with self.networks.locked():
            card = self.networks.find(self._whose(peer), machine, nic)
            rights = self._require(peer, card.network)
            net = self.networks.files.wanted().get(card.network)
            forwards, wanted, link = (message.get(word) for word in ("forwards", "filter", "link"))
            if forwards is not None:
                card = evolve(card, forwards=asked.forwards(forwards))
                access.check_forwards(rights, [Forward.parse(text) for text in card.forwards])
            if wanted is not None:
                asked.one_of("filter", wanted, ("clean", "mac", "none"))
                access.check_filter(rights, net or self.networks.decided(card.network), wanted)
                card = evolve(card, filter=cast("Filter", wanted))
            if link is not None:
                asked.one_of("link", link, ("up", "down"))
                card = evolve(card, link=link)
            if (other := message.get("network")) is not None:
                card = self._moved(peer, card, asked.match("network", str(other), NETWORK_NAME))
            self.networks.change(card)
        return {}, []

    def _moved(self, peer: Peer, card: Card, network: str) -> Card:
        """`card` as it would be in another network."""
        rights = self._require(peer, network)
        net = self.networks.files.wanted().get(network) or self.networks.decided(network)
        access.check_filter(rights, net, card.filter)
        return self.networks.moved(card, network)

    async def _on_dial(self, peer: Peer, message: wire.Message) -> Answer:
        ifname = asked.text(message, "ifname", r"[A-Za-z0-9_.-]{1,15}")
        address, port = asked.text(message, "address", r"[0-9a-fA-F.:]{2,45}"), message.get("port")
        if type(port) is not int or not 0 < port < 65536:
            raise UsageError("port is 1 to 65535")
        user = self._whose(peer)
        cards = [c for c in self.networks.cards() if c.ifname == ifname and user in (None, c.user)]
        if not cards:
            raise NotFoundError(f"no card of yours is plugged into {ifname}")
        if address not in self._known(cards[0]):
            raise RefusedError(f"{address} is no address of {cards[0].machine} {cards[0].nic}")
        return {}, [await dial(address, port)]

    def _whose(self, peer: Peer) -> int | None:
        """Whose cards `peer` may touch: None for everybody's."""
        return None if self._require(peer).free else peer.uid

    # ---- networks -------------------------------------------------------------------------------

    async def _on_up(self, peer: Peer, message: wire.Message) -> Answer:
        name = asked.text(message, "network", NETWORK_NAME)
        self._require_owner(peer, "making a network")
        with self.networks.locked():
            net, done = self.networks.bring_up(name)
            self.networks.files.ask(name)
        return {"network": records.to_plain(net), "steps": [step.about for step in done]}, []

    async def _on_down(self, peer: Peer, message: wire.Message) -> Answer:
        name = asked.text(message, "network", NETWORK_NAME)
        self._require_owner(peer, "taking a network down")
        with self.networks.locked():
            done = self.networks.take_down(name, force=message.get("force") is True)
        return {"steps": [step.about for step in done]}, []

    async def _on_plan(self, peer: Peer, message: wire.Message) -> Answer:
        """What would be done now; with a network, what would be done to bring it up."""
        self._require_owner(peer, "looking at what would be done")
        desired = self.networks.desired()
        if message.get("network") is not None:
            net = self.networks.decided(asked.text(message, "network", NETWORK_NAME))
            others = tuple(each for each in desired.nets if each.name != net.name)
            desired = Desired(nets=(*others, net), cards=desired.cards)
        found = self.networks.plan(desired)
        plain = [{"step": type(s).__name__, "about": s.about, **records.to_plain(s)} for s in found]
        return {"steps": plain}, []

    async def _on_show(self, peer: Peer, message: wire.Message) -> Answer:
        name = asked.text(message, "network", NETWORK_NAME)
        self._require(peer, name)
        net = self.networks.files.wanted().get(name) or self.networks.decided(name)
        state = next(each for each in self.networks.states() if each.name == name)
        cards = [c for c in self.networks.cards() if c.network == name]
        pidfd = Dnsmasq(name, self.networks.files).open_pidfd()
        if pidfd is not None:
            pidfd.close()
        return {
            "dns": pidfd.pid if pidfd is not None else None,
            "state": records.to_plain(state),
            "network": records.to_plain(net),
            "nics": [records.to_plain(_nic(card, net)) for card in cards],
        }, []


def _names(peer: Peer) -> set[str]:
    found = set()
    for gid in peer.groups:
        try:
            found.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return found


def _nic(card: Card, net: Net | None) -> NicState:
    ipv6 = card.ipv6 or (by_mac(net.net6, card.mac) if net and net.net6 else None)
    return NicState(
        ifname=card.ifname,
        machine=card.machine,
        nic=card.nic,
        network=card.network,
        mac=card.mac,
        user=card.user,
        ipv4=card.ipv4,
        ipv6=ipv6,
        filter=card.filter,
        forwards=card.forwards,
        hostname=card.hostname,
    )


def _known(lease: Lease, card: Card | None) -> Lease:
    return lease if card is None else evolve(lease, machine=card.machine, nic=card.nic)
