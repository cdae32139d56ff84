"""Who may ask the network service for what: the allow list against one request."""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from qlaunch.errors import RefusedError
from qlaunch.plan.forwards import Forward
from qlaunch.plan.model import Attachment
from qlaunch.plan.networks.model import Net
from qlaunch.profile.access import Access, Allow

MAX_NICS = 16
LEAST_PORT = 1024
MAX_PORT = 65535
RULES_FILE = "/etc/qlaunch/netd.toml"


@frozen(kw_only=True)
class Rights:
    """What one user may do. `free` is the administrator, or whose service it is."""

    free: bool = False
    rule: str = ""
    networks: tuple[str, ...] = ()
    ports: tuple[tuple[int, int], ...] = ((LEAST_PORT, MAX_PORT),)
    filters: tuple[str, ...] = ()
    max_nics: int = MAX_NICS

    def may_use(self, network: str) -> bool:
        return self.free or "*" in self.networks or network in self.networks


EVERYTHING = Rights(free=True, networks=("*",))


def rights(access: Access, user: str, groups: Collection[str]) -> Rights:
    """The rights of `user`; none for whom the list does not name."""
    for each in access.allow:
        if user in each.users or set(each.groups) & set(groups):
            return _of(each)
    return Rights()


def _of(allow: Allow) -> Rights:
    ports = []
    for text in allow.ports or (f"{LEAST_PORT}-{MAX_PORT}",):
        first, _, last = text.partition("-")
        ports.append((int(first), int(last or first)))
    return Rights(
        rule=allow.id,
        networks=allow.networks or ("default",),
        ports=tuple(ports),
        filters=allow.filters,
        max_nics=allow.max_nics or MAX_NICS,
    )


def check_network(rights: Rights, user: str, network: str) -> None:
    """Raises: RefusedError."""
    if not rights.may_use(network):
        if not rights.networks:
            hint = f"the administrator can allow it: sudo qlaunch net setup --user {user}"
            raise RefusedError(f"{user} may not use the networks of this computer", hint=hint)
        raise RefusedError(
            f"{user} may not use the network {network}",
            hint=f"allowed are: {', '.join(rights.networks)} ({RULES_FILE}: {rights.rule})",
        )


def check_filter(rights: Rights, net: Net, wanted: str) -> None:
    """Raises: RefusedError."""
    allowed = rights.filters or (("clean",) if net.managed else ("clean", "mac"))
    if not rights.free and wanted not in allowed:
        raise RefusedError(
            f"the filter {wanted!r} is not allowed here",
            hint=f"allowed are: {', '.join(allowed)} ({RULES_FILE}: {rights.rule})",
        )


def check_forwards(rights: Rights, forwards: Collection[Forward]) -> None:
    """Raises: RefusedError."""
    for forward in forwards:
        if rights.free or forward.loopback:
            continue
        if not any(first <= forward.port <= last for first, last in rights.ports):
            allowed = ", ".join(f"{first}-{last}" for first, last in rights.ports)
            raise RefusedError(
                f"port {forward.port} of this computer may not be forwarded",
                hint=f"allowed are: {allowed} ({RULES_FILE}: {rights.rule})",
            )


def check_count(rights: Rights, user: str, have: int) -> None:
    """Raises: RefusedError."""
    if not rights.free and have >= rights.max_nics:
        raise RefusedError(
            f"{user} has {have} network cards plugged in, as many as are allowed",
            hint=f"max_nics in {RULES_FILE}: {rights.rule}",
        )


def check_all(
    rights: Rights,
    user: str,
    net: Net,
    wanted: Attachment,
    forwards: Collection[Forward],
    have: int,
) -> None:
    """See that `user` may plug a card into `net`. Raises: RefusedError."""
    check_network(rights, user, net.name)
    check_filter(rights, net, wanted.filter)
    check_forwards(rights, forwards)
    check_count(rights, user, have)
