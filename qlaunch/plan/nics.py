"""Network cards: which cable each gets, and what cannot be wished for together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Literal, cast

from attrs import evolve

from qlaunch.plan.draft import Draft, stable_bytes
from qlaunch.plan.forwards import Forward, expand
from qlaunch.plan.model import Attachment, Backend, Filter, Nic
from qlaunch.profile import devices as wish_of

# The network of `backend = "auto"`.
AUTO_NETWORK = "default"
# Cards that check and make no sums themselves.
NO_OFFLOAD = ("rtl8139", "pcnet", "e1000")
# Forwards of one card, ranges counted out.
MOST_FORWARDS = 256
_DRIVERS = {
    "rtl8139": "rtl8139",
    "pcnet": "pcnet",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "virtio": "virtio-net-pci",
}
_TAPS = ("netd", "rootless")


def nic_model(draft: Draft, wish: wish_of.Nic) -> str:
    return wish.model or draft.defaults.nic


def mac_of(draft: Draft, wish: wish_of.Nic) -> str:
    """The card's MAC: as said, as leased, or made from who and where the machine is."""
    if wish.mac:
        return wish.mac.lower()
    if wish.id in draft.leases.macs:
        return draft.leases.macs[wish.id]
    tail = stable_bytes(
        "mac", draft.facts.host.machine_id, str(draft.facts.host.uid), draft.name, wish.id
    )[:3]
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def nics(draft: Draft, *, network_boot: bool) -> tuple[Nic, ...]:
    """The network cards, each with its cable."""
    cards = tuple(_nic(draft, wish, network_boot=network_boot) for wish in draft.profile.nic)
    seen: dict[str, str] = {}
    for card in cards:
        other = seen.setdefault(card.mac, card.id)
        if other != card.id:
            draft.notes.error(
                f"nic.{card.id}.mac",
                f"{card.mac} is already the address of {other}",
                hint="leave `mac` out and each card gets its own",
            )
    return cards


def _nic(draft: Draft, wish: wish_of.Nic, *, network_boot: bool) -> Nic:
    key, model = f"nic.{wish.id}", nic_model(draft, wish)
    backend = _backend(draft, wish)
    _check_words(draft, wish, model, backend)
    forwards = tuple(str(each) for each in _forwards(draft, wish, backend))
    queues = (wish.queues or 1) if backend in _TAPS and model == "virtio" else 1
    props: dict[str, object] = {"mac": mac_of(draft, wish)}
    # Without its boot ROM the firmware starts sooner, and QEMU needs no ROM file that some
    # distributions package apart.
    props |= {} if network_boot else {"romfile": ""}
    props |= {"netdev": wish.id} if backend != "none" else {}
    # One interrupt for each of the queues' two directions, one for control, one for changes.
    props |= {"mq": True, "vectors": 2 * queues + 2} if queues > 1 else {}
    card = Nic(
        id=wish.id,
        model=model,
        mac=mac_of(draft, wish),
        device=draft.device(f"{key}.model", f"{wish.id}-dev", _DRIVERS[model], props),
        forwards=forwards,
        backend=backend,
        link=cast("Literal['up', 'down']", wish.link or "up"),
    )
    if backend in _TAPS:
        card = evolve(card, attachment=_attachment(draft, wish, card, queues))
    return evolve(
        card,
        netdev=_netdev(draft, wish, card),
        program=draft.facts.network.passt or "passt" if backend == "passt" else None,
    )


def _attachment(draft: Draft, wish: wish_of.Nic, card: Nic, queues: int) -> Attachment:
    return Attachment(
        network=wish.network or AUTO_NETWORK,
        mac=card.mac,
        queues=queues,
        ipv4=_address(draft, wish, 4),
        ipv6=_address(draft, wish, 6),
        filter=cast("Filter", wish.filter or "clean"),
        forwards=service_forwards(card.backend, card.forwards),
        hostname=re.sub(r"[^a-z0-9-]", "-", draft.name.lower()).strip("-")[:63],
        offload=card.model not in NO_OFFLOAD,
    )


def service_forwards(backend: Backend, forwards: Iterable[str]) -> tuple[str, ...]:
    """Of the forwards those that the network service makes. The others are the supervisor's: those
    on this computer's loopback, and all of a rootless network, which is not this computer's."""
    if backend != "netd":
        return ()
    return tuple(text for text in forwards if not Forward.parse(text).loopback)


def own_forwards(nic: Nic) -> tuple[Forward, ...]:
    """Of the card's forwards those at whose port the supervisor listens."""
    if nic.attachment is None:
        return ()
    others = service_forwards(nic.backend, nic.forwards)
    return tuple(Forward.parse(text) for text in nic.forwards if text not in others)


def _netdev(draft: Draft, wish: wish_of.Nic, card: Nic) -> dict[str, object] | None:
    if card.backend == "none":
        return None
    if card.backend == "user":
        netdev: dict[str, object] = {"type": "user", "id": card.id}
        if card.forwards:
            netdev["hostfwd"] = [{"str": hostfwd(text)} for text in card.forwards]
        return netdev | ({"restrict": True} if wish.restrict else {})
    if card.backend == "passt":
        path = f"{draft.places.runtime}/{card.id}.passt"
        address = {"type": "unix", "path": path}
        return {"type": "stream", "id": card.id, "server": False, "addr": address}
    name = f"{draft.name}-{card.id}"[-15:].lstrip("-.")
    return {"type": "tap", "id": card.id, "ifname": name, "script": "no", "downscript": "no"}


def changed(
    nic: Nic,
    *,
    forwards: Iterable[str],
    filter: str | None = None,  # noqa: A002  # the profile's word
    link: str | None = None,
    network: str | None = None,
) -> Nic:
    """The card with other forwards, and with another filter, link and network where they are said;
    an address of the old network stays there."""
    texts, netdev, attachment = tuple(forwards), nic.netdev, nic.attachment
    if nic.backend == "user" and netdev is not None:
        netdev = {key: value for key, value in netdev.items() if key != "hostfwd"}
        if texts:
            netdev["hostfwd"] = [{"str": hostfwd(text)} for text in texts]
    if attachment is not None:
        attachment = evolve(
            attachment,
            forwards=service_forwards(nic.backend, texts),
            filter=cast("Filter", filter or attachment.filter),
        )
        if network is not None and network != attachment.network:
            attachment = evolve(attachment, network=network, ipv4=None, ipv6=None)
    return evolve(
        nic,
        netdev=netdev,
        forwards=texts,
        attachment=attachment,
        link=cast("Literal['up', 'down']", link or nic.link),
    )


def hostfwd(text: str) -> str:
    """A forward as QEMU's user network spells it."""
    each = Forward.parse(text)
    address = f"[{each.address}]" if ":" in each.address else each.address
    return f"{each.proto}:{address}:{each.port}-:{each.to_port}"


# ---- which cable --------------------------------------------------------------------------------


def _backend(draft: Draft, wish: wish_of.Nic) -> Backend:
    """The cable: as said, or the best that there is for `auto`."""
    network, key = draft.facts.network, f"nic.{wish.id}"
    if wish.network is not None:
        if wish.backend is not None:
            draft.notes.error(
                f"{key}.network",
                "`network` and `backend` exclude each other",
                hint=f"leave `backend` out: the card is plugged into {wish.network}",
            )
        return _service(draft, wish.network) or _no_service(draft, wish)
    said = wish.backend or "user"
    if said == "auto":
        if wish.restrict:
            return "user"
        return _service(draft, AUTO_NETWORK) or ("passt" if network.passt else "user")
    if said == "passt":
        _check_passt(draft, f"{key}.backend")
    return cast("Backend", said)


def _service(draft: Draft, name: str) -> Backend | None:
    """Who has the network `name` for this user."""
    network = draft.facts.network
    if network.netd is not None and {"*", name} & set(network.netd):
        return "netd"
    return "rootless" if network.rootless else None


def _no_service(draft: Draft, wish: wish_of.Nic) -> Backend:
    network, key = draft.facts.network, f"nic.{wish.id}.network"
    if network.netd is not None:
        draft.notes.error(
            key,
            f"the network service lets this user into {', '.join(network.netd) or 'no network'},"
            f" not into {wish.network}",
            hint="root may allow it in /etc/qlaunch/netd.toml",
            cause="refused",
        )
    else:
        problem = network.rootless_problem
        draft.notes.error(
            key,
            "no network service answers" + (f", and without root: {problem}" if problem else ""),
            hint='`sudo qlaunch net setup` starts one; or write backend = "auto"',
            cause="host",
        )
    return "netd"


def _check_passt(draft: Draft, key: str) -> None:
    if draft.facts.network.passt is None:
        draft.notes.error(
            key,
            "the program passt is not installed",
            hint="on Debian and Ubuntu: sudo apt install passt",
            cause="host",
        )


# ---- what goes together -------------------------------------------------------------------------


def _check_words(draft: Draft, wish: wish_of.Nic, model: str, backend: Backend) -> None:
    """Keys that mean something with other cables or cards only."""
    key, notes = f"nic.{wish.id}", draft.notes
    if (wish.queues or 1) > 1 and model != "virtio":
        notes.error(
            f"{key}.queues",
            f"a card of the model {model} has one pair of queues",
            hint='set model = "virtio", or leave `queues` out',
        )
    for name in ("ipv4", "ipv6", "filter", "queues"):
        if getattr(wish, name) is None or backend in _TAPS:
            continue
        if wish.backend == "auto":
            notes.warn(
                f"{key}.{name}",
                f"has no effect: the cable is {backend}, as there is no network service",
                hint="`sudo qlaunch net setup` starts one",
            )
        elif not (name == "queues" and (wish.queues == 1 or model != "virtio")):
            notes.error(
                f"{key}.{name}",
                f"has no meaning with the backend {backend}",
                hint=f'write network = "{AUTO_NETWORK}" in place of `backend`, or leave it out',
            )
    if wish.restrict and (wish.network is not None or wish.backend in ("passt", "none")):
        notes.error(
            f"{key}.restrict",
            "only QEMU's user network can keep a guest from everything",
            hint='set backend = "user"; or a network with mode = "isolated"',
        )
    if backend == "none" and wish.link is not None:
        notes.error(f"{key}.link", "there is no cable", hint='set backend = "user"')


def _address(draft: Draft, wish: wish_of.Nic, version: Literal[4, 6]) -> str | None:
    text = wish.ipv4 if version == 4 else wish.ipv6
    if text is None:
        return None
    key = f"nic.{wish.id}.ipv{version}"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        draft.notes.error(key, f"{text!r} is no IPv{version} address")
        return None
    if address.version != version:
        draft.notes.error(key, f"{text!r} is no IPv{version} address")
    elif address.is_multicast or address.is_unspecified or address.is_loopback:
        draft.notes.error(key, f"{text} is not an address that a guest can have")
    return str(address)


def is_address(text: str) -> bool:
    """Whether `text` is an IP address of either version."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# ---- forwards -----------------------------------------------------------------------------------


def _forwards(draft: Draft, wish: wish_of.Nic, backend: Backend) -> tuple[Forward, ...]:
    key = f"nic.{wish.id}.forward"
    if wish.forward and backend == "none":
        draft.notes.error(
            key, "a card without a cable cannot forward ports", hint='set backend = "user"'
        )
        return ()
    found: list[Forward] = []
    for text in wish.forward:
        try:
            some = expand(text)
        except ValueError as error:
            draft.notes.error(key, str(error), hint="such as 127.0.0.1:2222:22")
            continue
        for each in some:
            if problem := forward_problem(each, backend):
                draft.notes.error(key, problem[0], hint=problem[1])
            _check_port(draft, key, each)
        found += some
    if len(found) > MOST_FORWARDS:
        draft.notes.error(key, f"there are {len(found)}; {MOST_FORWARDS} are allowed")
    return tuple(found[:MOST_FORWARDS])


def forward_problem(each: Forward, backend: Backend) -> tuple[str, str] | None:
    """Why such a cable cannot have the forward, and what to do; None when it can."""
    if backend == "user" and each.version == 6:
        return (
            f"'{each}': QEMU's user network forwards IPv4 only",
            "use an IPv4 address, or another backend",
        )
    if each.proto == "udp" and (backend == "rootless" or (backend == "netd" and each.loopback)):
        where = "a network without root" if backend == "rootless" else "this computer's loopback"
        return (
            f"'{each}': {where} leads TCP into a guest, and no UDP",
            "say another address of this computer" if backend == "netd" else "use TCP",
        )
    return None


def _check_port(draft: Draft, key: str, each: Forward) -> None:
    if each.port < 1024 and draft.facts.host.uid != 0:
        draft.notes.error(
            key,
            f"port {each.port} is below 1024 and reserved for root",
            hint=f"use {each.port + 8000} or so",
            cause="refused",
        )
    holder = draft.facts.ports_in_use.get(f"{each.proto}/{each.port}")
    if holder:
        draft.notes.error(
            key,
            f"port {each.port} is taken by {holder}",
            hint="pick another port",
            cause="conflict",
        )
