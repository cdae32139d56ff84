"""Listening sockets that QEMU and clients are given, and connections to sockets of others.

What is returned is non-blocking: QEMU 7.2 can hang for ever in accept() on a blocking listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator

from qlaunch.errors import ConflictError, HostError, NotFoundError, TimedOutError
from qlaunch.host.access import why_not
from qlaunch.host.ports import port_holder
from qlaunch.host.procfs import describe

__all__ = ["bind_tcp", "bind_unix", "connect_unix", "port_holder"]

LONGEST_PATH = 107
BACKLOG = 16
CONNECT_TIMEOUT = 5.0
_RETRY = 0.02


def bind_unix(path: str, backlog: int = BACKLOG) -> socket.socket:
    """Listen on a unix socket at `path`, for this user only (mode 0600 from its first moment on).

    A socket file on which nobody listens any more is replaced. The file is the caller's to remove.

    Raises: ConflictError when somebody listens there or something else lies there, HostError.
    """
    with _address(path) as address:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Linux gives the file the mode of the unbound socket: no moment with a wider one.
            os.fchmod(listener.fileno(), 0o600)
            try:
                listener.bind(address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                _remove_stale(path, address)
                listener.bind(address)
            listener.listen(backlog)
        except OSError as error:
            listener.close()
            raise _unix_error(path, error) from error
        except BaseException:
            listener.close()
            raise
        return listener


def bind_tcp(host: str, port: int, backlog: int = BACKLOG) -> socket.socket:
    """Listen on TCP `port` (0: any free one) of `host`, an address of this computer.

    An empty host or `*` means all IPv4 addresses, `::` all of both kinds.

    Raises: ConflictError naming the holder when the port is taken, HostError.
    """
    family, address = _resolve("0.0.0.0" if host in ("", "*") else host, port)
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        listener.bind(address)
        # Only listen() settles it: with SO_REUSEADDR two may be bound to one port.
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise _tcp_error(address[0], port, error) from error
    return listener


async def connect_unix(path: str) -> socket.socket:
    """A non-blocking connection to the unix socket at `path`.

    Raises: NotFoundError when nobody listens there, TimedOutError when whoever listens takes no
    connections for 5 seconds, HostError when it is forbidden.
    """
    with _address(path) as address:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await _connect(connection, address)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            connection.close()
            raise NotFoundError(f"nobody listens on {path}") from error
        except TimeoutError as error:
            connection.close()
            raise TimedOutError(f"{path} takes no connections; its queue is full") from error
        except OSError as error:
            connection.close()
            raise _unix_error(path, error) from error
        except BaseException:
            connection.close()
            raise
        return connection


async def _connect(connection: socket.socket, address: str) -> None:
    while True:
        try:
            connection.connect(address)
        except BlockingIOError:
            # The listener's queue is full. Not "in progress", as with TCP: nothing was begun, and
            # the kernel has no event that says when to try again (loop.sock_connect calls it done).
            await asyncio.sleep(_RETRY)
        else:
            return


@contextlib.contextmanager
def _address(path: str) -> Iterator[str]:
    """A name for `path` that fits into a socket address, as long as the block lasts."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield path
        return
    directory, name = os.path.split(path)
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unix_error(path, error) from error
    try:
        address = f"/proc/self/fd/{fd}/{name}"
        if len(os.fsencode(address)) > LONGEST_PATH:
            raise HostError(f"the name {name} is too long for a socket")
        yield address
    finally:
        os.close(fd)


def _remove_stale(path: str, address: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ConflictError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            raise ConflictError(f"somebody listens on {path}") from None
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = int(struct.unpack("3i", peer)[0])
    raise ConflictError(f"{describe(pid).in_brackets if pid else 'somebody'} listens on {path}")


def _unix_error(path: str, error: OSError) -> HostError:
    directory = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT:
        return HostError(f"the directory {directory} of the socket {path} does not exist")
    told = why_not(path if os.path.lexists(path) else directory, error, write=True)
    return HostError(f"the socket {path}: {told.message}", hint=told.hint)


def _resolve(host: str, port: int) -> tuple[int, tuple[str, int]]:
    if not 0 <= port <= 65535:
        raise HostError(f"{port} is not a port; ports go from 1 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise HostError(f"{host!r} is not an address of this computer") from error
    # "localhost" is both ::1 and 127.0.0.1; clients expect the latter.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _kind, _protocol, _name, address = found[0]
    return family, (str(address[0]), port)


def _tcp_error(host: str, port: int, error: OSError) -> HostError | ConflictError:
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(port, host) or "another process"
        return ConflictError(
            f"port {port} is taken by {holder}", hint='choose another port, or port = "auto"'
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return HostError(f"{host} is not an address of this computer")
    if error.errno in (errno.EACCES, errno.EPERM):
        return HostError(
            f"port {port} needs the rights of root", hint="choose a port from 1024 upwards"
        )
    return HostError(f"port {port} of {host}: {os.strerror(error.errno or 0)}")
