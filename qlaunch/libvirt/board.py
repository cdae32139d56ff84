"""The board of a domain: its type, firmware, features, clock and what ends it."""

from __future__ import annotations

import re

from qlaunch.errors import ProfileError
from qlaunch.libvirt import words
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.wish import Wish

_EMULATORS = re.compile(
    r"/usr/(local/)?(bin|libexec|sbin)/(qemu-system-(x86_64|i386)|kvm|qemu-kvm|kvm-spice)"
)
_MACHINES = re.compile(r"pc|q35|pc-(i440fx|q35)-[0-9.]{1,8}|pc-[01]\.[0-9]{1,2}")
_BOOT_KINDS = {"hd": "disk", "cdrom": "cdrom", "fd": "floppy", "network": "network"}
_POLICIES = {
    "destroy": "destroy",
    "restart": "restart",
    "preserve": "preserve",
    "rename-restart": "restart",
    "coredump-destroy": "destroy",
    "coredump-restart": "restart",
}


def board(domain: Element, wish: Wish, shown: str) -> None:
    """Everything about the board itself."""
    _kind(domain, wish, shown)
    system = domain.within("os")
    _machine(domain, system, wish, shown)
    _firmware(system, wish)
    _boot(system, wish)
    _lifecycle(domain, wish)
    _power_management(domain, wish)


def is_q35(wish: Wish) -> bool:
    return "q35" in (wish.get("machine.type") or "pc")


def _kind(domain: Element, wish: Wish, shown: str) -> None:
    kind = domain.attribute("type")
    if kind in ("qemu", "") and kind:
        why = "libvirt's type='qemu': emulated, never KVM"
        wish.say(domain, "machine.accel", "tcg", why)
    elif kind not in ("kvm", "", "kqemu"):
        raise ProfileError(
            f"{shown}:{domain.line}",
            f"a domain of the type {kind!r} is no machine of QEMU",
            hint="qlaunch runs QEMU/KVM machines: <domain type='kvm'>",
        )


def _machine(domain: Element, system: Element, wish: Wish, shown: str) -> None:
    kind = system.within("type")
    if kind.words() not in ("hvm", ""):
        raise ProfileError(
            f"{shown}:{kind.line}",
            f"<type>{kind.words()[:40]}</type> is no full machine",
            hint="qlaunch runs those of <type>hvm</type>",
        )
    arch = kind.attribute("arch") or "x86_64"
    if arch not in ("x86_64", "i686"):
        raise ProfileError(
            f"{shown}:{kind.line}",
            f"a machine of the architecture {arch!r} is no PC",
            hint="qlaunch knows x86_64 and i686",
        )
    wish.say(kind, "machine.arch", "i386" if arch == "i686" else "x86_64")
    machine = kind.attribute("machine") or "pc"
    if not _MACHINES.fullmatch(machine):
        base = "q35" if "q35" in machine else "pc"
        what = f"{machine} is a board of a distribution, or no PC: {base} is taken"
        wish.report.different(kind, what, attribute="machine")
        wish.say(kind, "machine.type", base, f"was {machine}"[:60])
    else:
        wish.say(kind, "machine.type", machine)
    emulator = domain.within("devices").first("emulator")
    if emulator is not None:
        if _EMULATORS.fullmatch(emulator.words()):
            wish.report.unneeded(emulator, "it is the default")
        else:
            wish.say(emulator, "machine.emulator", emulator.words())


def _firmware(system: Element, wish: Wish) -> None:
    loader, nvram = system.within("loader"), system.within("nvram")
    file = loader.words()
    uefi = (
        system.attribute("firmware") == "efi"
        or loader.attribute("type") == "pflash"
        or bool(re.search(r"OVMF|edk2|efi", file, re.IGNORECASE))
    )
    secure = loader.is_on("secure") or bool(re.search(r"secboot|\.ms\.fd|secure", file))
    features = list(system.within("firmware").each("feature"))
    for feature in features:
        name, enabled = feature.attribute("name"), feature.is_on("enabled")
        secure = enabled if name == "secure-boot" else secure
    for name in ("readonly", "stateless", "format"):
        loader.attribute(name)
    if uefi:
        wish.say(system, "machine.firmware", "uefi")
        wish.say(loader, "machine.secure_boot", secure)
        if file:
            what = "qlaunch finds the firmware that is installed here"
            wish.report.different(loader, what)
        if nvram.words():
            wish.say(nvram, "machine.nvram", nvram.words())
        nvram.attribute("template")
        source = nvram.within("source")
        if source.attribute("file"):
            wish.say(nvram, "machine.nvram", source.attribute("file"))
    elif file and not re.search(r"bios|seabios", file):
        wish.report.unsupported(loader, "only SeaBIOS and UEFI are known")
    elif file:
        wish.report.different(loader, "QEMU's own BIOS is taken")


def _boot(system: Element, wish: Wish) -> None:
    kinds = []
    for boot in system.each("boot"):
        kind = _BOOT_KINDS.get(boot.attribute("dev"))
        if kind is None:
            wish.report.unsupported(boot, "one of hd, cdrom, fd, network is known")
        elif kind not in kinds:
            kinds.append(kind)
    wish.tables.setdefault("boot", {})["kinds"] = kinds
    menu = system.within("bootmenu")
    if menu.is_on("enable"):
        wish.say(menu, "boot.menu", value=True)
        timeout = words.number(menu.attribute("timeout"))
        if timeout is not None:
            wish.say(menu, "boot.menu_timeout", timeout / 1000)
    menu.attribute("timeout")
    for tag, key in (("kernel", "kernel"), ("initrd", "initrd"), ("cmdline", "append")):
        element = system.first(tag)
        if element is not None and element.words():
            wish.say(element, f"boot.{key}", element.words())
    bios = system.within("bios")
    timeout = words.number(bios.attribute("rebootTimeout"))
    if timeout is not None and -1 <= timeout < 65536:
        wish.args += ["-boot", f"reboot-timeout={timeout}"]
    if bios.attribute("useserial") == "yes":
        what = "the BIOS's output on the serial port"
        wish.report.unsupported(bios, what, attribute="useserial")


def _lifecycle(domain: Element, wish: Wish) -> None:
    for tag, otherwise in (
        ("on_poweroff", "destroy"),
        ("on_reboot", "restart"),
        ("on_crash", "destroy"),
    ):
        element = domain.first(tag) or Element(tag, domain.line)
        said = element.words() or otherwise
        policy = _POLICIES.get(said)
        if policy is None:
            wish.report.unsupported(element, f"{said[:40]!r} is no such policy")
            continue
        if said.startswith("coredump"):
            wish.report.different(element, "`qlaunch dump` writes the guest's memory")
        elif said == "rename-restart":
            wish.report.different(element, "the machine keeps its name")
        wish.say(element, f"lifecycle.{tag}", policy)
    lock = domain.first("on_lockfailure")
    if lock is not None:
        wish.report.unneeded(lock, "an image that is in use is told before the start")


def _power_management(domain: Element, wish: Wish) -> None:
    """S3 and S4 are properties of the board's ACPI chip."""
    states = domain.within("pm")
    chip = "ICH9-LPC" if is_q35(wish) else "PIIX4_PM"
    for tag, key in (("suspend-to-mem", "disable_s3"), ("suspend-to-disk", "disable_s4")):
        element = states.within(tag)
        if enabled := element.attribute("enabled"):
            wish.args += ["-global", f"{chip}.{key}={0 if enabled == 'yes' else 1}"]
