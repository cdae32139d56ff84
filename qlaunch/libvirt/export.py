"""A profile as a domain of libvirt. What libvirt has no word for stands in its metadata, so that an
import of it is the same profile."""

from __future__ import annotations

from qlaunch.libvirt.domain import import_domain
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.export_devices import devices
from qlaunch.libvirt.filled import filled
from qlaunch.libvirt.private import TAG, URI, XMLNS
from qlaunch.libvirt.render import element, render
from qlaunch.libvirt.xml import read
from qlaunch.profile.dump import toml_value
from qlaunch.profile.fields import entries_of
from qlaunch.profile.load import loads
from qlaunch.profile.model import Profile

_QEMU_URI = "http://libvirt.org/schemas/domain/qemu/1.0"
_OSINFO_URI = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
_OSINFO = {
    "windows-xp": "http://microsoft.com/win/xp",
    "windows-2000": "http://microsoft.com/win/2k",
    "windows-7": "http://microsoft.com/win/7",
    "windows-10": "http://microsoft.com/win/10",
    "windows-11": "http://microsoft.com/win/11",
    "linux": "http://libosinfo.org/linux/2022",
    "bsd": "http://freebsd.org/freebsd/14.0",
    "dos": "http://microsoft.com/msdos/6.22",
}
# Keys that libvirt has words for, where the one says what the other counts.
_NOT_KEPT = frozenset({"schema", "name", "guest", "extends", "uuid"})


def export_domain(profile: Profile, folder: str) -> str:
    """The XML of `profile`; `folder` is where its disks without a path are."""
    root = _domain(profile, filled(profile, folder))
    name = profile.name or ""
    plain = _imported(render(root), name)
    lost = _lost(profile, plain)
    if not lost:
        return render(root)
    note = element(TAG, text="\n".join(lost.values()), **{XMLNS: URI})
    _metadata(root).children.append(note)
    # Of what differs only that which a profile would say: the rest is what qlaunch does anyway.
    again = _said(_imported(render(root), name))
    before = _said(plain)
    needed = [line for key, line in lost.items() if again.get(key) != before.get(key)]
    note.text = "\n".join(needed)
    if not needed:
        _metadata(root).children.remove(note)
        root.children = [each for each in root.children if each.tag != "metadata" or each.children]
    return render(root)


def _domain(said: Profile, whole: Profile) -> Element:
    machine, memory = whole.machine, whole.memory
    kind = "qemu" if machine.accel == "tcg" else "kvm"
    root = element("domain", type=kind)
    guest = whole.guest or "other"
    add = root.children.append
    add(element("name", text=whole.name or "machine"))
    if whole.uuid:
        add(element("uuid", text=whole.uuid))
    if whole.title:
        add(element("title", text=whole.title))
    if guest in _OSINFO:
        osinfo = element("libosinfo:os", id=_OSINFO[guest])
        holder = element("libosinfo:libosinfo", osinfo, **{"xmlns:libosinfo": _OSINFO_URI})
        _metadata(root).children.append(holder)
    if machine.generation_id:
        add(element("genid"))
    add(element("memory", text=(memory.size or 0) >> 10, unit="KiB"))
    current = memory.current or memory.size or 0
    add(element("currentMemory", text=current >> 10, unit="KiB"))
    add(element("vcpu", text=whole.cpu.count, placement="static", cpuset=whole.limits.cpus))
    root.children += _tuning(whole)
    add(_system(whole))
    add(_features(whole))
    add(_cpu(whole))
    add(_clock(whole))
    for key in ("on_poweroff", "on_reboot", "on_crash"):
        otherwise = "restart" if key == "on_reboot" else "destroy"
        add(element(key, text=getattr(whole.lifecycle, key) or otherwise))
    add(devices(whole))
    args = _arguments(whole)
    if args:
        root.attributes["xmlns:qemu"] = _QEMU_URI
        words = [element("qemu:arg", value=word) for word in args]
        add(element("qemu:commandline", *words))
    return root


def _metadata(root: Element) -> Element:
    for child in root.children:
        if child.tag == "metadata":
            return child
    root.children.append(made := element("metadata"))
    return made


def _tuning(whole: Profile) -> list[Element]:
    found, limits = [], whole.limits
    if limits.io_weight is not None and 100 <= limits.io_weight <= 1000:
        found.append(element("blkiotune", element("weight", text=limits.io_weight)))
    if limits.memory is not None:
        limit = element("hard_limit", text=limits.memory >> 10, unit="KiB")
        found.append(element("memtune", limit))
    if limits.cpu_quota is not None:
        period = element("global_period", text=100_000)
        quota = element("global_quota", text=limits.cpu_quota * 1000)
        found.append(element("cputune", period, quota))
    return found


def _system(whole: Profile) -> Element:
    machine, boot = whole.machine, whole.boot
    arch = "i686" if machine.arch == "i386" else "x86_64"
    system = element("os", element("type", text="hvm", arch=arch, machine=machine.type))
    if machine.firmware == "uefi":
        system.attributes["firmware"] = "efi"
        secure = "yes" if machine.secure_boot else "no"
        features = [
            element("feature", enabled=secure, name=name)
            for name in ("enrolled-keys", "secure-boot")
        ]
        system.children.append(element("firmware", *features))
        if machine.nvram:
            system.children.append(element("nvram", text=machine.nvram))
    for tag, value in (("kernel", boot.kernel), ("initrd", boot.initrd), ("cmdline", boot.append)):
        if value:
            system.children.append(element(tag, text=value))
    if boot.menu:
        timeout = None if boot.menu_timeout is None else round(boot.menu_timeout * 1000)
        system.children.append(element("bootmenu", enable="yes", timeout=timeout))
    return system


def _features(whole: Profile) -> Element:
    machine = whole.machine
    features = element("features")
    if machine.acpi is not False:
        features.children.append(element("acpi"))
    features.children.append(element("apic"))
    if machine.smm is not None:
        features.children.append(element("smm", state="on" if machine.smm else "off"))
    return features


def _cpu(whole: Profile) -> Element:
    """Model and shape. Values of features are QEMU's own words and go into `-cpu`."""
    cpu = whole.cpu
    model, *_features = (cpu.model or "host").split(",")
    modes = {"host": "host-passthrough", "max": "maximum"}
    shape = {name: getattr(cpu, name) for name in ("sockets", "cores", "threads")}
    if model in modes:
        found = element("cpu", mode=modes[model], check="none")
    else:
        found = element("cpu", mode="custom", match="exact", check="none")
        found.children.append(element("model", text=model, fallback="forbid"))
    found.children.append(element("topology", **shape))
    if "," not in (cpu.model or ""):
        for flag in cpu.flags:
            policy = "require" if flag.startswith("+") else "disable"
            if "=" not in flag and not flag[1:].startswith(("hv-", "kvm")):
                found.children.append(element("feature", policy=policy, name=flag[1:]))
    return found


def _clock(whole: Profile) -> Element:
    clock = element("clock", offset=whole.clock.base or "utc")
    if whole.clock.drift == "slew":
        clock.children.append(element("timer", name="rtc", tickpolicy="catchup"))
    present = "yes" if whole.machine.hpet else "no"
    clock.children.append(element("timer", name="hpet", present=present))
    return clock


def _arguments(whole: Profile) -> list[str]:
    cpu, found = whole.cpu, list(whole.qemu.args)
    plain = "," not in (cpu.model or "") and not any(
        "=" in flag or flag[1:].startswith(("hv-", "kvm")) for flag in cpu.flags
    )
    if not plain:
        found += ["-cpu", ",".join([cpu.model or "host", *cpu.flags])]
    return found


# ---- what libvirt has no word for ---------------------------------------------------------------


def _imported(xml: str, name: str) -> Profile:
    back = import_domain(read(xml.encode(), "export"), "export", stem=name)
    return loads(back.text, "/export.toml", name=name or None)


def _said(profile: Profile) -> dict[str, object]:
    """Every value of a profile by its whole name."""
    found: dict[str, object] = {"guest": profile.guest or "other"}
    for name, entry in entries_of(Profile).items():
        value = getattr(profile, entry.attribute)
        if entry.key.kind == "tables":
            for item in value:
                found |= _values(f"{name}.{item.id}", item)
        elif entry.key.kind == "table":
            found |= _values(name, value)
        elif name not in _NOT_KEPT and value is not None and value != ():
            found[name] = value
    return found


def _values(name: str, holder: object) -> dict[str, object]:
    return {
        f"{name}.{key}": value
        for key, entry in entries_of(type(holder)).items()
        if key != "id" and (value := getattr(holder, entry.attribute)) not in (None, ())
    }


def _lost(profile: Profile, again: Profile) -> dict[str, str]:
    """Keys of the profile that the import would not bring back, each with a line of TOML."""
    back = _said(again)
    return {
        name: f"{name} = {_toml(name, value)}"
        for name, value in _said(profile).items()
        if back.get(name) != value
    }


def _toml(name: str, value: object) -> str:
    table, *_ident, key = name.split(".") if "." in name else ("", name)
    entries = entries_of(Profile)
    holder = entries[table].item if table else Profile
    assert holder is not None
    return toml_value(entries_of(holder)[key].key, value)
