"""The thin side of the network service: what the supervisor and the command line use.

Each request is a connection of its own, so a service that was restarted between two of them is
not even noticed. The service keeps nothing in memory: the kernel and a few small files say all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, TypeVar

from attrs import frozen

from qlaunch import records
from qlaunch.errors import HostError, SessionLostError, TimedOutError, from_dict
from qlaunch.network import wire
from qlaunch.plan.model import Attachment, Filter
from qlaunch.store import paths

REQUEST_TIMEOUT = 20.0
SYSTEM_SOCKET = "/run/qlaunch-netd/socket"
SOCKET_VARIABLE = "QLAUNCH_NETD"

T = TypeVar("T")
Kind = Literal["netd", "rootless"]


@frozen(kw_only=True)
class Attached:
    """A TAP that is plugged into its network. `fds` (one a queue) and `vhost_fds` are the caller's:
    the TAP is there for as long as somebody has them open, so give them to QEMU and close them."""

    ifname: str
    fds: tuple[int, ...] = ()
    vhost_fds: tuple[int, ...] = ()
    ipv4: str | None = None
    ipv6: str | None = None
    gateway: str | None = None
    mtu: int = 1500
    bridge: str = ""

    def close(self) -> None:
        """Close the descriptors: QEMU has its own by now, or never will."""
        wire.close_all((*self.fds, *self.vhost_fds))


@frozen(kw_only=True)
class Lease:
    """An address that a guest was given. `machine` and `nic` are known where it is ours."""

    network: str
    mac: str
    address: str
    hostname: str = ""
    expires: float = 0.0
    machine: str = ""
    nic: str = ""


@frozen(kw_only=True)
class NetworkState:
    """A network and what is there of it; `problem` says why its file cannot be used."""

    name: str
    mode: str
    bridge: str
    state: Literal["up", "down", "broken"]
    ipv4: str | None = None
    ipv6: str | None = None
    nics: int = 0
    title: str = ""
    file: str = ""
    autostart: bool = False
    problem: str = ""


@frozen(kw_only=True)
class NicState:
    """A card that is plugged in now; `seen` are addresses that the computer has had packets of."""

    ifname: str
    machine: str
    nic: str
    network: str
    mac: str
    user: int
    ipv4: str | None = None
    ipv6: str | None = None
    filter: str = "clean"
    forwards: tuple[str, ...] = ()
    hostname: str = ""
    seen: tuple[str, ...] = ()


@frozen(kw_only=True)
class Service:
    """A network service that answers at `path`. `allowed` are the networks that this user may use,
    by netd's allow list ("*": all of them), `folder` is where its network files are."""

    kind: Kind
    path: str
    allowed: tuple[str, ...] = ("*",)
    folder: str = ""

    async def attach(self, machine: str, nic: str, attachment: Attachment) -> Attached:
        """Make a TAP for the card `nic` of `machine` and plug it in, its filter first.

        Raises: NotFoundError (no such network), RefusedError (the allow list), ConflictError (a
        port or an address is taken), HostError, ProfileError (the network's file), TimedOutError.
        """
        about = {"machine": machine, "nic": nic, "attachment": records.to_plain(attachment)}
        answer, fds = await self._request("attach", about)
        queues = answer.get("queues")
        if type(queues) is not int or not 0 < queues <= len(fds):
            wire.close_all(fds)
            raise wire.WireError("the network service sent no TAP")
        plain = {key: value for key, value in answer.items() if key != "fds"}
        try:
            return _record(Attached, {**plain, "fds": fds[:queues], "vhost_fds": fds[queues:]})
        except wire.WireError:
            wire.close_all(fds)
            raise

    async def detach(self, machine: str, nic: str) -> None:
        """Forget the card's filter, address and forwards; its TAP goes with its descriptors."""
        await self._request("detach", {"machine": machine, "nic": nic})

    async def change(
        self,
        machine: str,
        nic: str,
        *,
        forwards: Sequence[str] | None = None,
        filter: Filter | None = None,  # noqa: A002  # the profile's word
        link: Literal["up", "down"] | None = None,
        network: str | None = None,
    ) -> None:
        """Change what is said of a card that is plugged in. In another `network` it gets another
        address. Raises: as `attach`."""
        about = {
            "machine": machine,
            "nic": nic,
            "forwards": None if forwards is None else list(forwards),
            "filter": filter,
            "link": link,
            "network": network,
        }
        await self._request("change", about)

    async def leases(self, network: str | None = None) -> tuple[Lease, ...]:
        """The addresses that guests were given, in one network or in all that the user may see."""
        answer, _ = await self._request("leases", {"network": network})
        return tuple(_record(Lease, each) for each in answer["leases"])

    async def networks(self) -> tuple[NetworkState, ...]:
        """Every network that the user may use, there or not."""
        answer, _ = await self._request("networks", {})
        return tuple(_record(NetworkState, each) for each in answer["networks"])

    async def nics(self) -> tuple[NicState, ...]:
        """Every card of the user's that is plugged in; root sees all."""
        answer, _ = await self._request("nics", {})
        return tuple(_record(NicState, each) for each in answer["nics"])

    async def addresses(self, machine: str, nic: str) -> dict[str, tuple[str, ...]]:
        """The addresses of a card that is plugged in, each with where it is known from, the surest
        first: `reservation`, `lease`, `learnt` (from what it sends), `neighbour`."""
        answer, _ = await self._request("addresses", {"machine": machine, "nic": nic})
        return {
            str(each["address"]): tuple(map(str, each["sources"])) for each in answer["addresses"]
        }

    async def dial(self, ifname: str, address: str, port: int) -> socket.socket:
        """A TCP connection to `port` of the guest behind the TAP `ifname`, made where its network
        is. Non-blocking.

        Raises: NotFoundError, RefusedError, HostError with the guest's answer, TimedOutError.
        """
        _, fds = await self._request("dial", {"ifname": ifname, "address": address, "port": port})
        connection = socket.socket(fileno=fds[0])
        connection.setblocking(False)  # noqa: FBT003  # its name for it
        return connection

    async def ask(self, verb: str, about: dict[str, Any] | None = None) -> wire.Message:
        """The answer to any request that takes and gives no descriptor: `up`, `down`, `plan`."""
        answer, _ = await self._request(verb, about or {})
        return answer

    async def _request(self, verb: str, about: dict[str, Any]) -> tuple[wire.Message, list[int]]:
        answer, got = await request(self.path, {"verb": verb, **about})
        wanted = {"attach": len(got), "dial": 1}.get(verb, 0)
        if len(got) != wanted:
            wire.close_all(got)
            raise wire.WireError(f"the network service sent {len(got)} descriptors")
        return answer, got


async def find() -> Service | None:
    """The network service to use: the system's if it lets this user in, else the user's own. None
    when neither answers."""
    if (found := await probe("netd", system_socket())) is not None:
        return found
    return await probe("rootless", rootless_socket())


def system_socket() -> str:
    """Where root's service listens; another place may be said in the environment."""
    return os.environ.get(SOCKET_VARIABLE) or SYSTEM_SOCKET


def own_folder() -> str:
    """Where the user's own service has its socket and notes."""
    return os.path.join(paths.runtime_dir(), "net")


def rootless_socket() -> str:
    """Where the user's own service listens."""
    return os.path.join(own_folder(), "socket")


async def probe(kind: Kind, path: str) -> Service | None:
    """The service at `path`, None when nobody answers there or it wants nothing of this user."""
    try:
        answer, _ = await request(path, {"verb": "hello"})
    except (HostError, SessionLostError, TimedOutError, wire.WireError):
        return None
    allowed = answer.get("allowed")
    if not isinstance(allowed, list) or not allowed:
        return None
    folder = str(answer.get("folder") or "")
    return Service(kind=kind, path=path, allowed=tuple(map(str, allowed)), folder=folder)


async def request(path: str, message: wire.Message) -> tuple[wire.Message, list[int]]:
    """The answer of the service at `path`, and its descriptors.

    Raises: HostError when nobody listens there, SessionLostError when it dies meanwhile,
    TimedOutError, and what the service raised.
    """
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT), _connected(path) as sock:
            await _when(sock, write=True)
            wire.send(sock, message)
            await _when(sock, write=False)
            answer, fds = wire.receive(sock)
    except TimeoutError:
        raise TimedOutError(f"the network service did not answer: {path}") from None
    if error := answer.get("error"):
        wire.close_all(fds)
        raise from_dict(error if isinstance(error, dict) else {"message": str(error)})
    return answer, fds


@contextlib.asynccontextmanager
async def _connected(path: str) -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, wire.KIND | socket.SOCK_NONBLOCK) as sock:
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
        except OSError as error:
            raise HostError(f"no network service at {path}: {error.strerror}") from error
        yield sock


async def _when(sock: socket.socket, *, write: bool) -> None:
    """Wait until `sock` can be written to, or has something to read."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    )

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    add(sock, tell)
    try:
        await ready
    finally:
        remove(sock)


def _record(cls: type[T], plain: Any) -> T:
    try:
        return records.from_plain(cls, plain)
    except records.RecordError as error:
        raise wire.WireError(f"the network service's answer cannot be read: {error}") from error
