"""The command that installs what is missing, on the distribution that this is."""

from __future__ import annotations

import os

_COMMANDS = {
    "debian": "apt install",
    "fedora": "dnf install",
    "arch": "pacman -S",
    "suse": "zypper install",
}
_PACKAGES = {
    "debian": {
        "qemu": "qemu-system-x86",
        "spice": "qemu-system-modules-spice",
        "qemu-img": "qemu-utils",
        "uefi": "ovmf",
        "swtpm": "swtpm",
        "viewer": "virt-viewer",
    },
    "fedora": {
        "qemu": "qemu-system-x86",
        "spice": "qemu-ui-spice-core qemu-char-spice qemu-audio-spice"
        " qemu-device-display-qxl qemu-device-usb-redirect",
        "qemu-img": "qemu-img",
        "uefi": "edk2-ovmf",
        "swtpm": "swtpm",
        "viewer": "virt-viewer",
    },
    "arch": {
        "qemu": "qemu-desktop",
        "spice": "qemu-ui-spice-core qemu-chardev-spice qemu-audio-spice"
        " qemu-hw-display-qxl qemu-hw-usb-redirect",
        "qemu-img": "qemu-img",
        "uefi": "edk2-ovmf",
        "swtpm": "swtpm",
        "viewer": "virt-viewer",
    },
    "suse": {
        "qemu": "qemu-x86",
        "spice": "qemu-spice",
        "qemu-img": "qemu-img",
        "uefi": "qemu-ovmf-x86_64",
        "swtpm": "swtpm",
        "viewer": "virt-viewer",
    },
}
_FILES = ("/etc/os-release", "/usr/lib/os-release")


def install(what: str) -> str:
    """The command that installs `what`; on an unknown distribution, what to look for."""
    family = _family(_os_release())
    if family is None:
        return f"install the package that has {what}"
    package = _PACKAGES[family][what]
    # In Debian 12 the modules are part of a package that every QEMU brings along.
    if family == "debian" and what == "spice" and _os_release().get("VERSION_ID") == "12":
        package = "qemu-system-common"
    sudo = "sudo " if os.geteuid() else ""
    return f"{sudo}{_COMMANDS[family]} {package}"


def _family(release: dict[str, str]) -> str | None:
    words = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    aliases = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "opensuse": "suse"}
    for word in words:
        name = aliases.get(word, word)
        if name in _PACKAGES:
            return name
    return None


def _os_release() -> dict[str, str]:
    for path in _FILES:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return parse(file.read())
        except OSError:
            continue
    return {}


def parse(text: str) -> dict[str, str]:
    """The variables of an os-release file."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            found[name] = value.strip("\"'")
    return found
