"""What the actions of `qlaunch net` share: which service has a network, and where its file is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from qlaunch.errors import HostError, NotFoundError, UsageError
from qlaunch.network import client, own
from qlaunch.network.client import Service
from qlaunch.profile.findings import did_you_mean
from qlaunch.profile.network import NETWORK_NAME, NETWORK_NAME_WORDS
from qlaunch.store import paths

NO_SERVICE = "`sudo qlaunch net setup` starts root's service"


@frozen(kw_only=True)
class Known:
    """A network: the service that has it (None where none answers), and its state or its file."""

    name: str
    service: Service | None
    state: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        return {**self.state, "service": self.service.kind if self.service else None}


async def answering() -> list[Service]:
    """The services that answer, root's first."""
    found = await asyncio.gather(
        client.probe("netd", client.system_socket()),
        client.probe("rootless", client.rootless_socket()),
    )
    return [service for service in found if service is not None]


async def known_networks() -> list[Known]:
    """Every network that this user may use, there or not; root's before the user's own."""
    found: dict[tuple[str, bool], Known] = {}
    services = await answering()
    for service in services:
        for state in (await service.ask("networks"))["networks"]:
            key = (str(state["name"]), service.kind == "netd")
            found[key] = Known(name=key[0], service=service, state=state)
    own = os.getuid() == 0
    for name, path in own_files().items():
        if (name, own) not in found and not (own and services):
            found[name, own] = Known(name=name, service=None, state=state_of_file(name, path))
    return [found[key] for key in sorted(found, key=lambda key: (not key[1], key[0]))]


def own_files() -> dict[str, str]:
    """The network files that this user's networks are made of, by name."""
    return paths.network_files(paths.network_dirs(system=os.getuid() == 0))


def state_of_file(name: str, path: str) -> dict[str, Any]:
    """The state of a network of which nothing but the file is there."""
    from qlaunch import records
    from qlaunch.errors import QlaunchError
    from qlaunch.profile.network_load import load_network

    state = client.NetworkState(name=name, mode="?", bridge="", state="broken", file=path)
    plain: dict[str, Any] = records.to_plain(state)
    try:
        wish = load_network(path)
    except QlaunchError as error:
        return plain | {"problem": error.message}
    return plain | {
        "mode": wish.mode or "nat",
        "bridge": wish.bridge or f"ql-{name}"[:15],
        "state": "down",
        "title": wish.title or "",
        "autostart": bool(wish.autostart),
    }


def check_name(name: str) -> str:
    """Raises: UsageError when no network can be called `name`."""
    import re

    if not re.fullmatch(NETWORK_NAME, name):
        raise UsageError(f"{name!r} is no name for a network", hint=NETWORK_NAME_WORDS)
    return name


async def service_of(name: str, *, start: bool = False) -> Service:
    """The service that has the network `name`: root's where it lets this user in, else the user's
    own, which is started if asked to.

    Raises: NotFoundError, HostError when there is none.
    """
    check_name(name)
    services = {service.kind: service for service in await answering()}
    netd = services.get("netd")
    if netd is not None and (os.getuid() == 0 or await _has(netd, name)):
        return netd
    if os.getuid() == 0:
        raise HostError("the network service does not run", hint=NO_SERVICE)
    if name not in own_files():
        raise unknown(name, own_files())
    if "rootless" in services:
        return services["rootless"]
    if start:
        return await own.start()
    raise HostError(
        "your network service does not run: none of your networks is up",
        hint=f"`qlaunch net up {name}` starts it",
    )


async def _has(service: Service, name: str) -> bool:
    return any(each["name"] == name for each in (await service.ask("networks"))["networks"])


def unknown(name: str, known: Iterable[str]) -> NotFoundError:
    hint = did_you_mean(name, known) or "`qlaunch net list` shows the networks"
    return NotFoundError(f"there is no network {name!r}", hint=hint)


async def folder() -> str:
    """The folder that new network files of this user go to."""
    if os.getuid() == 0:
        service = await client.probe("netd", client.system_socket())
        if service is not None and service.folder:
            return service.folder
    return paths.network_dirs(system=os.getuid() == 0)[0]


async def file_of(name: str) -> str:
    """The file of the network `name`, which may be a shipped one. Raises: NotFoundError."""
    check_name(name)
    mine = await folder()
    files = paths.network_files([mine, *paths.network_dirs(system=os.getuid() == 0)])
    if name not in files:
        raise unknown(name, files)
    return files[name]
