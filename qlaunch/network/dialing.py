"""Connections to guests, made where their network is."""

from __future__ import annotations

import asyncio
import socket

from qlaunch.errors import HostError, TimedOutError

DIAL_TIMEOUT = 5.0


async def dial(address: str, port: int) -> int:
    """A TCP connection to a guest, made where we are. Raises: HostError, TimedOutError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        async with asyncio.timeout(DIAL_TIMEOUT):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        return sock.detach()
    except TimeoutError:
        raise TimedOutError(f"{address} port {port} does not answer") from None
    except OSError as error:
        raise HostError(f"{address} port {port}: {error.strerror}") from error
    finally:
        sock.close()
