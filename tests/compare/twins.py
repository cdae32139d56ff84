"""One XML file, two machines, and what is not the same about them."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve, frozen

from qlaunch.argv import command_line
from qlaunch.facts import ImageFacts, NetworkFacts
from qlaunch.libvirt.domain import domain_of, import_domain
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.imported import Imported
from qlaunch.libvirt.render import element, render
from qlaunch.libvirt.xml import read
from qlaunch.profile.load import loads
from qlaunch.profile.model import Profile
from tests import plans
from tests.compare.libvirt import Libvirt, Native
from tests.compare.machine import Machine, ask, of_kvm, runnable

_QEMU_URI = "http://libvirt.org/schemas/domain/qemu/1.0"
_SIZE = 1 << 20
_NOT_OF_A_DISK = ("wwn", "vendor", "shareable", "transient")
# What a machine cannot be started with here, on neither side.
_STRANGE = (
    # On the host, or not without its daemon.
    "memoryBacking", "seclabel", "resource", "numatune", "launchSecurity", "memtune", "blkiotune",
    "cputune", "metadata", "on_poweroff", "on_reboot", "on_crash", "on_lockfailure",
)  # fmt: skip
_NO_DEVICES = (
    "hostdev",
    "tpm",
    "smartcard",
    "shmem",
    "vsock",
    "iommu",
    "parallel",
    "gizmo",
    "hub",
)


@frozen(kw_only=True)
class Difference:
    """Something that one machine has and the other has not. `reason` says why that is all right."""

    what: str
    libvirt: str = ""
    qlaunch: str = ""
    reason: str = ""


@frozen(kw_only=True)
class Comparison:
    name: str
    made: Imported
    differences: tuple[Difference, ...]

    @property
    def bad(self) -> tuple[Difference, ...]:
        return tuple(each for each in self.differences if not each.reason)


def compare(file: Path, emulator: str, libvirt: Libvirt, folder: Path) -> Comparison:
    """Both machines of `file`, started with `emulator`, in `folder`.

    Raises: RefusedByLibvirt, ProfileError; RuntimeError when a QEMU does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = read(file.read_bytes(), file.name)
    domain = domain_of(document, file.name)
    _startable(domain, emulator, folder)
    native = libvirt.native(render(domain), "twin")
    again = read(native.xml.encode(), file.name)
    made = import_domain(again, file.name, stem="")
    left, right = _with_addresses(native, again.root), _argv(made, emulator)
    theirs = ask(runnable(left, folder / "theirs"), folder / "theirs")
    ours = ask(runnable(right, folder / "ours"), folder / "ours")
    found = [*_differences(theirs, ours), *_sets("cpu", of_kvm(left), of_kvm(right))]
    told = {entry.what for entry in made.report}
    judged = (evolve(each, reason=each.reason or _told(each, told)) for each in found)
    return Comparison(name=file.stem, made=made, differences=tuple(judged))


def _with_addresses(native: Native, domain: Element) -> list[str]:
    """libvirt's command line with the PCI addresses of network cards, which domxml-to-native
    forgets on its way."""
    places = {}
    for interface in domain.within("devices").each("interface"):
        address = interface.within("address").attributes
        mac = interface.within("mac").attributes.get("address", "")
        bus, slot, function = (
            int(address.get(key, "0"), 16) for key in ("bus", "slot", "function")
        )
        places[mac] = (bus, f"{slot:#x}.{function:#x}" if function else f"{slot:#x}")
    found = []
    for word in native.argv:
        if word.startswith("{") and '"netdev":' in word:
            plain = json.loads(word)
            bus, addr = places[plain["mac"]]
            root = re.sub(r"[0-9]+$", "", plain["bus"]).rstrip(".")
            plain |= {"addr": addr, "bus": f"{root}.{bus}" if bus else plain["bus"]}
            word = json.dumps(plain)
        found.append(word)
    return found


def _argv(made: Imported, emulator: str) -> list[str]:
    profile = loads(made.text, f"/p/{made.name}.toml", name=made.name)
    version = "10.0" if "10." in _version(emulator) else "7.2"
    resolution = plans.plan_of(
        profile, images=_images(profile), version=version, network=NetworkFacts()
    )
    wrong = [each.message for each in resolution.errors if each.cause == "profile"]
    if wrong:
        raise RuntimeError(f"the profile has mistakes: {'; '.join(wrong)}")
    plan = evolve(resolution.plan, emulator=emulator)
    return [word for option in command_line(plan) for word in option]


def _version(emulator: str) -> str:
    done = subprocess.run([emulator, "--version"], check=True, capture_output=True, text=True)
    return done.stdout.partition("version ")[2]


def _images(profile: Profile) -> dict[str, ImageFacts]:
    found: dict[str, ImageFacts] = {}
    for disk in profile.disk:
        if disk.path:
            image = plans.RAW if disk.format == "raw" else plans.DISK
            found[disk.path] = evolve(image, virtual_size=_SIZE)
    found |= {drive.path: plans.RAW for drive in profile.cdrom if drive.path}
    found |= {drive.path: plans.RAW for drive in profile.floppy if drive.path}
    found |= {share.path: plans.FOLDER for share in profile.share if share.path}
    boot = profile.boot
    return found | {path: plans.RAW for path in (boot.kernel, boot.initrd) if path}


# ---- making it startable ------------------------------------------------------------------------


def _startable(domain: Element, emulator: str, folder: Path) -> None:
    """Change `domain` so that libvirt takes it and it starts here: files that there are, another
    name, and nothing of the host's that is not here."""
    domain.attributes = {"type": domain.attributes.get("type", "kvm")}
    if domain.first("qemu:commandline"):
        domain.attributes["xmlns:qemu"] = _QEMU_URI
    _replace(domain, element("name", text="twin"))
    domain.children = [child for child in domain.children if child.tag not in _STRANGE]
    clock = domain.within("clock")
    clock.children = [
        timer for timer in clock.children if timer.attributes.get("name") not in ("platform", "tsc")
    ]
    devices = domain.first("devices")
    if devices is None:
        devices = element("devices")
        domain.children.append(devices)
    devices.children = [
        child for child in devices.children if child.tag not in _NO_DEVICES and _has_file(child)
    ]
    _replace(devices, element("emulator", text=emulator))
    for number, disk in enumerate(devices.each("disk")):
        _with_image(disk, folder / f"image{number}")
    for share in devices.each("filesystem"):
        share.within("source").attributes["dir"] = str(folder)
        share.children = [child for child in share.children if child.tag != "driver"]
    for screen in devices.each("graphics"):
        for name in ("tlsPort", "defaultMode"):
            screen.attributes.pop(name, None)
        screen.children = [child for child in screen.children if child.tag != "channel"]
    for interface in devices.each("interface"):
        for tag in ("portForward", "backend", "filterref", "bandwidth", "target", "mtu"):
            interface.children = [child for child in interface.children if child.tag != tag]
        interface.attributes["type"] = "user"
        interface.children = [child for child in interface.children if child.tag != "source"]
    system = domain.within("os")
    for tag in ("kernel", "initrd"):
        file = system.first(tag)
        if file is not None:
            (folder / tag).write_bytes(bytes(4096))
            file.text = str(folder / tag)
    gone = ("nvram", "bios")
    system.children = [child for child in system.children if child.tag not in gone]


def _replace(parent: Element, child: Element) -> None:
    parent.children = [each for each in parent.children if each.tag != child.tag]
    parent.children.insert(0, child)


def _has_file(child: Element) -> bool:
    """Whether a device of the XML is no disk, or one whose image is a file."""
    return child.tag != "disk" or child.attributes.get("type", "file") in ("file", "block")


def _with_image(disk: Element, path: Path) -> None:
    disk.children = [child for child in disk.children if child.tag not in _NOT_OF_A_DISK]
    kind = disk.within("driver").attributes.get("type", "raw")
    disk.attributes["type"] = "file"
    store = disk.first("backingStore")
    if store is not None:
        disk.children.remove(store)
    source = disk.first("source")
    if source is None:
        return
    form = kind if kind in ("qcow2", "raw") else "qcow2"
    disk.within("driver").attributes["type"] = form
    subprocess.run(["qemu-img", "create", "-q", "-f", form, str(path), str(_SIZE)], check=True)
    source.attributes, source.children = {"file": str(path)}, []


# ---- differences --------------------------------------------------------------------------------


def _differences(theirs: Machine, ours: Machine) -> Iterator[Difference]:
    left, right = theirs.facts(), ours.facts()
    for what, value in left.items():
        other = right[what]
        if isinstance(value, tuple):
            yield from _sets(what, value, other)
        elif value != other:
            yield Difference(what=what, libvirt=str(value), qlaunch=str(other))
    if abs(theirs.clock - ours.clock) > 60:
        yield Difference(what="clock", libvirt=str(theirs.clock), qlaunch=str(ours.clock))


def _sets(what: str, left: tuple[str, ...], right: tuple[str, ...]) -> Iterator[Difference]:
    here, there = Counter(left), Counter(right)
    for gone in (here - there).elements():
        yield Difference(what=what, libvirt=gone, reason=_reason(what, gone))
    for new in (there - here).elements():
        yield Difference(what=what, qlaunch=new, reason=_reason(what, new))


# Differences that there may be: what is compared, a pattern of the fact, and why.
REASONS = (
    ("devices", r"usb-(storage|bot)", "the same stick: usb-bot lets its drive be a CD, too"),
    ("devices", r": pcie-root-port ", "empty root ports, for devices that are plugged in later"),
    ("query-pci", r" 1b36:000c$", "empty root ports, for devices that are plugged in later"),
)


# What differs where the report of the import says so: a pattern of the fact, and of the report.
TOLD = (
    (r"^clock", r"^clock@(timezone|adjustment)"),
    (r"block_size", r"^disk/blockio"),
    (r"^cpu ", r"^cpu@mode|^feature@policy"),
    (r"e1000|8086:100e", r"^address"),
    (r"qxl|1b36:0100", r"^video"),
    (r"9p-device", r"^filesystem"),
    (r"^chardevs null open", r"^backend"),
    (r"node-id|^cpus ", r"^cpu/numa"),
    (r"pci-bridge|1b36:0001", r"^controller"),
    (r"lsi53c895a|1000:0012|virtio-scsi|1af4:1004", r"^controller"),
    (r"ich9-usb-ehci1|8086:293a", r"^controller"),
    (r"xhci|1033:0194|1b36:000d", r"^controller@model"),
    (r"ne2k|virtio-net|10ec:8029|1af4:1000", r"^model"),
    (r"virtconsole|^chardevs ", r"^(console|channel)"),
    (r"hda-(micro|duplex)", r"^codec"),
    (r"AC97|sb16|8086:2415", r"^sound"),
)


def _told(each: Difference, told: set[str]) -> str:
    fact = f"{each.what} {each.libvirt}{each.qlaunch}"
    for pattern, what in TOLD:
        if re.search(pattern, fact) and any(re.search(what, word) for word in told):
            return "the report of the import says so"
    return ""


def _reason(what: str, fact: str) -> str:
    for where, pattern, why in REASONS:
        if where == what and re.search(pattern, fact):
            return why
    return ""
