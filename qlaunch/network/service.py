"""The networks of one service, and the cards in them: decided by `plan.networks`, done here.

Nothing is kept in memory. Every call looks at what is, and may be cut off anywhere: the next one
looks again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from attrs import evolve

from qlaunch.errors import ConflictError, HostError, NotFoundError, QlaunchError
from qlaunch.host.ports import port_holder
from qlaunch.network import links, tap
from qlaunch.network.carry import Carrier
from qlaunch.network.client import NetworkState
from qlaunch.network.dnsmasq import Dnsmasq
from qlaunch.network.files import Files, Places
from qlaunch.network.links import ANSWERED, neighbours
from qlaunch.network.look import look, look_at_links
from qlaunch.network.netlink import Netlink
from qlaunch.plan.networks.decide import Surroundings, check_desired, decide, settle_card
from qlaunch.plan.networks.model import CARD_ALIAS, Card, Desired, Kernel, Net
from qlaunch.plan.networks.rules import rules
from qlaunch.plan.networks.steps import LoadRules, PlugCard, Step, steps, without_notes
from qlaunch.profile.findings import did_you_mean
from qlaunch.profile.network import Network
from qlaunch.profile.network_load import load_network
from qlaunch.store import paths

Failed = list[tuple[Step, QlaunchError]]


class Networks:
    """What a service does. All of it is quick and nothing waits for anybody, so it blocks."""

    def __init__(self, places: Places, computer: str) -> None:
        self.places = places
        self.files = Files(places)
        self._computer = computer
        self._netlink = Netlink()
        self._carrier = Carrier(self._netlink, self.files)

    def close(self) -> None:
        self._netlink.close()

    @property
    def loads(self) -> int:
        """How often this service has loaded rules."""
        return self._carrier.loads

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time, also where two services should meet by mistake."""
        path = os.path.join(self.places.run, "lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    # ---- what there is --------------------------------------------------------------------------

    def network_files(self) -> dict[str, str]:
        return paths.network_files(list(self.places.networks))

    def wish(self, name: str) -> Network:
        """The network file of `name`. Raises: NotFoundError, ProfileError."""
        known = self.network_files()
        if name not in known:
            hint = did_you_mean(name, known) or f"there are: {', '.join(known)}"
            raise NotFoundError(f"there is no network {name!r}", hint=hint)
        return load_network(known[name])

    def decided(self, name: str) -> Net:
        """The network `name` as its file is now; its subnet is kept from then on.

        Raises: NotFoundError, ProfileError, ConflictError.
        """
        wish = self.wish(name)
        given = self.files.given()
        others = {n: net.address for n, net in self.files.wanted().items() if n != name}
        others |= {n: at for n, at in given.networks.items() if n != name}
        around = Surroundings(
            computer=self._computer,
            kernel=look_at_links(self._netlink),
            taken=tuple(at for at in others.values() if at),
            kept=given.networks.get(name),
        )
        net = decide(wish, around)
        if net.address and wish.address in (None, "auto"):
            kept = {**given.networks, name: net.address}
            self.files.give(evolve(given, networks=kept))
        return net

    def cards(self) -> list[Card]:
        """The cards that are plugged in: those whose TAP is there. The others are forgotten."""
        found, known = look_at_links(self._netlink).links, []
        for card in self.files.cards():
            link = found.get(card.ifname)
            if link is None or link.index != card.index or not link.carrier:
                self.files.remove_card(card)
            else:
                known.append(card)
        return known

    def seen(self) -> dict[str, tuple[str, ...]]:
        """By MAC address, the addresses of neighbours that have answered lately."""
        found: dict[str, tuple[str, ...]] = {}
        for each in neighbours(self._netlink):
            if each.state & ANSWERED and not ip_address(each.address).is_link_local:
                found[each.mac] = (*found.get(each.mac, ()), each.address)
        return found

    def desired(self) -> Desired:
        return Desired(nets=tuple(self.files.wanted().values()), cards=tuple(self.cards()))

    def states(self) -> list[NetworkState]:
        """Every network that has a file or is there."""
        wanted, cards = self.files.wanted(), self.cards()
        present = look_at_links(self._netlink).links
        files = self.network_files()
        found = []
        for name in sorted({*files, *wanted}):
            net, problem = wanted.get(name), ""
            try:
                wish = load_network(files[name]) if name in files else None
            except QlaunchError as error:
                wish, problem = None, error.message
            bridge = net.bridge if net else wish.bridge or f"ql-{name}"[:15] if wish else ""
            there = bridge in present
            foreign = wish is not None and wish.mode in ("bridge", "uplink")
            up = there if foreign or net else False
            found.append(
                NetworkState(
                    name=name,
                    mode=net.mode if net else (wish.mode or "nat") if wish else "?",
                    bridge=bridge,
                    state="up" if up else "broken" if problem or net else "down",
                    ipv4=net.address if net else None,
                    ipv6=net.ipv6 if net else None,
                    nics=sum(card.network == name for card in cards),
                    title=(wish.title or "") if wish else "",
                    file=files.get(name, ""),
                    autostart=bool(wish and wish.autostart),
                    problem=problem,
                )
            )
        return found

    # ---- from what is to what should be ---------------------------------------------------------

    def plan(self, desired: Desired) -> tuple[Step, ...]:
        """What would be done for `desired`. Raises: HostError, ConflictError."""
        return self._steps(desired)[0]

    def _steps(self, desired: Desired) -> tuple[tuple[Step, ...], Kernel]:
        check_desired(desired)
        kernel = look(desired, self._netlink, self.files)
        folders = {net.name: self.places.folders(net.name) for net in desired.nets}
        return steps(desired, kernel, folders), kernel

    def reconcile(
        self, desired: Desired | None = None, *, reload_rules: bool = False
    ) -> tuple[tuple[Step, ...], Failed]:
        """Bring about what should be; returns what was done and what of it failed."""
        wanted = self.desired() if desired is None else desired
        todo, kernel = self._steps(wanted)
        if reload_rules and not any(isinstance(step, LoadRules) for step in todo):
            text, fingerprint = rules(wanted)
            if fingerprint or kernel.rules:
                todo = (*todo, LoadRules(text=text, fingerprint=fingerprint))
        return without_notes(todo), self._carrier.all(todo)

    def bring_up(self, name: str) -> tuple[Net, tuple[Step, ...]]:
        """Make the network `name`, or make it as its file is by now.

        Raises: NotFoundError, ProfileError, ConflictError, HostError.
        """
        before = self.files.wanted().get(name)
        net = self.decided(name)
        others = tuple(n for n in self.files.wanted().values() if n.name != name)
        desired = Desired(nets=(*others, net), cards=tuple(self.cards()))
        check_desired(desired)
        self._check_foreign(net)
        self.files.want(net)
        try:
            done, failed = self.reconcile(desired)
            _raise_first(failed, net.name)
        except QlaunchError:
            if before is None:  # it never was there, so nothing of it is left behind
                self.files.forget_wanted(name)
                self.reconcile()
            raise
        return net, done

    def _check_foreign(self, net: Net) -> None:
        if not net.managed:
            link = look_at_links(self._netlink).links.get(net.bridge)
            if link is None or link.kind != "bridge":
                what = "is not there" if link is None else "is no bridge"
                make = f"ip link add name {net.bridge} type bridge"
                if net.mode == "uplink":
                    make = f"sudo qlaunch net uplink {net.bridge} {net.uplink}"
                raise HostError(
                    f"the bridge {net.bridge} of the network {net.name} {what}",
                    hint=make if link is None else None,
                )

    def take_down(self, name: str, *, force: bool = False) -> tuple[Step, ...]:
        """Remove the network `name`. Raises: NotFoundError, ConflictError when guests use it."""
        if name not in self.files.wanted():
            self.wish(name)
            return ()
        users = sorted({card.machine for card in self.cards() if card.network == name})
        if users and not force:
            raise ConflictError(
                f"{', '.join(users)} use{'s' if len(users) == 1 else ''} the network {name}",
                hint="--force takes it away from them",
            )
        self.files.forget_wanted(name)
        done, failed = self.reconcile()
        _raise_first(failed, name)
        return done

    def needed(self) -> bool:
        """Whether a guest uses a network, or somebody has asked for one to be there."""
        return bool(self.cards() or self.files.asked())

    def let_go(self) -> None:
        """Take all networks down, unless guests use any."""
        with self.locked():
            if not self.cards():
                for name in self.files.wanted():
                    self.files.forget_wanted(name)
                self.reconcile()

    def start(self) -> Failed:
        """What a service does first: the networks that are to be there, and whatever is broken."""
        failed: Failed = []
        wanted = self.files.wanted()
        for name in self.network_files():
            try:
                if name not in wanted and self.wish(name).autostart:
                    self.files.want(self.decided(name))
            except QlaunchError as error:
                failed.append((Step(network=name), error))
        _, wrong = self.reconcile(reload_rules=True)
        return [*failed, *wrong]

    def read_again(self) -> Failed:
        """Decide anew about the networks that are wanted; a file that is wrong changes nothing."""
        failed: Failed = []
        for name in self.files.wanted():
            try:
                self.files.want(self.decided(name))
            except QlaunchError as error:
                failed.append((Step(network=name), error))
        return failed

    # ---- cards ----------------------------------------------------------------------------------

    def plug(self, card: Card, queues: int, *, offload: bool) -> tuple[Card, Net, list[int]]:
        """Make a TAP for `card` and plug it in; its descriptors are the caller's.

        The rules are there before the TAP is on the bridge: no packet goes unseen.
        """
        net = self.files.wanted().get(card.network)
        if net is None:
            net = self.bring_up(card.network)[0]
        self._check_foreign(net)
        self.check_ports(card)
        ifname, fds = tap.open_tap(queues, os.getuid())
        try:
            card = evolve(card, ifname=ifname, index=socket.if_nametoindex(ifname))
            card = settle_card(card, net, self.cards(), self._guests(net))
            if not offload:
                tap.no_offload(ifname)
            self._plug_in(card, net)
        except BaseException:
            self.files.remove_card(card)
            tap.close(fds)
            self.reconcile()
            raise
        return card, net, fds

    def _plug_in(self, card: Card, net: Net) -> None:
        nets = {**self.files.wanted(), net.name: net}
        desired = Desired(nets=tuple(nets.values()), cards=(*self.cards(), card))
        _, failed = self.reconcile(desired)
        _raise_first(failed, net.name, card.ifname)
        self.files.add_card(card)
        self._remember(card, net)

    def _remember(self, card: Card, net: Net) -> None:
        """Keep the address for who has been given it."""
        if card.ipv4:
            given = self.files.given()
            guests = {**given.guests.get(net.name, {}), card.mac: card.ipv4}
            self.files.give(evolve(given, guests={**given.guests, net.name: guests}))

    def _guests(self, net: Net) -> dict[str, str]:
        return dict(self.files.given().guests.get(net.name, {}))

    def find(self, user: int | None, machine: str, nic: str) -> Card:
        """The card of `user` (None: of anybody). Raises: NotFoundError."""
        for card in self.cards():
            if (card.machine, card.nic) == (machine, nic) and user in (None, card.user):
                return card
        raise NotFoundError(f"{machine} has no network card {nic} plugged in")

    def moved(self, card: Card, name: str) -> Card:
        """`card` as it would be in the network `name`, with an address of that; the network is made
        if it is not there. Raises: as `bring_up`."""
        net = self.files.wanted().get(name) or self.bring_up(name)[0]
        self._check_foreign(net)
        fresh = evolve(card, network=name, ipv4=None, ipv6=None)
        return settle_card(fresh, net, self.cards(), self._guests(net))

    def change(self, card: Card) -> None:
        """Have the card that is plugged in be as `card`. Raises: ConflictError, HostError."""
        others = [other for other in self.cards() if other.ifname != card.ifname]
        before = next(c for c in self.cards() if c.ifname == card.ifname)
        net = self.files.wanted().get(card.network) or self.decided(card.network)
        settle_card(card, net, others, {})
        self.check_ports(card, before)
        nets = {**self.files.wanted(), net.name: net}
        self.files.add_card(card)
        try:
            _, failed = self.reconcile(Desired(nets=tuple(nets.values()), cards=(*others, card)))
            _raise_first(failed, net.name, card.ifname)
        except QlaunchError:
            self.files.add_card(before)
            self.reconcile()
            raise
        self._remember(card, net)

    def unplug(self, card: Card) -> None:
        """Forget `card`: its filter stays in the way of its TAP, which is taken off the bridge."""
        link = look_at_links(self._netlink).links.get(card.ifname)
        if link is not None and link.index == card.index and link.alias.startswith(CARD_ALIAS):
            self._netlink.do(
                links.set_link(link.index, link.name, master=0, up=False), but=(errno.ENODEV,)
            )
        self.files.remove_card(card)
        self.reconcile()

    def check_ports(self, card: Card, before: Card | None = None) -> None:
        """See that nobody listens where forwards of `card` begin. Raises: ConflictError."""
        known = before.outer_forwards if before else ()
        for forward in card.outer_forwards:
            if forward in known:
                continue
            family = socket.AF_INET6 if forward.version == 6 else socket.AF_INET
            kind = socket.SOCK_DGRAM if forward.proto == "udp" else socket.SOCK_STREAM
            with socket.socket(family, kind | socket.SOCK_CLOEXEC) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    probe.bind((forward.address, forward.port))
                except OSError as error:
                    if error.errno == errno.EADDRNOTAVAIL:
                        raise HostError(
                            f"{forward.address} is no address of this computer"
                        ) from error
                    if error.errno != errno.EADDRINUSE:
                        raise HostError(f"{forward}: {error.strerror}") from error
                    holder = port_holder(forward.port, forward.address) or "somebody else"
                    raise ConflictError(
                        f"port {forward.port} ({forward.proto}) is in use by {holder}"
                    ) from error

    def dns(self) -> Sequence[Dnsmasq]:
        """The dnsmasq of every network."""
        return [Dnsmasq(name, self.files) for name in self.files.dns_networks()]


def _raise_first(failed: Failed, network: str, ifname: str = "") -> None:
    """Raise what failed of what `network` needs. Raises: HostError, ConflictError."""
    for step, error in failed:
        if isinstance(step, PlugCard) and ifname and step.ifname != ifname:
            continue
        if step.network in ("", network):
            raise error
