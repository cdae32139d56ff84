"""A bridge over a real interface: its addresses and routes move there in one netlink batch.

A guard, a process of its own, puts everything back unless it is told in time that the network still
works. What is needed for that is in a journal, written before the first change: whoever finds one
that is not confirmed and has no guard any more, puts everything back, too.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from attrs import evolve

from qlaunch import records
from qlaunch.errors import BusyError, ConflictError, HostError, RefusedError
from qlaunch.network import links
from qlaunch.network.netlink import Message, Netlink, attributes
from qlaunch.plan.networks.model import Link
from qlaunch.plan.networks.uplinks import Journal, Moved
from qlaunch.store import files

GATEWAY_TIMEOUT = 5.0
GUARD_TIMEOUT = 10.0
_POLL = 0.02
_GONE = (errno.EEXIST, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENODEV)
_ANSWERED = 0x02 | 0x04 | 0x08 | 0x10  # reachable, stale, delay, probe
_CONFIRM = b"C"
_MULTIPATH, _NEXTHOP = 9, 30


class Uplink:
    """Makes bridges over interfaces; its journals are in the folder `run`."""

    def __init__(self, run: str) -> None:
        self._folder = os.path.join(run, "uplinks")
        self._netlink = Netlink()

    def close(self) -> None:
        self._netlink.close()

    def path(self, bridge: str) -> str:
        """The journal of `bridge`."""
        return os.path.join(self._folder, f"{bridge}.json")

    def journal(self, bridge: str) -> Journal | None:
        return files.load_record(Journal, self.path(bridge), 1)

    # ---- there ----------------------------------------------------------------------------------

    def check(self, bridge: str, uplink: str) -> Journal:
        """What is to be moved. Raises: ConflictError, HostError, RefusedError."""
        found = links.links(self._netlink)
        link = found.get(uplink)
        if link is None:
            known = ", ".join(sorted(set(found) - {"lo"}))
            raise HostError(f"there is no interface {uplink}", hint=f"there are: {known}")
        if bridge in found:
            hint = f'a network with mode = "bridge" and bridge = "{bridge}" uses it as it is'
            raise ConflictError(f"the interface {bridge} is there already", hint=hint)
        if link.master:
            raise ConflictError(f"{uplink} is a port of another interface already")
        self._check_kind(link)
        return self._snapshot(link, bridge)

    def _check_kind(self, link: Link) -> None:
        if os.path.exists(f"/sys/class/net/{link.name}/wireless"):
            hint = 'mode = "nat" or "routed" works there'
            raise RefusedError(
                f"{link.name} is wireless: an access point takes frames of one MAC address only",
                hint=hint,
            )
        if link.name == "lo" or link.kind in ("bridge", "tun") or not link.mac:
            raise RefusedError(f"{link.name} is no network card")

    def _snapshot(self, link: Link, bridge: str) -> Journal:
        return Journal(
            bridge=bridge,
            uplink=link.name,
            mac=link.mac,
            mtu=link.mtu,
            addresses=self._addresses(link),
            routes=tuple(route.data.hex() for route in self._routes(link)),
        )

    def _addresses(self, link: Link) -> tuple[Moved, ...]:
        return tuple(
            Moved(
                address=each.address,
                no_route=each.no_route,
                preferred=each.preferred,
                valid=each.valid,
            )
            for each in links.full_addresses(self._netlink)
            if each.index == link.index and each.scope != links.LINK_SCOPE
        )

    def _routes(self, link: Link) -> list[links.FullRoute]:
        """Those that move; the ones to neighbours first: a gateway must be known by then."""
        found = []
        for route in links.full_routes(self._netlink):
            ways = links.ways(route)
            if link.index not in [way for way, _ in ways]:
                continue
            said = attributes(route.data[12:])
            if _MULTIPATH in said or _NEXTHOP in said:
                what = f"the route to {route.to} has several ways or a nexthop object"
                raise RefusedError(f"{what}: it cannot be moved", hint="make it a plain one")
            if links.is_plain(route) and not links.is_automatic(route):
                found.append(route)
        return sorted(found, key=lambda route: route.gateway is not None)

    def begin(self, journal: Journal, timeout: float) -> Guard:
        """Make the bridge and move everything there, with a guard.

        Raises: HostError; then everything is as it was.
        """
        answering = self.answering(journal, journal.uplink, GATEWAY_TIMEOUT)
        os.makedirs(self._folder, mode=0o755, exist_ok=True)
        path = self.path(journal.bridge)
        files.write_json(path, records.to_plain(journal))
        guard = Guard(path, timeout)
        try:
            self._make(journal)
            self._move(journal)
            self._wait_for(journal, answering, min(GATEWAY_TIMEOUT, timeout / 2))
        except BaseException:
            guard.put_back()
            raise
        return guard

    def _make(self, journal: Journal) -> None:
        bridge = links.make_bridge(
            journal.bridge, mac=journal.mac, mtu=journal.mtu, options={"stp_state": 0}
        )
        self._netlink.do(bridge, links.set_alias(journal.bridge, journal.alias))

    def _move(self, journal: Journal) -> None:
        """One system call: at no moment has this computer no address."""
        bridge, uplink = map(socket.if_nametoindex, (journal.bridge, journal.uplink))
        enslave = links.set_link(uplink, journal.uplink, master=bridge)
        self._netlink.do(*_move(journal, uplink, bridge, enslave), but=_GONE)

    # ---- does it work ---------------------------------------------------------------------------

    def answering(self, journal: Journal, link: str, seconds: float) -> set[str]:
        """The gateways that answer within `seconds`."""
        known = {
            route.gateway
            for each in journal.routes
            if (route := links.route_of(bytes.fromhex(each))).gateway
        }
        index = socket.if_nametoindex(link)
        left = {gateway for gateway in known if gateway is not None}
        found: set[str] = set()
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            for gateway in left:
                _greet(gateway, index)
            found |= {
                each.address
                for each in links.neighbours(self._netlink)
                if each.index == index and each.state & _ANSWERED
            } & left
            left -= found
            if left:
                time.sleep(_POLL)
        return found

    def _wait_for(self, journal: Journal, before: set[str], seconds: float) -> None:
        """See that the gateways that answered before do so now. Raises: HostError."""
        silent = before - self.answering(journal, journal.bridge, seconds)
        if silent:
            raise HostError(
                f"{', '.join(sorted(silent))} does not answer through {journal.bridge};"
                " everything is as it was before"
            )

    # ---- and back -------------------------------------------------------------------------------

    def others_on(self, journal: Journal) -> list[str]:
        """What else hangs on the bridge."""
        found = links.links(self._netlink)
        bridge = found.get(journal.bridge)
        if bridge is None:
            return []
        ports = [each.name for each in found.values() if each.master == bridge.index]
        return sorted(set(ports) - {journal.uplink})

    def put_back(self, journal: Journal) -> None:
        """Give the interface back what it had, leases that were renewed meanwhile included; may be
        done again. Raises: HostError, NetlinkError."""
        found = links.links(self._netlink)
        uplink, bridge = found.get(journal.uplink), found.get(journal.bridge)
        if uplink is None:
            raise HostError(f"the interface {journal.uplink} is gone")
        ours = bridge is not None and bridge.alias == journal.alias
        if bridge is None or not ours:
            self._netlink.do(*_arrive(journal, uplink.index), but=_GONE)
        else:
            back = evolve(journal, addresses=self._addresses(bridge) or journal.addresses)
            free = links.set_link(uplink.index, uplink.name, master=0, up=True)
            messages = [
                *_move(back, bridge.index, uplink.index, free),
                links.delete_link(bridge.index, bridge.name),
            ]
            self._netlink.do(*messages, but=_GONE)
        files.remove(self.path(journal.bridge), lasting=False)

    def recover(self) -> list[str]:
        """Put back what was begun, not confirmed, and has no guard any more; returns the bridges.

        Raises: HostError, NetlinkError.
        """
        done = []
        for name in _listed(self._folder):
            journal = self.journal(name)
            if journal is None or journal.confirmed:
                continue
            try:
                lock = files.take_lock(_lock_of(self.path(name)), what="the guard")
            except BusyError:
                continue
            os.close(lock)
            self.put_back(journal)
            done.append(name)
        return done


def _listed(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def _move(journal: Journal, source: int, target: int, between: Message) -> Iterator[Message]:
    """Addresses there, `between`, addresses gone here (their routes go with them), routes there."""
    arriving = list(_arrive(journal, target))
    yield from arriving[: len(journal.addresses)]
    yield between
    for each in journal.addresses:
        yield links.set_address(source, each.address, delete=True)
    yield from arriving[len(journal.addresses) :]


def _arrive(journal: Journal, target: int) -> Iterator[Message]:
    for each in journal.addresses:
        yield links.set_address(
            target,
            each.address,
            no_route=each.no_route,
            preferred=each.preferred,
            valid=each.valid,
        )
    for data in journal.routes:
        yield links.move_route(links.route_of(bytes.fromhex(data)), target)


def _greet(address: str, index: int) -> None:
    """Have the kernel look for `address` there: a datagram to a port that nobody has."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = (address, 9, 0, index) if family == socket.AF_INET6 else (address, 9)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)  # noqa: FBT003  # its name for it
        try:
            sock.sendto(b"", where)
        except OSError:
            return


# ---- the guard ----------------------------------------------------------------------------------


class Guard:
    """A process that puts everything back unless it is told to leave it."""

    def __init__(self, path: str, timeout: float) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, path, str(timeout), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # it lives on when we, or our terminal, die
                cwd="/",
            )
        self._pipe = ours
        if self._pipe.recv(1) != b"r":
            self._pipe.close()
            self._process.wait()
            raise HostError("the guard of the change does not start; nothing was changed")

    def confirm(self) -> bool:
        """Leave everything as it is now; False when it was too late."""
        return self._end(_CONFIRM)

    def put_back(self) -> None:
        """Have everything put back, and wait for it."""
        self._end(b"R")

    def _end(self, word: bytes) -> bool:
        with self._pipe:
            try:
                self._pipe.send(word, socket.MSG_NOSIGNAL)
            except OSError:
                pass
            self._process.wait()
        return self._process.returncode == 0


def _lock_of(path: str) -> str:
    return path.removesuffix(".json") + ".guard"


def main() -> int:
    """Be the guard: 0 when the change was confirmed, 1 when everything was put back."""
    parser = argparse.ArgumentParser(prog="qlaunch-guard", description=__doc__)
    parser.add_argument("path")
    parser.add_argument("timeout", type=float)
    parser.add_argument("fd", type=int)
    args = parser.parse_args()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    lock = files.take_lock(_lock_of(args.path), what="the guard")
    uplink = Uplink(os.path.dirname(os.path.dirname(args.path)))
    journal = files.load_record(Journal, args.path, 1)
    assert journal is not None
    with socket.socket(fileno=args.fd) as pipe:
        pipe.send(b"r")
        # Another word, its end (whoever began is dead) and the time limit all mean: back.
        told = select.select([pipe], [], [], args.timeout)[0]
        good = bool(told) and _received(pipe) == _CONFIRM
        if good:
            files.write_json(args.path, records.to_plain(evolve(journal, confirmed=True)))
        else:
            uplink.put_back(journal)
    os.unlink(_lock_of(args.path))
    os.close(lock)
    return 0 if good else 1


def _received(pipe: socket.socket) -> bytes:
    try:
        return pipe.recv(1)
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
