"""The network service that a card is plugged into."""

from __future__ import annotations

from qlaunch.errors import HostError
from qlaunch.network import client, own
from qlaunch.network.client import Service


async def service_of(backend: str, *, start: bool = False) -> Service:
    """The service that has the networks of `backend`; the user's own is started if asked to.

    Raises: HostError when it does not answer.
    """
    if backend == "netd":
        service = await client.probe("netd", client.system_socket())
    else:
        if start:
            return await own.start()
        service = await client.probe("rootless", client.rootless_socket())
    if service is None:
        path = client.system_socket() if backend == "netd" else client.rootless_socket()
        raise HostError(
            f"the network service does not answer at {path}",
            hint="`sudo qlaunch net setup` starts it" if backend == "netd" else None,
        )
    return service
