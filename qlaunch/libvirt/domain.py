"""A domain as a profile: the parts one after the other, then the text."""

from __future__ import annotations

import re

from qlaunch.errors import ProfileError
from qlaunch.libvirt import buses as bus
from qlaunch.libvirt import cards, lines, parts, passthrough, private, storage
from qlaunch.libvirt.board import board
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.guess import guest
from qlaunch.libvirt.imported import Imported
from qlaunch.libvirt.processor import features_of_cpu, processor
from qlaunch.libvirt.report import Entry, Report
from qlaunch.libvirt.short import shorten
from qlaunch.libvirt.text import text_of
from qlaunch.libvirt.wish import Wish
from qlaunch.libvirt.xml import Document


def domain_of(document: Document, shown: str) -> Element:
    """The `<domain>` of a file, also within what libvirt keeps of a running or saved one.

    Raises: ProfileError when there is none.
    """
    root = document.root
    if root.tag in ("domstatus", "domainsnapshot", "domainbackup"):
        found = root.first("domain")
        if found is not None:
            return found
    if root.tag != "domain":
        raise ProfileError(
            f"{shown}:{root.line}",
            f"<{root.tag[:40]}> is no domain",
            hint="the file begins with <domain type='kvm'>",
        )
    return root


def import_domain(
    document: Document, shown: str, *, called: str | None = None, stem: str | None = None
) -> Imported:
    """The profile of the domain in `document`; `called` is a name instead of its own. The file is
    to be called `stem`.toml: with another name, or none, the profile says the machine's.

    Raises: ProfileError when it is no machine of qlaunch's.
    """
    report = Report()
    root = domain_of(document, shown)
    wish = Wish(report)
    kept = private.kept(root)
    for mended in document.mended:
        report.entries.append(Entry("mended", mended.line, "file", mended.message))
    name = called or _name(root, wish)
    if stem is None or stem not in ("", name):
        wish.say(root, "name", name)
    _head(root, wish, kept)
    _fill(root, wish, shown)
    private.restore(root, wish, kept)
    report.leftovers(root)
    networks = tuple(item["network"] for item in wish.items.get("nic", ()) if "network" in item)
    shorten(wish)
    entries = tuple(report.ordered())
    text = text_of(wish, shown, entries)
    return Imported(name=name, text=text, report=entries, networks=networks)


def _name(root: Element, wish: Wish) -> str:
    """What the machine is called: the domain's name, as far as a machine can be called so."""
    said = root.within("name").words()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", said).strip("-._")[:41]
    if name != said:
        if said:
            wish.say(root.within("name"), "title", said)
        name = name or "imported"
    return name


def _head(root: Element, wish: Wish, kept: private.Kept) -> None:
    found, why = guest(root)
    if said := kept.pop("guest", None):
        found, why = str(said), ""
    wish.say(root, "guest", found, why)
    metadata = root.first("metadata")
    if metadata is not None:
        wish.report.unneeded(metadata, "notes of other programs")
    root.within("name").words()
    title = root.within("title").words()
    if title:
        wish.say(root.within("title"), "title", re.sub(r"\s+", " ", title))
    uuid = root.within("uuid").words()
    if uuid:
        if re.fullmatch(r"[0-9a-fA-F]{32}", uuid):
            uuid = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
        wish.say(root.within("uuid"), "uuid", uuid.lower())
    description = root.first("description")
    if description is not None and description.words():
        wish.comments["description"] = description.words()


def _fill(root: Element, wish: Wish, shown: str) -> None:
    devices = root.within("devices")
    board(root, wish, shown)
    processor(root, wish)
    places = bus.controllers(devices, wish)
    storage.disks(devices, wish, places)
    cards.nics(devices, wish, places)
    cards.graphics(devices, wish)
    cards.video(devices, wish, places)
    cards.sound(devices, wish, places)
    lines.lines(devices, wish, places)
    parts.parts(root, wish, places)
    features_of_cpu(root, wish)
    passthrough.smbios(root, wish)
    passthrough.commandline(root, wish)
    if wish.args:
        wish.say(root, "qemu.args", tuple(wish.args))
    _places(root, wish)


def _places(root: Element, wish: Wish) -> None:
    """The PCI addresses of parts that there are."""
    there = {f"{item['id']}-dev" for item in wish.items.get("share", ())}
    drives = (*wish.items.get("disk", ()), *wish.items.get("cdrom", ()))
    kinds = {item.get("bus") for item in drives}
    there |= {"scsi0"} if "scsi" in kinds else set()
    there |= {"ahci0"} if "sata" in kinds else set()
    there |= {"vser0"} if wish.items.get("channel") else set()
    there |= {"balloon0"} if wish.get("memory.balloon") else set()
    there |= {"rng0"} if wish.get("machine.rng") else set()
    there |= {"watchdog0"} if wish.get("machine.watchdog") == "i6300esb" else set()
    said = tuple(f"{ident}={place}" for ident, place in wish.places.items() if ident in there)
    if said:
        wish.say(root, "machine.pci", said)
