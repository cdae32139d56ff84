"""What runs inside, by what the XML says of it."""

from __future__ import annotations

import re

from qlaunch.libvirt.element import Element

# libosinfo's ids, then names that people give their machines.
_IDS = (
    (r"microsoft\.com/win/(xp|2k3|2003)", "windows-xp"),
    (r"microsoft\.com/win/2k\b", "windows-2000"),
    (r"microsoft\.com/win/(7|vista|2k8)", "windows-7"),
    (r"microsoft\.com/win/(11|2k25)", "windows-11"),
    (r"microsoft\.com/win/", "windows-10"),
    (r"(freebsd|openbsd|netbsd|dragonflybsd)\.org/", "bsd"),
    (r"(freedos\.org|microsoft\.com/msdos)", "dos"),
    (r"(android|haiku|reactos|apple|oracle\.com/solaris|illumos|smartos|omnios)", "other"),
    (r"[a-z]+\.(org|com|net|io)/[a-z]+", "linux"),
)
_NAMES = (
    (r"win(dows)?[ ._-]?xp|(^|[^a-z])xp([^a-z]|$)|winxp", "windows-xp"),
    (r"win(dows)?[ ._-]?(2000|2k)([^0-9]|$)", "windows-2000"),
    (r"win(dows)?[ ._-]?(7|vista)([^0-9]|$)", "windows-7"),
    (r"win(dows)?[ ._-]?11", "windows-11"),
    (r"win(dows)?[ ._-]?(8|10|2012|2016|2019|2022)", "windows-10"),
    (r"freebsd|openbsd|netbsd", "bsd"),
    (r"free-?dos|ms-?dos|(^|[^a-z])dos([^a-z]|$)", "dos"),
    (
        r"debian|ubuntu|fedora|centos|rhel|rocky|alma|suse|arch ?linux|linux|mint|gentoo|alpine"
        r"|nixos|kali",
        "linux",
    ),
)


def guest(domain: Element) -> tuple[str, str]:
    """The guest, and how it is known; `other` where nothing tells it."""
    for name in _ids(domain):
        for pattern, found in _IDS:
            if re.search(pattern, name.lower()):
                return found, "from the metadata of libosinfo"
    for tag in ("title", "name"):
        text = domain.within(tag).words().lower()[:200]
        for pattern, found in _NAMES:
            if re.search(pattern, text):
                return found, f"guessed by its {tag}"
    if domain.within("features").first("hyperv") is not None:
        q35 = "q35" in domain.within("os", "type").attribute("machine")
        return "windows-10" if q35 else "other", "guessed by its Hyper-V features"
    return "other", ""


def _ids(domain: Element) -> list[str]:
    """The ids that libosinfo left in the metadata, at any depth."""
    found, waiting = [], list(domain.within("metadata").children)
    while waiting:
        element = waiting.pop(0)
        waiting += element.children
        if element.tag.rpartition(":")[2] == "os" and "id" in element.attributes:
            found.append(element.attributes["id"][:200])
    domain.within("metadata").take()
    return found
