"""What a domain says to QEMU itself: `<qemu:commandline>` and SMBIOS tables."""

from __future__ import annotations

from qlaunch.libvirt.element import Element
from qlaunch.libvirt.wish import Wish

_SMBIOS = {"bios": 0, "system": 1, "baseBoard": 2, "chassis": 3}
# libvirt's names of SMBIOS entries -> QEMU's, where they are not the same.
_ENTRIES = {"vendor": "vendor", "release": "release", "date": "date"}
_MAX_ARGS = 200


def commandline(domain: Element, wish: Wish) -> None:
    """The arguments, in their order; `-cpu X` becomes `cpu.model`."""
    for block in domain.each("qemu:commandline", "commandline"):
        if not any(name.startswith("xmlns:qemu") for name in domain.attributes):
            message = "libvirt drops it, for xmlns:qemu is not declared; here it counts"
            wish.report.add("mended", Element(block.tag, block.line), message)
        words: list[tuple[str, Element]] = []
        for arg in block.each("qemu:arg", "arg"):
            if (value := arg.attribute("value")) and len(words) < _MAX_ARGS:
                words.append((value, arg))
        for env in block.each("qemu:env", "env"):
            wish.report.unsupported(env, "QEMU's environment is a clean one")
        _arguments(words, wish)
    for tag in ("capabilities", "override", "deprecation"):
        for element in domain.each(f"qemu:{tag}"):
            wish.report.unsupported(element, "it is about libvirt's own work")


def _arguments(words: list[tuple[str, Element]], wish: Wish) -> None:
    at = 0
    while at < len(words):
        word, element = words[at]
        if word in ("-cpu", "--cpu") and at + 1 < len(words):
            value, element = words[at + 1]
            # QEMU takes the last -cpu: what libvirt would say before it does not count.
            model, *features = value.split(",")
            wish.cpu_flags.clear()
            wish.cpu_values.clear()
            wish.tables.setdefault("cpu", {}).pop("flags", None)
            flags = [word for word in features if word[:1] in "+-" and "=" not in word]
            rest = [word for word in features if word not in flags]
            wish.say(element, "cpu.model", ",".join([model, *rest]))
            if flags:
                wish.say(element, "cpu.flags", tuple(flags))
            at += 2
            continue
        wish.args.append(word)
        at += 1


def smbios(domain: Element, wish: Wish) -> None:
    """SMBIOS tables, by which an installed Windows knows its computer."""
    mode = domain.within("os", "smbios").attribute("mode")
    if mode == "host":
        what = "the host's own SMBIOS tables are not shown"
        wish.report.unsupported(domain.within("os", "smbios"), what)
    for sysinfo in domain.each("sysinfo"):
        if sysinfo.attribute("type") not in ("smbios", ""):
            wish.report.unsupported(sysinfo, "of another kind than SMBIOS")
            continue
        if mode != "sysinfo":
            what = "libvirt shows it with <os><smbios mode='sysinfo'/> only"
            wish.report.unneeded(sysinfo, what)
            continue
        for tag, number in _SMBIOS.items():
            for table in sysinfo.each(tag):
                entries = [
                    (entry.attribute("name"), entry.words()) for entry in table.each("entry")
                ]
                _table(number, entries, wish)
        for strings in sysinfo.each("oemStrings"):
            found = [("value", entry.words()) for entry in strings.each("entry")]
            _table(11, found, wish)


def _table(number: int, entries: list[tuple[str, str]], wish: Wish) -> None:
    words = [f"type={number}"]
    for name, value in entries:
        # The UUID is the machine's.
        if value and name != "uuid":
            doubled = value.replace(",", ",,")
            words.append(f"{_ENTRIES.get(name, name)}={doubled}")
    if len(words) > 1:
        wish.args += ["-smbios", ",".join(words)]
