"""Lines into the guest: virtio-serial channels, serial ports, and QEMU's own monitors."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import Factory, define

from qlaunch.plan.draft import Draft
from qlaunch.plan.model import Chardev, Device
from qlaunch.plan.seats import Seat
from qlaunch.profile import devices as wish_of

SPICE_AGENT = "com.redhat.spice.0"
GUEST_AGENT = "org.qemu.guest_agent.0"
WEBDAV = "org.spice-space.webdav.0"
_KINDS = {SPICE_AGENT: "spicevmc", GUEST_AGENT: "guest-agent"}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@define(kw_only=True)
class Lines:
    """The virtio-serial channels and serial ports: devices, chardevs and what they are for."""

    devices: list[Device] = Factory(list)
    chardevs: list[Chardev] = Factory(list)
    serials: list[str] = Factory(list)
    agent: str | None = None


def channels(draft: Draft) -> list[tuple[wish_of.Channel, str, str]]:
    """Channels with their type and name, and one for shared folders where the SPICE agent has its
    own. Without SPICE those for it are left out; with VNC QEMU itself talks to the agent."""
    found = []
    for wish in draft.profile.channel:
        kind = wish.type or _KINDS.get(wish.name or SPICE_AGENT, "socket")
        name = wish.name or _NAMES.get(kind, f"org.qlaunch.{wish.id}")
        if kind == "spicevmc" and not draft.spice:
            if name != SPICE_AGENT or not _qemu_is_client(draft):
                continue
            kind = "qemu-vdagent"
        found.append((wish, kind, name))
    names = {name for _wish, _kind, name in found}
    wanted = draft.profile.display.folder_sharing
    wanted = SPICE_AGENT in names if wanted is None else wanted
    if wanted and draft.spice and WEBDAV not in names:
        found.append((wish_of.Channel(id="webdav0"), "spicevmc", WEBDAV))
    return found


def _qemu_is_client(draft: Draft) -> bool:
    """Whether QEMU speaks to the SPICE agent itself, for the clipboard of VNC clients."""
    display = draft.profile.display
    has = "chardev-qemu-vdagent" in draft.facts.qemu.devices
    return has and draft.vnc and display.clipboard is not False


def seats(draft: Draft) -> Iterator[Seat]:
    """The ports of all channels on their controller."""
    for wish, _kind, _name in channels(draft):
        key = f"channel.{wish.id}"
        port = None if wish.port is None else str(wish.port)
        yield Seat(id=wish.id, bus="vser", key=key, said=f"{key}.port", explicit=port)


def lines(draft: Draft) -> Lines:
    """Channels and serial ports."""
    out = Lines()
    if "vser0" in draft.pci.places:
        out.devices.append(draft.device("channel", "vser0", "virtio-serial-pci", {}))
    _add_channels(draft, out)
    _add_serials(draft, out)
    return out


def _add_channels(draft: Draft, out: Lines) -> None:
    names: dict[str, str] = {}
    for wish, kind, name in channels(draft):
        key = f"channel.{wish.id}"
        holder = names.setdefault(name, wish.id)
        if holder != wish.id:
            draft.notes.error(
                f"{key}.name",
                f"{name!r} is already the name of {holder}",
                hint="the guest tells channels apart by their names",
            )
        out.chardevs.append(_channel_chardev(draft, key, wish.id, kind, name))
        number = draft.seats.number(wish.id)
        # With an id of its own the port tells by VSERPORT_CHANGE when the guest opens it.
        props = {"bus": "vser0.0", "nr": number or 1, "chardev": f"{wish.id}-chr", "name": name}
        out.devices.append(draft.device(key, wish.id, "virtserialport", props))
        if kind == "guest-agent" and out.agent is None:
            out.agent = f"{wish.id}-chr"


def _add_serials(draft: Draft, out: Lines) -> None:
    """The first serial port of the profile is COM1: a guest's console is told by that name."""
    for index, serial in enumerate(draft.profile.serial):
        key, chardev = f"serial.{serial.id}", f"{serial.id}-chr"
        if index > 3:
            draft.notes.error(key, "a PC has at most four serial ports", hint="take one away")
        out.chardevs.append(_socket(draft, chardev, f"{serial.id}.sock"))
        props = {"chardev": chardev, "index": index}
        out.devices.append(draft.device(key, serial.id, "isa-serial", props))
        out.serials.append(serial.id)


def _channel_chardev(draft: Draft, key: str, ident: str, kind: str, name: str) -> Chardev:
    if kind == "qemu-vdagent":
        return Chardev(id=f"{ident}-chr", kind="qemu-vdagent")
    if kind == "spicevmc":
        draft.has(f"{key}.type", "chardev-spicevmc")
        # QEMU's SPICE knows the agent's channel as "vdagent"; other ports go by their own name.
        if name == SPICE_AGENT:
            return Chardev(id=f"{ident}-chr", kind="spicevmc", name="vdagent")
        return Chardev(id=f"{ident}-chr", kind="spiceport", name=name)
    return _socket(draft, f"{ident}-chr", f"{ident}.sock")


def _socket(draft: Draft, ident: str, file: str) -> Chardev:
    return Chardev(id=ident, kind="socket", path=f"{draft.places.runtime}/{file}")


def monitors(draft: Draft) -> tuple[Chardev, ...]:
    """Two QMP monitors: one for the supervisor, one for people and tools (a second client on one
    monitor hangs for ever)."""
    return (_socket(draft, "qmp", "qmp.sock"), _socket(draft, "monitor", "monitor.sock"))
