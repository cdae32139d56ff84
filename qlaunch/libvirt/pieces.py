"""The smaller files of libvirt: a snapshot's definition, and devices to be attached."""

from __future__ import annotations

import re
import shlex

from qlaunch.errors import ProfileError
from qlaunch.libvirt.domain import import_domain
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.imported import Imported
from qlaunch.libvirt.network import import_network
from qlaunch.libvirt.report import Entry, Report
from qlaunch.libvirt.xml import Document

# Devices of a domain that a file of their own can hold (`virsh attach-device`).
PARTS = (
    "disk", "interface", "hostdev", "input", "channel", "serial", "filesystem", "redirdev", "sound",
    "video", "graphics", "rng", "watchdog", "memballoon", "tpm", "panic", "controller",
)  # fmt: skip
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def import_any(
    document: Document, shown: str, *, called: str | None = None, stem: str | None = None
) -> Imported:
    """What the file is: a domain, a network, a snapshot or a device.

    Raises: ProfileError.
    """
    root = document.root
    if root.tag == "network":
        return import_network(document, shown, called=called)
    if root.tag == "domainsnapshot":
        return import_snapshot(document, shown, called=called)
    if root.tag in PARTS:
        return import_part(document, shown)
    if root.tag in ("pool", "volume", "secret", "nwfilter", "domaincheckpoint", "domainbackup"):
        raise ProfileError(
            f"{shown}:{root.line}",
            f"<{root.tag}> has no counterpart here: disks are files, and filters a network card's"
            " `filter`",
            hint="docs/from-libvirt.md says what to use instead",
        )
    return import_domain(document, shown, called=called, stem=stem)


def import_part(document: Document, shown: str) -> Imported:
    """The tables of a profile that say what a device of libvirt says."""
    root = document.root
    domain = Element("domain", root.line, {"type": "kvm"})
    controller = Element("controller", root.line, {"type": "usb", "model": "none"})
    devices = Element("devices", root.line, {}, [root, controller])
    memory = Element("memory", root.line, {}, [], "262144")
    domain.children = [Element("name", root.line, {}, [], "part"), memory, devices]
    whole = import_domain(Document(domain, document.mended), shown, stem="part")
    empty = Element("domain", 0, {"type": "kvm"})
    empty.children = [Element("devices", 0, {}, [controller]), memory]
    plain = import_domain(Document(empty, ()), shown, stem="imported")
    usual = set(_blocks(plain.text))
    blocks = [block for block in _blocks(whole.text) if block not in usual]
    told = tuple(entry for entry in whole.report if entry not in plain.report)
    return Imported(name=root.tag, text="\n\n".join(blocks) + "\n", report=told, kind="part")


def _blocks(text: str) -> list[str]:
    """The tables of a profile's text, one after the other."""
    return [block for block in text.strip().split("\n\n") if block.startswith("[")]


def import_snapshot(document: Document, shown: str, *, called: str | None = None) -> Imported:
    """The command that takes such a snapshot of a machine called `called`."""
    root, report = document.root, Report()
    for mended in document.mended:
        report.entries.append(Entry("mended", mended.line, "file", mended.message))
    machine = root.within("domain", "name").words()
    machine = called or _NAME.sub("-", machine).strip("-")[:41] or "NAME"
    words = ["qlaunch", "snapshot", "create", machine]
    if name := root.within("name").words():
        words.append(_NAME.sub("-", name).strip("-")[:40] or "snapshot")
    if text := re.sub(r"\s+", " ", root.within("description").words()):
        words += ["-m", text[:400]]
    memory = root.within("memory")
    kind = memory.attribute("snapshot")
    if kind == "no":
        words.append("--disks-only")
    if memory.attribute("file"):
        report.different(memory, "the memory lies beside the machine's disks", attribute="file")
    words += _disks(root, report)
    for tag in ("state", "creationTime", "parent", "active", "cookie", "inactiveDomain"):
        for element in root.each(tag):
            report.unneeded(element, "of libvirt's own snapshot: this takes a new one")
    domain = root.first("domain")
    if domain is not None:
        report.different(domain, "the machine as it was then: `qlaunch import` of the domain alone")
    report.leftovers(root)
    return Imported(
        name=machine,
        text=shlex.join(words) + "\n",
        report=tuple(report.ordered()),
        kind="snapshot",
    )


def _disks(root: Element, report: Report) -> list[str]:
    """The options for the disks that are meant, in the wrapper or without it."""
    wrapper = root.first("disks")
    found = list(wrapper.each("disk")) if wrapper is not None else []
    bare = list(root.each("disk"))
    for disk in bare:
        message = "libvirt ignores it without <disks> around it; here it counts"
        report.add("mended", Element("disk", disk.line), message)
    kept: list[str] = []
    left_out: list[str] = []
    internal = False
    for disk in (*found, *bare):
        name = disk.attribute("name")
        kind = disk.attribute("snapshot")
        internal = internal or kind == "internal"
        for child in disk.children:
            report.different(child, "qlaunch names the layer and chooses its format")
        disk.attribute("type")
        (left_out if kind == "no" else kept).append(re.sub(r"[^a-z0-9_-]", "-", name.lower())[:20])
        if kind == "no":
            what = f"[[disk]] {name[:20]}: snapshot = false leaves it out of every snapshot"
            report.different(disk, what, attribute="snapshot")
    words = ["--internal"] if internal else []
    for name in kept if left_out else ():
        words += ["--disk", name]
    return words
