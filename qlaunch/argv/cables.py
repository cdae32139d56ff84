"""Where a network card's cable leads: `-netdev`, what QMP and the monitor say of it, passt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from qlaunch.argv.graph import Command
from qlaunch.plan.forwards import Forward
from qlaunch.plan.model import Nic
from qlaunch.plan.nics import hostfwd


@frozen(kw_only=True)
class Cable:
    """What was opened for one cable, as QEMU is told of it: numbers of descriptors on a command
    line, names of descriptors (`getfd`) over QMP. A TAP has a descriptor for each pair of queues,
    passt one on which QEMU listens."""

    fds: tuple[str, ...] = ()
    vhost_fds: tuple[str, ...] = ()


def netdev(nic: Nic, cable: Cable | None) -> Mapping[str, Any] | None:
    """The card's `-netdev`; without a `cable` one by path, which a person can run."""
    if nic.netdev is None or cable is None:
        return nic.netdev
    if nic.backend == "passt":
        # QEMU is the server: it listens again when its passt is gone, so that another can take its
        # place. As a client QEMU 7.2 never connects a second time.
        address = {"type": "fd", "str": cable.fds[0]}
        return {"type": "stream", "id": nic.id, "server": True, "addr": address}
    found: dict[str, Any] = {"type": "tap", "id": nic.id, "fds": ":".join(cable.fds)}
    if cable.vhost_fds:
        found |= {"vhost": True, "vhostfds": ":".join(cable.vhost_fds)}
    return found


def needs_cable(nic: Nic) -> bool:
    """Whether something has to be opened for the card before QEMU can have it."""
    return nic.attachment is not None or nic.backend == "passt"


# ---- while the machine runs ---------------------------------------------------------------------


def names(nic: Nic, *, vhost: bool = False) -> Cable:
    """What the descriptors of the card's cable are called while QEMU is given them (`getfd`)."""
    if nic.attachment is None:
        return Cable(fds=(f"{nic.id}-passt",))
    queues = range(nic.attachment.queues)
    return Cable(
        fds=tuple(f"{nic.id}-tap{number}" for number in queues),
        vhost_fds=tuple(f"{nic.id}-vhost{number}" for number in queues) if vhost else (),
    )


def plug_in(nic: Nic, cable: Cable | None) -> tuple[Command, ...]:
    """Give QEMU the cable, then the card."""
    found = netdev(nic, cable)
    back = () if found is None else (Command("netdev_add", found),)
    # Boot indexes are the firmware's: what comes later has none, and may not claim another's.
    props = {key: value for key, value in nic.device.props.items() if key != "bootindex"}
    card = {"driver": nic.device.driver, "id": nic.device.id, **props}
    return (*back, Command("device_add", card))


def take_out(nic: Nic) -> Command:
    """Ask for the card to be taken out; the guest must let go of it."""
    return Command("device_del", {"id": nic.device.id})


def remove(ident: str) -> Command:
    """Take away the cable of a card that is gone."""
    return Command("netdev_del", {"id": ident})


def set_link(nic: Nic, *, up: bool) -> Command:
    """Put the cable in or pull it out, at the card: the guest sees it."""
    return Command("set_link", {"name": nic.device.id, "up": up})


def add_forward(ident: str, each: Forward) -> str:
    """The monitor's line that adds a forward to QEMU's user network."""
    return f"hostfwd_add {ident} {hostfwd(str(each))}"


def remove_forward(ident: str, each: Forward) -> str:
    """The monitor's line that takes a forward away."""
    return f"hostfwd_remove {ident} {each.proto}:{each.address}:{each.port}"


# ---- passt --------------------------------------------------------------------------------------


def passt(nic: Nic, fd: int) -> tuple[str, ...]:
    """What starts passt for the card, connected to QEMU by the descriptor `fd`."""
    forwards = [Forward.parse(text) for text in nic.forwards]
    return (
        nic.program or "passt", "--foreground", "--quiet", "--stderr", "--fd", str(fd),
        *_ports("--tcp-ports", (each for each in forwards if each.proto == "tcp")),
        *_ports("--udp-ports", (each for each in forwards if each.proto == "udp")),
    )  # fmt: skip


def passt_by_hand(nic: Nic) -> tuple[str, ...]:
    """The same for a person: passt waits for QEMU at a socket."""
    assert nic.netdev is not None
    words = passt(nic, 0)
    return (*words[:4], "--socket", nic.netdev["addr"]["path"], *words[6:])


def _ports(option: str, forwards: Iterable[Forward]) -> tuple[str, ...]:
    words = [f"{each.address}/{each.port}:{each.to_port}" for each in forwards]
    return tuple(word for value in words or ["none"] for word in (option, value))
