"""Cards and small devices: video, sound, network, shares, the rest."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

from qlaunch.plan.draft import Draft, stable_bytes
from qlaunch.plan.lines import channels
from qlaunch.plan.model import Device, Nic, Share
from qlaunch.plan.pci import Request
from qlaunch.profile import devices as wish_of
from qlaunch.units import format_size

MIB = 1 << 20
_NICS = {
    "rtl8139": "rtl8139",
    "pcnet": "pcnet",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "virtio": "virtio-net-pci",
}
_VIDEOS = {"qxl": "qxl-vga", "std": "VGA", "virtio": "virtio-vga", "cirrus": "cirrus-vga"}


def video_model(draft: Draft) -> str:
    """The graphics card: as said; QXL makes way for a plain card where QEMU lacks it and it is
    the base's, or there may be a fallback."""
    model = draft.profile.video.model or "std"
    devices = draft.facts.qemu.devices
    if model == "qxl" and devices and "qxl-vga" not in devices:
        plain = draft.profile.from_base("video.model") or draft.profile.display.fallback
        return "std" if plain else model
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
    if channels(draft):
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


def video(draft: Draft) -> Iterator[Device]:
    """The graphics card. QXL's sizes as libvirt gives them: 64 MiB RAM and video memory."""
    wish, model = draft.profile.video, video_model(draft)
    if model == "none":
        return
    _check_video(draft, model)
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
    yield draft.device("video.model", "video0", _VIDEOS[model], props)


def _check_video(draft: Draft, model: str) -> None:
    wish, notes = draft.profile.video, draft.notes
    if (wish.heads or 1) > 1 and model in ("std", "cirrus"):
        notes.error(
            "video.heads", f"a {model} card has one screen", hint='use model = "qxl" or "virtio"'
        )
    for name, most in (("vgamem", 512), ("vram", 2048), ("ram", 2048)):
        size = getattr(wish, name)
        if size is None:
            continue
        if model == "virtio" or (model != "qxl" and name == "ram"):
            notes.warn(f"video.{name}", f"has no effect on a {model} card", hint="leave it out")
        elif size % MIB:
            notes.error(
                f"video.{name}",
                f"{format_size(size)} is not a whole number of MiB",
                hint=f"write '{-(-size // MIB)}MiB'",
            )
        elif model == "cirrus" and size not in (4 * MIB, 8 * MIB, 16 * MIB):
            notes.error(f"video.{name}", "a cirrus card has 4MiB, 8MiB or 16MiB")
        elif size > (most if model == "qxl" else 512) * MIB:
            most = most if model == "qxl" else 512
            notes.error(f"video.{name}", f"a {model} card has at most {format_size(most * MIB)}")


def sound(draft: Draft) -> tuple[Literal["spice", "none"] | None, tuple[Device, ...]]:
    """The audio backend and the sound card's devices; without SPICE nobody would hear it."""
    model = draft.profile.sound.model or "none"
    if model == "none":
        return None, ()
    backend: Literal["spice", "none"] = "spice" if draft.spice else "none"
    audio: dict[str, object] = {"audiodev": "audio0"}
    if model != "hda":
        driver = "AC97" if model == "ac97" else "usb-audio"
        return backend, (draft.device("sound.model", "sound0", driver, audio),)
    card = draft.device("sound.model", "sound0", "ich9-intel-hda", {})
    props = {"bus": "sound0.0", "cad": 0, **audio}
    return backend, (card, draft.device("sound.model", "sound0-codec", "hda-duplex", props))


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
    key = f"nic.{wish.id}"
    props: dict[str, object] = {"mac": mac}
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
            f"{key}.forward",
            "a card without a cable cannot forward ports",
            hint='set backend = "user"',
        )
    for text in wish.forward:
        _check_forward(draft, f"{key}.forward", text)
    return Nic(
        id=wish.id,
        model=model,
        mac=mac,
        device=draft.device(f"{key}.model", f"{wish.id}-dev", _NICS[model], props),
        netdev=netdev,
        forwards=tuple(wish.forward),
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
    protocol, address, port, _guest = split_forward(text)
    if not is_address(address):
        draft.notes.error(key, f"{address!r} is no IP address", hint="such as 127.0.0.1")
    elif ":" in address:
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


def is_address(text: str) -> bool:
    """Whether `text` is an IP address of either version."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def shares(draft: Draft) -> tuple[Share, ...]:
    """Folders given to the guest."""
    return tuple(_share(draft, wish) for wish in draft.profile.share)


def _share(draft: Draft, wish: wish_of.Share) -> Share:
    path, key = wish.path or "", f"share.{wish.id}"
    facts = draft.facts.image(path)
    if not facts.exists or facts.format != "directory":
        draft.notes.error(
            f"{key}.path", f"{path} is no folder", hint="make it, or correct the path"
        )
    tag = wish.tag or wish.id
    others = [other.id for other in draft.profile.share if (other.tag or other.id) == tag]
    if others[0] != wish.id:
        draft.notes.error(
            f"{key}.tag", f"{tag!r} is already the mount tag of {others[0]}", hint="use another tag"
        )
    props = {"fsdev": wish.id, "mount_tag": tag}
    device = draft.device(key, f"{wish.id}-dev", "virtio-9p-pci", props)
    return Share(id=wish.id, path=path, read_only=bool(wish.read_only), device=device)


def extras(draft: Draft) -> Iterator[Device]:
    """Random numbers, balloon, watchdog, panic notifier, generation id."""
    machine = draft.profile.machine
    if machine.rng:
        yield draft.device("machine.rng", "rng0", "virtio-rng-pci", {"rng": "rng0-source"})
    if "balloon0" in draft.pci.places:
        props = {"deflate-on-oom": True}
        yield draft.device("memory.balloon", "balloon0", "virtio-balloon-pci", props)
    if machine.watchdog and machine.watchdog != "none":
        yield draft.device("machine.watchdog", "watchdog0", machine.watchdog, {})
    if machine.panic:
        yield draft.device("machine.panic", "panic0", "pvpanic", {})
    if machine.generation_id:
        yield draft.device("machine.generation_id", "generation0", "vmgenid", {"guid": "auto"})
