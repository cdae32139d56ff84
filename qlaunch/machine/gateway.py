"""The door for display clients: qlaunch accepts, QEMU gets the connection itself.

QEMU listens on nothing. A client on the unix socket is the user (checked by its credentials) and
is let in; one that comes over TCP is asked for the password or ticket if there is one. TLS is
spoken by a process apart (`machine.relay`).
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from qlaunch.aio import Spawner
from qlaunch.errors import PhaseError, QlaunchError
from qlaunch.host.sockets import bind_tcp, bind_unix
from qlaunch.machine.doorman import FREE_FAILURES, Doorman
from qlaunch.plan.model import Endpoint, Plan
from qlaunch.qmp.session import Event, Session

if TYPE_CHECKING:
    from qlaunch.machine.relay import Relay

ADD_CLIENT_TIMEOUT = 10.0
# How long nobody is let in when there is no descriptor left for him.
REST = 1.0
Say = Callable[[str], None]


class Gateway:
    """The listeners of one machine. Bound before QEMU starts, opened when it answers.

    `asks` is whether clients over TCP need a password or a ticket. `tls_names` are for the
    certificate, `runtime` is the folder of the machine's sockets.
    """

    def __init__(
        self,
        *,
        say: Say,
        group: Spawner,
        asks: bool = False,
        tls_names: tuple[str, ...] = (),
        runtime: str = "",
    ) -> None:
        self.asks = asks
        self._say = say
        self._group = group
        self._tls_names = tls_names
        self._runtime = runtime
        self._listeners: list[tuple[Endpoint, socket.socket]] = []
        self._session: Session | None = None
        self._doorman = Doorman()
        self._relay: Relay | None = None
        self._number = 0
        self._closed = False

    @classmethod
    def of(cls, plan: Plan, *, say: Say, group: Spawner) -> Gateway:
        """The gateway that `plan` asks for."""
        display = plan.display
        return cls(
            say=say,
            group=group,
            asks=display.access != "open",
            tls_names=display.tls_names,
            runtime=plan.places.runtime,
        )

    def bind(self, endpoint: Endpoint) -> None:
        """Take the endpoint's address. Raises: ConflictError naming the holder, HostError."""
        if endpoint.path:
            listener = bind_unix(endpoint.path)
        else:
            listener = bind_tcp(endpoint.host, endpoint.port)
        self._listeners.append((endpoint, listener))

    def open(self, session: Session) -> None:
        """Let clients in from now on."""
        self._session = session
        if any(not endpoint.path for endpoint, _ in self._listeners):
            session.on_event(self._note)
        for endpoint, listener in self._listeners:
            self._listen(endpoint, listener)

    def _listen(self, endpoint: Endpoint, listener: socket.socket) -> None:
        if not self._closed:
            loop = asyncio.get_running_loop()
            loop.add_reader(listener.fileno(), self._knock, endpoint, listener)

    def close(self) -> None:
        """Take the listeners away; connections that QEMU has go on, those over TLS too."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        for endpoint, listener in self._listeners:
            loop.remove_reader(listener.fileno())
            listener.close()
            if endpoint.path:
                _unlink(endpoint.path)
        self._listeners.clear()
        if self._relay is not None:
            self._relay.close()

    async def ended(self) -> None:
        """Wait for what was around a QEMU that has ended: without it nobody is left to serve."""
        self.close()
        if self._relay is not None:
            await self._relay.ended()

    # ---- clients --------------------------------------------------------------------------------

    def _knock(self, endpoint: Endpoint, listener: socket.socket) -> None:
        try:
            client, peer = listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Who waits in the queue keeps the listener readable: without a rest we would spin.
            self._say(f"{endpoint.protocol}: a client could not be let in: {error.strerror}")
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener.fileno())
            loop.call_later(REST, self._listen, endpoint, listener)
            return
        if endpoint.path and not _is_ours(client):
            self._say(f"{endpoint.protocol}: a client of another user was refused")
            client.close()
            return
        client.settimeout(0)
        if endpoint.path:
            self._group.create_task(self._hand_over(endpoint, client, skip_login=True))
        else:
            self._group.create_task(self._admit(endpoint, client, str(peer[0]), int(peer[1])))

    async def _admit(
        self, endpoint: Endpoint, client: socket.socket, address: str, port: int
    ) -> None:
        """Let in a client from the network, when it is its turn."""
        try:
            delay = self._doorman.arrive(address, time.monotonic()) if self.asks else 0.0
            if delay == "refused":
                client.close()
                return
            if delay:
                try:
                    await asyncio.sleep(delay)
                finally:
                    self._doorman.waited(address, time.monotonic())
            if endpoint.tls:
                client = await self._behind_tls(endpoint, client, client_key(address, port))
        except (QlaunchError, OSError) as error:
            self._say(f"{endpoint.protocol}: {address} could not be let in: {error}")
            client.close()
            return
        except BaseException:
            client.close()
            raise
        asks = self.asks
        if asks:
            self._count_try(endpoint, address, port)
        await self._hand_over(endpoint, client, skip_login=not asks)

    def _count_try(self, endpoint: Endpoint, address: str, port: int) -> None:
        now = time.monotonic()
        if endpoint.protocol == "spice":
            self._doorman.tries(address, client_key(address, port), now)
        else:
            # QEMU (7.2, 10.0) tells nothing of VNC clients when it listens on nothing: each counts.
            self._tell_failures(address, self._doorman.failed(address, now))

    async def _behind_tls(
        self, endpoint: Endpoint, client: socket.socket, key: str
    ) -> socket.socket:
        """The plain side of a client that speaks TLS. Raises: HostError, ConnectionError."""
        if self._relay is None or self._relay.closed:
            from qlaunch.machine.relay import Relay

            self._relay = Relay(self._runtime, endpoint.host, self._tls_names, self._say)
        return await self._relay.wrap(client, key)

    async def let_in(self, protocol: str, client: socket.socket, *, skip_login: bool) -> None:
        """Give QEMU a client's connection; the caller closes its own side of it.

        Raises: PhaseError while QEMU does not answer, CommandError, SessionLostError.
        """
        if self._session is None:
            raise PhaseError("QEMU does not answer")
        self._number += 1
        name = f"client{self._number}"
        await self._session.send_fd(client.fileno(), name)
        arguments = {"protocol": protocol, "fdname": name, "skipauth": skip_login}
        await self._session.execute("add_client", arguments, timeout=ADD_CLIENT_TIMEOUT)

    async def _hand_over(
        self, endpoint: Endpoint, client: socket.socket, *, skip_login: bool
    ) -> None:
        try:
            await self.let_in(endpoint.protocol, client, skip_login=skip_login)
        except QlaunchError as error:
            self._say(f"{endpoint.protocol}: a client could not be let in: {error.message}")
        finally:
            client.close()

    # ---- what becomes of them -------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        """Hear from QEMU who has logged in and who has gone."""
        if event.name not in ("SPICE_INITIALIZED", "SPICE_DISCONNECTED"):
            return
        client, now = event.data.get("client"), time.monotonic()
        if not isinstance(client, dict):
            return
        key = client_key(*client_address(client))
        if event.name == "SPICE_INITIALIZED":
            self._doorman.logged_in(key, now)
        elif (failure := self._doorman.left(key, now)) is not None:
            self._tell_failures(*failure)

    def _tell_failures(self, address: str, count: int) -> None:
        if count == FREE_FAILURES or (count > FREE_FAILURES and count % 10 == 0):
            self._say(f"{address} has failed to log in {count} times and is slowed down")


def client_key(address: str, port: int | str) -> str:
    """A name for one connection of a client, at most 31 letters long: QEMU (7.2, 10.0) takes what
    it says of a client whose socket has a longer name from memory that nobody has written to."""
    try:
        packed = ipaddress.IPv6Address(address.partition("%")[0]).packed
    except ValueError:
        return f"{address}.{port}"
    return f"{base64.urlsafe_b64encode(packed).decode().rstrip('=')}.{port}"


def client_address(told: dict[str, object]) -> tuple[str, str]:
    """Address and port of a client as QEMU tells of it. One that comes by TLS has been given a
    socket whose name says it; one on the unix socket has none."""
    if told.get("family") != "unix":
        return str(told.get("host")), str(told.get("port"))
    address, _, port = str(told.get("port") or "").rpartition(".")
    if "." not in address and len(address) == 22:
        address = str(ipaddress.IPv6Address(base64.urlsafe_b64decode(address + "==")))
    return address, port


def _is_ours(client: socket.socket) -> bool:
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", raw)
    return uid in (0, os.getuid())


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
