"""The door for display clients: qlaunch accepts, QEMU gets the connection itself.

QEMU listens on nothing. A client on the unix socket is the user (checked by its credentials) and
is let in; one that comes over TCP is asked for the password if there is one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

from qlaunch.aio import Spawner
from qlaunch.errors import QlaunchError
from qlaunch.host.sockets import bind_tcp, bind_unix
from qlaunch.plan.model import Endpoint
from qlaunch.qmp.session import Session

ADD_CLIENT_TIMEOUT = 10.0
# How long nobody is let in when there is no descriptor left for him.
REST = 1.0
Say = Callable[[str], None]


class Gateway:
    """The listeners of one machine. Bound before QEMU starts, opened when it answers."""

    def __init__(self, *, say: Say, group: Spawner) -> None:
        self._say = say
        self._group = group
        self._listeners: list[tuple[Endpoint, socket.socket]] = []
        self._session: Session | None = None
        self._password = False
        self._number = 0
        self._closed = False

    def bind(self, endpoint: Endpoint) -> None:
        """Take the endpoint's address. Raises: ConflictError naming the holder, HostError."""
        if endpoint.path:
            listener = bind_unix(endpoint.path)
        else:
            listener = bind_tcp(endpoint.host, endpoint.port)
        self._listeners.append((endpoint, listener))

    def open(self, session: Session, *, password: bool) -> None:
        """Let clients in from now on."""
        self._session, self._password = session, password
        for endpoint, listener in self._listeners:
            self._listen(endpoint, listener)

    def _listen(self, endpoint: Endpoint, listener: socket.socket) -> None:
        if not self._closed:
            loop = asyncio.get_running_loop()
            loop.add_reader(listener.fileno(), self._knock, endpoint, listener)

    def close(self) -> None:
        """Take the listeners away; connections that QEMU has go on."""
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

    def _knock(self, endpoint: Endpoint, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
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
        self._group.create_task(self._let_in(endpoint, client))

    async def _let_in(self, endpoint: Endpoint, client: socket.socket) -> None:
        session = self._session
        self._number += 1
        name = f"client{self._number}"
        try:
            if session is None:
                return
            await session.send_fd(client.fileno(), name)
            arguments = {
                "protocol": endpoint.protocol,
                "fdname": name,
                "skipauth": bool(endpoint.path) or not self._password,
            }
            await session.execute("add_client", arguments, timeout=ADD_CLIENT_TIMEOUT)
        except QlaunchError as error:
            self._say(f"{endpoint.protocol}: a client could not be let in: {error.message}")
        finally:
            client.close()


def _is_ours(client: socket.socket) -> bool:
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", raw)
    return uid in (0, os.getuid())


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
