"""Cards and small devices: video, sound, network, channels, serial ports, shares, the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import Factory, define

from qlaunch.plan.draft import Draft, stable_bytes
from qlaunch.plan.model import Chardev, Device, Nic, Share
from qlaunch.plan.pci import Request
from qlaunch.profile import devices as wish_of

MIB = 1 << 20
SPICE_AGENT = "com.redhat.spice.0"
GUEST_AGENT = "org.qemu.guest_agent.0"
_NICS = {
    "rtl8139": "rtl8139",
    "pcnet": "pcnet",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "virtio": "virtio-net-pci",
}
_VIDEOS = {"qxl": "qxl-vga", "std": "VGA", "virtio": "virtio-vga", "cirrus": "cirrus-vga"}
_WATCHDOGS = {"i6300esb": "i6300esb", "ib700": "ib700"}


def video_model(draft: Draft) -> str:
    """The graphics card: as said; QXL makes way for a plain card where there is no SPICE."""
    wish = draft.profile.video
    model = wish.model or "std"
    if model == "qxl" and "qxl-vga" not in draft.facts.qemu.devices and draft.facts.qemu.devices:
        return (
            model
            if draft.profile.origins.get("video.model", "").partition(":")[0] == draft.profile.file
            else "std"
        )
    return model


def requests(draft: Draft) -> Iterator[Request]:
    """The PCI addresses of all devices here, in the order in which they are given out."""
    profile = draft.profile
    if video_model(draft) != "none":
        preferred = "01.0" if draft.q35 else "02.0"
        yield Request(
            id="video0", key="video.address", explicit=profile.video.address, preferred=preferred
        )
    if profile.sound.model in ("ac97", "hda"):
        yield Request(id="sound0", key="sound.address", explicit=profile.sound.address)
    if _channels(draft):
        yield Request(id="vser0", key="channel", express=True)
    for nic in profile.nic:
        express = nic_model(draft, nic) in ("virtio", "e1000e")
        yield Request(
            id=f"{nic.id}-dev", key=f"nic.{nic.id}.address", explicit=nic.address, express=express
        )
    for item in profile.input:
        if (item.model or "").startswith("virtio"):
            yield Request(
                id=item.id, key=f"input.{item.id}.address", explicit=item.address, express=True
            )
    for share in profile.share:
        yield Request(id=f"{share.id}-dev", key=f"share.{share.id}", express=True)
    if profile.machine.rng:
        yield Request(id="rng0", key="machine.rng", express=True)
    if profile.memory.balloon is not False and draft.guest != "dos":
        yield Request(id="balloon0", key="memory.balloon", express=True)
    if profile.machine.watchdog == "i6300esb":
        yield Request(id="watchdog0", key="machine.watchdog")


def _at(draft: Draft, ident: str) -> dict[str, object]:
    place = draft.pci.places.get(ident)
    return dict(place.props()) if place else {}


def video(draft: Draft) -> Iterator[Device]:
    """The graphics card. QXL's sizes as libvirt gives them: 64 MiB RAM and video memory."""
    wish, model = draft.profile.video, video_model(draft)
    if model == "none":
        return
    draft.has("video.model", _VIDEOS[model])
    props: dict[str, object] = {}
    if model == "qxl":
        vgamem = wish.vgamem or 16 * MIB
        # QEMU silently enlarges the RAM bar below twice the frame buffer; say what will be.
        props = {
            "max_outputs": wish.heads or 1,
            "ram_size": max(wish.ram or 64 * MIB, 2 * vgamem),
            "vram_size": wish.vram or 64 * MIB,
            "vram64_size_mb": 0,
            "vgamem_mb": vgamem // MIB,
        }
    elif model in ("std", "cirrus"):
        props = {"vgamem_mb": (wish.vgamem or wish.vram or 16 * MIB) // MIB}
    elif wish.heads:
        props = {"max_outputs": wish.heads}
    if wish.heads and wish.heads > 1 and model in ("std", "cirrus"):
        draft.notes.error(
            "video.heads", f"a {model} card has one screen", hint='use model = "qxl" or "virtio"'
        )
    yield Device(id="video0", driver=_VIDEOS[model], props={**props, **_at(draft, "video0")})


def sound(
    draft: Draft, usb_port: str | None
) -> tuple[Literal["spice", "none"] | None, tuple[Device, ...]]:
    """The sound card's devices and the audio backend; without SPICE nobody would hear it."""
    model = draft.profile.sound.model or "none"
    if model == "none":
        return None, ()
    backend: Literal["spice", "none"] = "spice" if draft.spice else "none"
    audio = {"audiodev": "audio0"}
    if model == "ac97":
        draft.has("sound.model", "AC97")
        cards = [Device(id="sound0", driver="AC97", props={**_at(draft, "sound0"), **audio})]
    elif model == "hda":
        draft.has("sound.model", "ich9-intel-hda")
        cards = [
            Device(id="sound0", driver="ich9-intel-hda", props=_at(draft, "sound0")),
            Device(
                id="sound0-codec", driver="hda-duplex", props={"bus": "sound0.0", "cad": 0, **audio}
            ),
        ]
    else:
        port = {"bus": "usb.0", "port": usb_port} if usb_port else {}
        cards = [Device(id="sound0", driver="usb-audio", props={**port, **audio})]
    return backend, tuple(cards)


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
    """The network cards, each on QEMU's user network or without a cable."""
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
    model, mac, backend = nic_model(draft, wish), mac_of(draft, wish), wish.backend or "user"
    draft.has(f"nic.{wish.id}.model", _NICS[model])
    props: dict[str, object] = {**_at(draft, f"{wish.id}-dev"), "mac": mac}
    # Without its boot ROM the firmware starts sooner, and QEMU needs no ROM file that some
    # distributions package apart.
    props |= {} if network_boot else {"romfile": ""}
    netdev: dict[str, object] | None = None
    if backend == "user":
        netdev = {"type": "user", "id": wish.id}
        props["netdev"] = wish.id
        if wish.forward:
            netdev["hostfwd"] = [{"str": _hostfwd(text)} for text in wish.forward]
        if wish.restrict:
            netdev["restrict"] = True
    elif wish.forward:
        draft.notes.error(
            f"nic.{wish.id}.forward",
            "a card without a cable cannot forward ports",
            hint='set backend = "user"',
        )
    for text in wish.forward:
        _check_forward(draft, f"nic.{wish.id}.forward", text)
    device = Device(id=f"{wish.id}-dev", driver=_NICS[model], props=props)
    return Nic(
        id=wish.id, model=model, mac=mac, device=device, netdev=netdev, forwards=tuple(wish.forward)
    )


def split_forward(text: str) -> tuple[str, str, int, int]:
    """Protocol, address, port here and port in the guest of a forward as profiles write it."""
    rest, protocol = text, "tcp"
    for word in ("tcp", "udp"):
        if rest.startswith(f"{word}:"):
            rest, protocol = rest[len(word) + 1 :], word
    head, _, guest = rest.rpartition(":")
    address, _, port = head.rpartition(":")
    return protocol, address.strip("[]") or "127.0.0.1", int(port), int(guest)


def _hostfwd(text: str) -> str:
    protocol, address, port, guest = split_forward(text)
    address = f"[{address}]" if ":" in address else address
    return f"{protocol}:{address}:{port}-:{guest}"


def _check_forward(draft: Draft, key: str, text: str) -> None:
    protocol, address, port, guest = split_forward(text)
    if not (0 < port < 65536 and 0 < guest < 65536):
        draft.notes.error(key, f"{text!r}: ports go from 1 to 65535")
    if ":" in address:
        draft.notes.error(
            key, f"{text!r}: QEMU's user network forwards IPv4 only", hint="use an IPv4 address"
        )
    if port < 1024 and draft.facts.host.uid != 0:
        draft.notes.error(
            key,
            f"port {port} is below 1024 and reserved for root",
            hint=f"use {port + 8000} or so",
            cause="refused",
        )
    holder = draft.facts.ports_in_use.get(f"{protocol}/{port}")
    if holder:
        draft.notes.error(
            key, f"port {port} is taken by {holder}", hint="pick another port", cause="conflict"
        )


@define(kw_only=True)
class Lines:
    """The virtio-serial channels and serial ports: devices, chardevs and what they are for."""

    devices: list[Device] = Factory(list)
    chardevs: list[Chardev] = Factory(list)
    serials: list[str] = Factory(list)
    agent: str | None = None


def _channels(draft: Draft) -> list[tuple[wish_of.Channel, str, str]]:
    """Channels with their type and name; those for SPICE are left out where there is none."""
    found = []
    for wish in draft.profile.channel:
        kind = wish.type or {SPICE_AGENT: "spicevmc", GUEST_AGENT: "guest-agent"}.get(
            wish.name or "", "socket" if wish.name else "spicevmc"
        )
        name = wish.name or {"spicevmc": SPICE_AGENT, "guest-agent": GUEST_AGENT}.get(
            kind, f"org.qlaunch.{wish.id}"
        )
        if kind == "spicevmc" and not draft.spice:
            continue
        found.append((wish, kind, name))
    return found


def lines(draft: Draft) -> Lines:
    """Channels and serial ports."""
    out = Lines()
    channels = _channels(draft)
    if channels:
        out.devices.append(
            Device(id="vser0", driver="virtio-serial-pci", props=_at(draft, "vser0"))
        )
    for number, (wish, kind, name) in enumerate(channels, start=1):
        out.chardevs.append(_channel_chardev(draft, wish.id, kind, name))
        # With an id of its own the port tells by VSERPORT_CHANGE when the guest opens it.
        props = {"bus": "vser0.0", "nr": number, "chardev": f"{wish.id}-chr", "name": name}
        out.devices.append(Device(id=wish.id, driver="virtserialport", props=props))
        if kind == "guest-agent" and out.agent is None:
            out.agent = f"{wish.id}-chr"
    for index, serial in enumerate(draft.profile.serial):
        if index > 3:
            draft.notes.error(
                f"serial.{serial.id}", "a PC has at most four serial ports", hint="take one away"
            )
        chardev = f"{serial.id}-chr"
        out.chardevs.append(_socket(draft, chardev, f"{serial.id}.sock"))
        out.devices.append(
            Device(id=serial.id, driver="isa-serial", props={"chardev": chardev, "index": index})
        )
        out.serials.append(serial.id)
    return out


def _channel_chardev(draft: Draft, ident: str, kind: str, name: str) -> Chardev:
    if kind == "spicevmc":
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


def shares(draft: Draft) -> tuple[Share, ...]:
    """Folders given to the guest."""
    found = []
    for wish in draft.profile.share:
        path = wish.path or ""
        facts = draft.facts.image(path)
        if not facts.exists or facts.format != "directory":
            draft.notes.error(
                f"share.{wish.id}.path", f"{path} is no folder", hint="make it, or correct the path"
            )
        draft.has(f"share.{wish.id}", "virtio-9p-pci")
        props = {"fsdev": wish.id, "mount_tag": wish.tag or wish.id, **_at(draft, f"{wish.id}-dev")}
        device = Device(id=f"{wish.id}-dev", driver="virtio-9p-pci", props=props)
        found.append(Share(id=wish.id, path=path, read_only=bool(wish.read_only), device=device))
    return tuple(found)


def extras(draft: Draft) -> Iterator[Device]:
    """Random numbers, balloon, watchdog, panic notifier."""
    machine = draft.profile.machine
    for ident, driver, props in (
        ("rng0", "virtio-rng-pci", {"rng": "rng0-source"}),
        ("balloon0", "virtio-balloon-pci", {"deflate-on-oom": True}),
    ):
        if ident in draft.pci.places:
            draft.has("machine", driver)
            yield Device(id=ident, driver=driver, props={**props, **_at(draft, ident)})
    if machine.watchdog in _WATCHDOGS:
        draft.has("machine.watchdog", machine.watchdog)
        yield Device(id="watchdog0", driver=machine.watchdog, props=_at(draft, "watchdog0"))
    if machine.panic:
        draft.has("machine.panic", "pvpanic")
        yield Device(id="panic0", driver="pvpanic")
