"""TLS for display clients, from the supervisor's side: a process apart does it.

It keeps OpenSSL, and the work for each byte, out of the supervisor, and its connections go on when
the supervisor does not. Started by the first client that needs it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable

from qlaunch.errors import HostError
from qlaunch.host.process import Process

# Certificates are made when it starts.
START_TIMEOUT = 20.0
HANDSHAKE_TIMEOUT = 15.0
END_TIMEOUT = 2.0
LARGEST_MESSAGE = 1024


class Relay:
    """The TLS process of one machine. `listen` and `names` are for the certificate."""

    def __init__(
        self, runtime: str, listen: str, names: tuple[str, ...], say: Callable[[str], None]
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-P", "-m", "qlaunch.machine.tls", str(theirs.fileno())]
            try:
                self._process = Process.spawn(
                    [*argv, runtime, listen, *names], pass_fds=[theirs.fileno()], cwd="/"
                )
            except BaseException:
                ours.close()
                raise
        ours.settimeout(0)
        self._socket = ours
        self._say = say
        self._waiters: dict[str, asyncio.Future[socket.socket]] = {}
        self._ready = asyncio.Event()
        self.closed = False
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)

    async def wrap(self, client: socket.socket, key: str) -> socket.socket:
        """The plain side of `client`, which is the relay's from now on, after its handshake.

        Raises: HostError when there is no TLS to be had, ConnectionError when the client speaks
        none.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._ready.wait()
        except TimeoutError:
            raise HostError("TLS did not get ready") from None
        waiter: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._waiters[key] = waiter
        try:
            if self.closed:
                raise HostError("TLS has ended")
            socket.send_fds(self._socket, [key.encode()], [client.fileno()])
            client.close()
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                return await waiter
        except TimeoutError:
            raise ConnectionError("it did not finish its TLS handshake") from None
        finally:
            self._waiters.pop(key, None)
            _drop(waiter)

    def close(self) -> None:
        """Take no more clients. The process ends with its last connection."""
        if self.closed:
            return
        self.closed = True
        self._ready.set()
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(HostError("TLS has ended"))

    async def ended(self) -> None:
        """Wait until the process has ended, which it does when QEMU is gone."""
        try:
            await self._process.wait(timeout=END_TIMEOUT)
        except TimeoutError:
            self._process.send_signal(signal.SIGKILL)
        self._process.close()

    def _hear(self) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._socket, LARGEST_MESSAGE, 1)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self.close()
            self._process.close()
            return
        word, _, text = data.decode(errors="replace").partition(" ")
        if word == "ready":
            self._ready.set()
        elif word == "says":
            self._say(f"TLS: {text}")
        else:
            self._answer(word, text, fds)

    def _answer(self, word: str, text: str, fds: list[int]) -> None:
        key, _, reason = text.partition(" ")
        waiter = self._waiters.get(key)
        if waiter is None or waiter.done():
            for fd in fds:
                os.close(fd)
        elif word == "plain" and fds:
            waiter.set_result(socket.socket(fileno=fds[0]))
        else:
            waiter.set_exception(ConnectionError(reason or "TLS failed"))


def _drop(waiter: asyncio.Future[socket.socket]) -> None:
    """Close what has come for somebody who does not wait any more."""
    if waiter.done() and not waiter.cancelled():
        waiter.exception()
