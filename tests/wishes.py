"""Wishes that a plan cannot fulfil, or has doubts about; test_plan_findings says what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from qlaunch.facts import HostFacts, ImageFacts, NetworkFacts, UsbDevice
from qlaunch.plan import Leases
from tests import plans
from tests.plans import DISK, GIB, HOST, RAW


@frozen(kw_only=True)
class Wish:
    """A profile, and what is so on the computer."""

    text: str
    images: Mapping[str, ImageFacts] = field(factory=dict)
    leases: Leases = Leases()
    host: HostFacts = HOST
    ports: Mapping[str, str] = field(factory=dict)
    overrides: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    heads: Mapping[str, str] = field(factory=dict)
    network: NetworkFacts = NetworkFacts()
    usb: tuple[UsbDevice, ...] = ()


def machine(words: str, **more: Any) -> Wish:
    return Wish(text=f"[machine]\n{words}\n", **more)


def disk(words: str = "", image: ImageFacts | None = None, **more: Any) -> Wish:
    """A disk `a` with the image /d/a.qcow2; `more` may bring further images."""
    images = {"/d/a.qcow2": image} if image else {}
    others = more.pop("images", {})
    text = f'[[disk]]\nid = "a"\npath = "/d/a.qcow2"\n{words}\n'
    return Wish(text=text, images=images | others, **more)


def new_disk(words: str, **more: Any) -> Wish:
    return disk(f'size = "20GiB"\n{words}', **more)


def xp(words: str, **more: Any) -> Wish:
    return Wish(text=f'guest = "windows-xp"\n{words}\n', **more)


NO_SMM = evolve(HOST, kvm=evolve(HOST.kvm, smm=False))
MISSING = ImageFacts(path="")
BASE = evolve(DISK, virtual_size=GIB)
ON_BASE = evolve(DISK, backing="base.qcow2", backing_path="/d/base.qcow2", backing_format="qcow2")
LOOP = evolve(DISK, backing="a.qcow2", backing_path="/d/a.qcow2", backing_format="qcow2")

BOARD = {
    "a machine type that this QEMU has not": machine('type = "pc-i440fx-7.3"'),
    "a machine type like no other": machine('type = "zx81"'),
    "a machine that is no PC": machine('type = "microvm"'),
    "a pinned machine type that is gone": Wish(
        text="", leases=Leases(machine_asked="pc", machine_type="pc-i440fx-99.0")
    ),
    "KVM that cannot be had": machine('accel = "kvm"', host=evolve(HOST, kvm=plans.NO_KVM)),
    "KVM that cannot be had, and need not": Wish(text="", host=evolve(HOST, kvm=plans.NO_KVM)),
    "a shape that does not match": Wish(text="[cpu]\ncount = 6\nsockets = 1\ncores = 4\n"),
    "more processors than the machine takes": Wish(text="[cpu]\ncount = 600\n"),
    "more processors than KVM gives": Wish(
        text="[cpu]\ncount = 200\n", host=evolve(HOST, kvm=evolve(HOST.kvm, max_vcpus=128))
    ),
    "a processor that QEMU has not": Wish(text='[cpu]\nmodel = "quemu64"\n'),
    "a processor like no other": Wish(text='[cpu]\nmodel = "6502"\n'),
    "a feature that is none": Wish(text='[cpu]\nmodel = "qemu64,model==3"\n'),
    "a feature with a sign and a value": Wish(text='[cpu]\nflags = ["+model=3"]\n'),
    "the host's processor without KVM": Wish(
        text='[cpu]\nmodel = "host"\n[machine]\naccel = "tcg"\n'
    ),
    "memory that is no whole MiB": Wish(text='[memory]\nsize = "1025KiB"\n'),
    "more memory now than at most": Wish(text='[memory]\nsize = "1GiB"\ncurrent = "2GiB"\n'),
    "less memory without a balloon": Wish(
        text='[memory]\nsize = "1GiB"\ncurrent = "512MiB"\nballoon = false\n'
    ),
    "less memory on DOS": Wish(text='guest = "dos"\n[memory]\nsize = "64MiB"\ncurrent = "32MiB"\n'),
    "more memory than there is": Wish(text='[memory]\nsize = "100GiB"\n'),
    "more memory than is free": Wish(text='[memory]\nsize = "40GiB"\n'),
    "Secure Boot without SMM": machine(
        'type = "q35"\nfirmware = "uefi"\nsecure_boot = true', host=NO_SMM
    ),
    "SMM that KVM has not": machine("smm = true", host=NO_SMM),
    "Secure Boot with SMM off": machine(
        'type = "q35"\nfirmware = "uefi"\nsecure_boot = true\nsmm = false'
    ),
    "limits without systemd": Wish(
        text="[limits]\ntasks = 100\n", host=evolve(HOST, systemd_scope=None)
    ),
    "limits that leave nothing": Wish(text='[memory]\nsize = "1GiB"\n[limits]\nmemory = "1GiB"\n'),
}

SECURITY = {
    "a machine that may do all": Wish(text="[security]\nsandbox = false\n"),
}

BOOT = {
    "a word that is no device": Wish(text='[boot]\norder = ["cdrum"]\n'),
    "a word like no device": Wish(
        text='[boot]\norder = ["x"]\n[[disk]]\nid = "a"\nsize = "1GiB"\n'
    ),
    "once from what is not there": Wish(text='[boot]\nonce = "cdrom"\n'),
    "once from a network that is not there": Wish(text='[boot]\nonce = "network"\n'),
    "once from the second floppy": Wish(
        text='[boot]\norder = ["fd0", "fd1"]\nonce = "fd1"\n'
        '[[floppy]]\nid = "fd0"\n[[floppy]]\nid = "fd1"\n'
    ),
    "a kernel that is not there": Wish(text='[boot]\nkernel = "/k"\ninitrd = "/i"\n'),
    "an initrd without a kernel": Wish(text='[boot]\ninitrd = "/i"\n', images={"/i": RAW}),
    "words without a kernel": Wish(text='[boot]\nappend = "quiet"\n'),
    "a time without a menu": Wish(text='[boot]\nmenu_timeout = "3s"\n'),
    "Secure Boot without UEFI": machine('type = "q35"\nsecure_boot = true'),
    "Secure Boot on the old board": machine('type = "pc"\nfirmware = "uefi"\nsecure_boot = true'),
    "UEFI that is not installed": machine('firmware = "uefi"', host=evolve(HOST, firmware=())),
    "variables that cannot be written": machine(
        'firmware = "uefi"\nnvram = "/n.fd"', images={"/n.fd": evolve(RAW, writable=False)}
    ),
    "variables in use": machine(
        'firmware = "uefi"\nnvram = "/n.fd"', images={"/n.fd": evolve(RAW, holder="machine b")}
    ),
    "variables that are no file": machine(
        'firmware = "uefi"\nnvram = "/n.fd"', images={"/n.fd": evolve(RAW, problem="is a folder")}
    ),
    "a TPM without swtpm": machine("tpm = true", host=evolve(HOST, swtpm=None)),
}

DISKS = {
    "IDE on q35": new_disk('bus = "ide"\n[machine]\ntype = "q35"'),
    "a CD on IDE on q35": machine('type = "q35"\n[[cdrom]]\nid = "cd0"\nbus = "ide"'),
    "native I/O with the host's cache": new_disk('aio = "native"'),
    "a read-only disk on IDE": disk('bus = "ide"\nread_only = true', DISK),
    "a cache that forgets": new_disk('cache = "unsafe"'),
    "no lock": new_disk("lock = false"),
    "a total limit and parts of it": new_disk(
        'iops = 3\niops_read = 1\nbps = "1MB"\nbps_write = "1MB"'
    ),
    "a limit without bounds": new_disk('bps = "2PiB"'),
    "no position on IDE": new_disk('bus = "ide"\naddress = "2.0"'),
    "no position on SATA": new_disk('bus = "sata"\naddress = "6"'),
    "no position on SCSI": new_disk('bus = "scsi"\naddress = "256"'),
    "no port on USB": new_disk('bus = "usb"\naddress = "7"'),
    "no address on PCI": new_disk('bus = "virtio"\naddress = "::"'),
    "a position twice": new_disk(
        'bus = "ide"\naddress = "0.1"\n[[cdrom]]\nid = "cd0"\naddress = "0.1"'
    ),
    "five drives on IDE": Wish(
        text="".join(f'[[cdrom]]\nid = "cd{n}"\nbus = "ide"\n' for n in range(5))
    ),
    "seven drives on SATA": Wish(
        text="".join(f'[[cdrom]]\nid = "cd{n}"\nbus = "sata"\n' for n in range(7))
    ),
    "three floppy drives": Wish(text="".join(f'[[floppy]]\nid = "fd{n}"\n' for n in range(3))),
    "a medium that is not there": Wish(text='[[cdrom]]\nid = "cd0"\npath = "/a.iso"\n'),
    "a medium that is a folder": Wish(
        text='[[cdrom]]\nid = "cd0"\npath = "/a.iso"\n',
        images={"/a.iso": evolve(RAW, problem="/a.iso is a folder")},
    ),
    "a medium that is a disk": Wish(
        text='[[cdrom]]\nid = "cd0"\npath = "/my iso.qcow2"\n', images={"/my iso.qcow2": DISK}
    ),
    "a floppy that cannot be written": Wish(
        text='[[floppy]]\nid = "fd0"\npath = "/f.img"\n',
        images={"/f.img": evolve(RAW, writable=False)},
    ),
    "a floppy in use": Wish(
        text='[[floppy]]\nid = "fd0"\npath = "/f.img"\n',
        images={"/f.img": evolve(RAW, holder="machine b")},
    ),
}

IMAGES = {
    "no image and no size": disk(),
    "a folder that is not there": disk(
        'size = "1GiB"', evolve(MISSING, missing_directory="/d/o e")
    ),
    "no qemu-img": new_disk("", host=evolve(HOST, qemu_img=None)),
    "a size that is no whole sector": disk('size = "1MB"'),
    "a backing file and a template": new_disk(
        'backing = "/d/base.qcow2"\ntemplate = "/d/t.qcow2"',
        images={"/d/base.qcow2": BASE, "/d/t.qcow2": BASE},
    ),
    "a raw disk on another": new_disk(
        'format = "raw"\nbacking = "/d/base.qcow2"', images={"/d/base.qcow2": BASE}
    ),
    "a template that is larger": disk(
        'size = "512MiB"\ntemplate = "/d/t.qcow2"', images={"/d/t.qcow2": BASE}
    ),
    "a template that is not there": new_disk('template = "/d/t.qcow2"'),
    "a template that cannot be read": new_disk(
        'template = "/d/t.qcow2"',
        images={"/d/t.qcow2": evolve(BASE, problem="/d/t.qcow2 is a pipe")},
    ),
    "a template of another kind": new_disk(
        'template = "/d/t.vmdk"', images={"/d/t.vmdk": evolve(BASE, format="vmdk")}
    ),
    "an image that is damaged": disk("", evolve(DISK, problem="/d/a.qcow2 has a broken header")),
    "an image of another format": disk("", RAW),
    "an empty image": disk("", evolve(RAW, file_size=0)),
    "a qcow2 image used as raw": disk('format = "raw"', DISK),
    "an image that keeps its data elsewhere": disk("", evolve(DISK, data_file="/etc/shadow")),
    "an image marked corrupt": disk("", evolve(DISK, corrupt=True)),
    "an encrypted image": disk("", evolve(DISK, encrypted=True)),
    "an image that cannot be read": disk("", evolve(DISK, readable=False)),
    "an image that cannot be written": disk("", evolve(DISK, writable=False)),
    "an image in use": disk("", evolve(DISK, holder="qemu-system-x86_64, pid 4711, machine b")),
    "an image of another size": disk('size = "30GiB"', DISK),
    "a backing file that nobody allowed": disk("", ON_BASE, images={"/d/base.qcow2": BASE}),
    "the layer that holds the present state is gone": disk(
        "", DISK, heads={"a": "/d/a.snap1.qcow2"}
    ),
    "the layer that holds the present state stands on another image": disk(
        "",
        DISK,
        images={
            "/d/a.snap1.qcow2": evolve(DISK, backing="a.old", backing_path="/d/a.old"),
            "/d/a.old": BASE,
        },
        heads={"a": "/d/a.snap1.qcow2"},
    ),
    "a backing file that is gone": disk('backing = "/d/base.qcow2"', ON_BASE),
    "a backing file that is damaged": disk(
        'backing = "/d/base.qcow2"',
        ON_BASE,
        images={"/d/base.qcow2": evolve(BASE, problem="/d/base.qcow2 has a broken header")},
    ),
    "a backing file of another format": disk(
        'backing = "/d/base.qcow2"', ON_BASE, images={"/d/base.qcow2": RAW}
    ),
    "a backing file that is no file": disk(
        "", evolve(DISK, backing="nbd://host/x", backing_path=None)
    ),
    "a chain that bites its tail": disk("", LOOP),
}

DEVICES = {
    "an address twice": Wish(
        text='[video]\naddress = "05.0"\n[[nic]]\nid = "net0"\naddress = "05.0"\n'
    ),
    "an address of the board": Wish(text='[video]\naddress = "01.0"\n'),
    "an address that is none": Wish(text='[sound]\nmodel = "ac97"\naddress = "nowhere"\n'),
    "a function without its first": Wish(text='[video]\naddress = "05.1"\n'),
    "an EHCI controller at the wrong function": Wish(
        text='[usb]\ncontroller = "ich9-ehci1"\naddress = "09.0"\n'
    ),
    "more cards than slots": Wish(
        text="".join(f'[[nic]]\nid = "net{n}"\nmodel = "e1000"\n' for n in range(30))
    ),
    "more cards than root ports": machine(
        'type = "q35"\n' + "".join(f'[[nic]]\nid = "net{n}"\n' for n in range(24))
    ),
    "a MAC twice": Wish(
        text='[[nic]]\nid = "net0"\nmac = "52:54:00:00:00:01"\n'
        '[[nic]]\nid = "net1"\nmac = "52:54:00:00:00:01"\n'
    ),
    "forwards without a cable": Wish(
        text='[[nic]]\nid = "net0"\nbackend = "none"\nforward = ["2222:22"]\n'
    ),
    "forwards that are wrong": Wish(
        text='[[nic]]\nid = "net0"\nforward = ["1.2.3:2222:22", "[::1]:2223:22",'
        ' "80:80", "2224:22"]\n',
        ports={"tcp/2224": "sshd, pid 12"},
    ),
    "a card that this QEMU has not": Wish(
        text='[video]\nmodel = "qxl"\n[machine]\nwatchdog = "ib700"\n',
        without=("qxl-vga", "ib700"),
    ),
    "two screens on one card": Wish(text='[video]\nmodel = "std"\nheads = 2\n'),
    "video memory that a card has not": Wish(
        text='[video]\nmodel = "qxl"\nvram = "4GiB"\nvgamem = "1025KiB"\n'
    ),
    "video memory of a cirrus": Wish(text='[video]\nmodel = "cirrus"\nvgamem = "32MiB"\n'),
    "video memory without effect": Wish(text='[video]\nmodel = "virtio"\nvram = "64MiB"\n'),
    "no folder": Wish(text='[[share]]\nid = "s"\npath = "/none"\n'),
    "a mount tag twice": Wish(
        text='[[share]]\nid = "s"\npath = "/s"\n[[share]]\nid = "t"\npath = "/s"\ntag = "s"\n',
        images={"/s": plans.FOLDER},
    ),
    "five serial ports": Wish(text="".join(f'[[serial]]\nid = "s{n}"\n' for n in range(5))),
    "a channel's name twice": Wish(
        text='[[channel]]\nid = "a"\nname = "x"\n[[channel]]\nid = "b"\nname = "x"\n'
    ),
    "too many channels": Wish(
        text="".join(f'[[channel]]\nid = "c{n}"\nname = "n{n}"\n' for n in range(31))
    ),
    "USB devices without a controller": Wish(
        text='[usb]\ncontroller = "none"\n[[input]]\nid = "tablet0"\n'
    ),
    "more USB devices than ports": Wish(
        text='[usb]\ncontroller = "piix3-uhci"\n'
        + "".join(f'[[input]]\nid = "t{n}"\n' for n in range(3))
    ),
    "a USB port twice": Wish(
        text='[[input]]\nid = "a"\naddress = "1"\n[[input]]\nid = "b"\naddress = "1"\n'
    ),
    "a USB port that is none": Wish(text='[[input]]\nid = "a"\naddress = "7"\n'),
    "more ports than slots for a client": Wish(
        text="[display]\nspice = true\n[usb]\nredirect = 1\nredirect_ports = [1, 2]\n"
    ),
    "slots for a client that cannot come": Wish(
        text="[display]\nspice = false\n[usb]\nredirect = 2\n"
    ),
}

CLASHES = {
    "a name of qlaunch's own": Wish(
        text='[[input]]\nid = "usb"\n[[serial]]\nid = "qmp"\n[[nic]]\nid = "tpm0"\n'
        '[[cdrom]]\nid = "nvram"\n'
    ),
    "a name like a disk's part": Wish(
        text='[[disk]]\nid = "a"\nsize = "1GiB"\n[[disk]]\nid = "a-1"\nsize = "1GiB"\n'
    ),
    "one image twice": Wish(
        text='[[disk]]\nid = "a"\npath = "/d/a.qcow2"\n[[disk]]\nid = "b"\npath = "/d/a.qcow2"\n',
        images={"/d/a.qcow2": DISK},
    ),
    "one port twice": Wish(
        text="[display]\nspice = true\nvnc = true\nport = 5900\nvnc_port = 5900\n"
        '[[nic]]\nid = "net0"\nforward = ["0.0.0.0:5900:80"]\n'
    ),
}

DISPLAY = {
    "SPICE that is not installed": Wish(
        text="[display]\nspice = true\n", without=("chardev-spicevmc",)
    ),
    "SPICE with a fallback": Wish(
        text="[display]\nspice = true\nfallback = true\nport = 5930\n",
        without=("chardev-spicevmc",),
    ),
    "a desktop without SPICE": Wish(
        text='[[channel]]\nid = "vdagent0"\ntype = "spicevmc"\n', without=("chardev-spicevmc",)
    ),
    "a SPICE port without SPICE": Wish(text="[display]\nspice = false\nport = 5930\n"),
    "a VNC port without VNC": Wish(text="[display]\nspice = true\nvnc_port = 5900\n"),
    "a port that is taken": Wish(
        text="[display]\nspice = true\nport = 5930\n", ports={"tcp/5930": "spicy, pid 7"}
    ),
    "a port of root's": Wish(text="[display]\nspice = true\nport = 590\n"),
    "an address that is none": Wish(
        text='[display]\nspice = true\nport = 5930\nlisten = "1.2"\npassword = { env = "P" }\n'
    ),
    "a port for everybody": Wish(text='[display]\nspice = true\nport = 5930\nlisten = "0.0.0.0"\n'),
    "an address without a port": Wish(text='[display]\nlisten = "0.0.0.0"\n'),
    "a password without a port": Wish(text='[display]\npassword = { env = "P" }\n'),
    "TLS without a password or ticket": Wish(
        text='[display]\nspice = true\ntls_port = 5931\nlisten = "0.0.0.0"\nticket = false\n'
    ),
    "a password and a ticket": Wish(
        text='[display]\nspice = true\nport = 5930\npassword = { env = "P" }\nticket = true\n'
    ),
    "a ticket without a port": Wish(text="[display]\nspice = true\nticket = true\n"),
    "names without TLS": Wish(text='[display]\nspice = true\ntls_names = ["tower.lan"]\n'),
}

GUEST_RULES = {
    "XP on q35 with UEFI and a panic device": xp(
        '[machine]\ntype = "q35"\nfirmware = "uefi"\npanic = true'
    ),
    "XP with Hyper-V": xp('[cpu]\nmodel = "qemu64,hv-relaxed"'),
    "XP with UTC": xp('[clock]\nbase = "utc"'),
    "XP with HDA": xp('[sound]\nmodel = "hda"'),
    "XP with xHCI": xp('[usb]\ncontroller = "xhci"'),
    "XP with drives it cannot drive": xp(
        '[[disk]]\nid = "a"\nbus = "nvme"\nsize = "1GiB"\n[[disk]]\nid = "b"\nbus = "scsi"\n'
        'size = "1GiB"\n[[cdrom]]\nid = "cd0"\nbus = "sata"'
    ),
    "XP with a card of today": xp('[[nic]]\nid = "net0"\nmodel = "e1000e"'),
    "XP with 8 GiB": xp('[memory]\nsize = "8GiB"'),
    "XP with four sockets": xp("[cpu]\nsockets = 4"),
    "Windows 11 without TPM": Wish(
        text='guest = "windows-11"\n[machine]\ntpm = false\n[memory]\nsize = "2GiB"\n'
    ),
    "XP whose disk moves to virtio": xp(
        '[[disk]]\nid = "hda"\nbus = "virtio"\nsize = "1GiB"', leases=Leases(buses={"hda": "ide"})
    ),
}


GROUPS: Mapping[str, Mapping[str, Wish]] = {
    "security": SECURITY,
    "board": BOARD,
    "boot": BOOT,
    "disks": DISKS,
    "images": IMAGES,
    "devices": DEVICES,
    "clashes": CLASHES,
    "display": DISPLAY,
    "guests": GUEST_RULES,
}
