"""Cards and small devices: video, sound, network, shares, the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from qlaunch.plan.draft import Draft
from qlaunch.plan.lines import channels
from qlaunch.plan.model import Device, Share
from qlaunch.plan.nics import nic_model
from qlaunch.plan.pci import Request
from qlaunch.profile import devices as wish_of
from qlaunch.units import format_size

MIB = 1 << 20
_HDA = {"hda": "ich9-intel-hda", "ich6": "intel-hda"}
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
    if profile.sound.model in ("ac97", *_HDA):
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
    if model not in _HDA:
        driver = "AC97" if model == "ac97" else "usb-audio"
        return backend, (draft.device("sound.model", "sound0", driver, audio),)
    card = draft.device("sound.model", "sound0", _HDA[model], {})
    props = {"bus": "sound0.0", "cad": 0, **audio}
    return backend, (card, draft.device("sound.model", "sound0-codec", "hda-duplex", props))


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
