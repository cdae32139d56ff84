"""The network service: takes requests on a socket, and hears when something breaks.

What it watches: interfaces and routes (a TAP that went with its QEMU, a bridge that somebody
deleted, a new uplink), nftables (somebody flushed our rules), every dnsmasq.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections import Counter

from qlaunch.errors import InternalError, QlaunchError, RefusedError
from qlaunch.host.pidfd import Pidfd
from qlaunch.network import links, wire
from qlaunch.network.netlink import Netlink, attributes, read_text, unpacked
from qlaunch.network.service import Failed, Networks
from qlaunch.network.words import Peer, Words
from qlaunch.plan.networks.steps import Step

IDLE_TIMEOUT = 60.0
"""How long a client may hold a connection without asking anything."""
SETTLE = 0.02
"""Changes come in flocks: one look for all that come within this time."""
RETRY = 2.0
MAX_CONNECTIONS = 64
"""By one user at a time."""
_NFT_GROUP = 1 << 6  # NFNLGRP_NFTABLES
_NFT_SUBSYSTEM = 10
_NETLINK_NETFILTER = 12
_WATCHED = (
    links.RTMGRP_LINK
    | links.RTMGRP_IPV4_ADDR
    | links.RTMGRP_IPV6_ADDR
    | links.RTMGRP_IPV4_ROUTE
    | links.RTMGRP_IPV6_ROUTE
)


class Server:
    """Serves one socket until it is cancelled, or, where `ends` says so, until nobody needs it."""

    def __init__(self, networks: Networks, listener: socket.socket, *, ends: float = 0.0) -> None:
        self._networks = networks
        self._words = Words(networks, os.getuid())
        self._listener = listener
        self._ends = ends
        self._dirty = asyncio.Event()
        self._rules_changed = False
        self._rules: Netlink
        self._loads = 0
        self._reread = False
        self._used = asyncio.Event()
        self._connections: Counter[int] = Counter()
        self._watched_dns: dict[str, Pidfd] = {}
        self._told: set[str] = set()

    async def run(self) -> None:
        """Serve."""
        with contextlib.ExitStack() as stack, self._networks.locked():
            loop = asyncio.get_running_loop()
            route = stack.enter_context(Netlink(_WATCHED))
            rules = stack.enter_context(Netlink(_NFT_GROUP, _NETLINK_NETFILTER))
            self._rules = rules
            for netlink, heard in ((route, self._hear_route), (rules, self._hear_rules)):
                netlink.socket.setblocking(False)  # noqa: FBT003
                loop.add_reader(netlink.socket.fileno(), heard, netlink)
                stack.callback(loop.remove_reader, netlink.socket.fileno())
            stack.callback(self._watch_no_dns)
            keep = stack.pop_all()
            self._complain(self._networks.start())
            self._after()
        with keep:
            async with asyncio.TaskGroup() as group:
                mending = group.create_task(self._mend())
                accepting = group.create_task(self._accept(group))
                if self._ends:
                    await self._until_unused()
                    mending.cancel()
                    accepting.cancel()

    def read_again(self) -> None:
        """Make the networks that are there as their files are by now."""
        self._reread = True
        self._dirty.set()

    # ---- requests -------------------------------------------------------------------------------

    async def _accept(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)  # noqa: FBT003
        while True:
            sock, _ = await loop.sock_accept(self._listener)
            group.create_task(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                peer = Peer.of(sock)
            except OSError:
                return
            self._connections[peer.uid] += 1
            self._used.set()
            try:
                while await self._one(sock, peer):
                    pass
            except (QlaunchError, OSError):
                return  # it has gone, or talks nonsense
            finally:
                self._connections[peer.uid] -= 1
                self._used.set()

    async def _one(self, sock: socket.socket, peer: Peer) -> bool:
        """Answer one request; False when no other will come."""
        try:
            async with asyncio.timeout(IDLE_TIMEOUT):
                await _readable(sock)
        except TimeoutError:
            return False
        if self._connections[peer.uid] > MAX_CONNECTIONS:
            error = RefusedError("too many connections at once")
            wire.send(sock, {"error": error.to_dict()})
            return False
        message, unwanted = wire.receive(sock)
        wire.close_all(unwanted)
        answer, fds = await self._answer(peer, message)
        try:
            wire.send(sock, answer, fds)
        finally:
            # From here on the TAP is the receiver's alone, and goes with it.
            wire.close_all(fds)
        return True

    async def _answer(self, peer: Peer, message: wire.Message) -> tuple[wire.Message, list[int]]:
        try:
            return await self._words.answer(peer, message)
        except QlaunchError as error:
            return {"error": error.to_dict()}, []
        except Exception as error:  # noqa: BLE001  # one of the doors: a bug ends no network
            import traceback

            traceback.print_exc()
            about = InternalError(f"{type(error).__name__}: {error}")
            return {"error": about.to_dict()}, []
        finally:
            self._after()

    def _after(self) -> None:
        """What follows on everything that we did ourselves."""
        if self._networks.loads != self._loads:
            # The kernel has told us by now of our own change, which replaced everything.
            self._loads = self._networks.loads
            self._hear_rules(self._rules)
            self._rules_changed = False
        self._watch_dns()

    # ---- mending --------------------------------------------------------------------------------

    def _hear_route(self, netlink: Netlink) -> None:
        try:
            while data := netlink.socket.recv(1 << 16):
                if any(self._matters(kind, body) for kind, _, _, body in unpacked(data)):
                    self._dirty.set()
        except BlockingIOError:
            return
        except OSError:  # too many at once, some were lost: look at everything
            self._dirty.set()

    def _matters(self, kind: int, body: bytes) -> bool:
        if kind in (links.RTM_NEWLINK, links.RTM_DELLINK):
            said = attributes(body[16:])
            alias = read_text(said.get(links.IFLA_IFALIAS))
            name = read_text(said.get(links.IFLA_IFNAME))
            return alias.startswith("qlaunch:") or name.startswith(("ql-", "qlt"))
        return True

    def _hear_rules(self, netlink: Netlink) -> None:
        try:
            while data := netlink.socket.recv(1 << 16):
                if any(_deletes(kind, body) for kind, _, _, body in unpacked(data)):
                    self._rules_changed = True
                    self._dirty.set()
        except BlockingIOError:
            return
        except OSError:
            self._rules_changed = True
            self._dirty.set()

    async def _mend(self) -> None:
        """Look at everything whenever something has changed."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SETTLE)
            self._dirty.clear()
            with self._networks.locked():
                changed, self._rules_changed = self._rules_changed, False
                try:
                    failed = self._networks.read_again() if self._reread else []
                    self._reread = False
                    _, wrong = self._networks.reconcile(reload_rules=changed)
                    failed += wrong
                except QlaunchError as error:
                    failed = [(Step(), error)]
                self._after()
            self._complain(failed)
            self._used.set()
            if failed:
                asyncio.get_running_loop().call_later(RETRY, self._dirty.set)

    def _watch_dns(self) -> None:
        """Hear of the end of each dnsmasq."""
        loop = asyncio.get_running_loop()
        running = {dns.name: dns for dns in self._networks.dns()}
        for name in set(self._watched_dns) - set(running):
            self._unwatch(name)
        for name, dns in running.items():
            pidfd = self._watched_dns.get(name)
            if pidfd is not None and not pidfd.ended:
                continue
            self._unwatch(name)
            found = dns.open_pidfd()
            if found is not None:
                self._watched_dns[name] = found
                loop.add_reader(found.fileno(), self._dns_ended, name)

    def _dns_ended(self, name: str) -> None:
        self._unwatch(name)
        self._dirty.set()

    def _unwatch(self, name: str) -> None:
        pidfd = self._watched_dns.pop(name, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd.fileno())
            pidfd.close()

    def _watch_no_dns(self) -> None:
        for name in list(self._watched_dns):
            self._unwatch(name)

    def _complain(self, failed: Failed) -> None:
        words = {error.message for _, error in failed}
        for step, error in failed:
            if error.message not in self._told:
                self._tell(error, step.network)
        self._told = words

    def _tell(self, error: QlaunchError, network: str = "") -> None:
        where = f"network {network}: " if network else ""
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"qlaunch-netd: {where}{error.message}{hint}\n")
        sys.stderr.flush()

    # ---- the end of a service that is its user's own --------------------------------------------

    async def _until_unused(self) -> None:
        """Return when nothing has been plugged in and nobody has asked for a while."""
        while True:
            self._used.clear()
            try:
                async with asyncio.timeout(self._ends):
                    await self._used.wait()
            except TimeoutError:
                if not self._networks.needed() and not +self._connections:
                    return


def _deletes(kind: int, body: bytes) -> bool:
    """Whether a message of nftables says that something in a table of ours was deleted."""
    if kind >> 8 != _NFT_SUBSYSTEM or len(body) < struct.calcsize("=BBH"):
        return False
    deletions = {2, 5, 8, 11, 14}  # table, chain, rule, set, element
    return kind & 0xFF in deletions and read_text(attributes(body[4:]).get(1)) == "qlaunch"


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
