"""Who else looks after an interface, and would undo at its next renewal what we change."""

from __future__ import annotations

import glob
import os

_CLIENTS = ("dhclient", "dhcpcd", "udhcpc")


def owner_of(name: str, index: int, root: str = "") -> str | None:
    """Who it is, in a word; None when nobody does. `root` stands before every path."""
    if "managed=true" in _read(f"{root}/run/NetworkManager/devices/{index}").replace(" ", ""):
        return "NetworkManager"
    state = _read(f"{root}/run/systemd/netif/links/{index}").splitlines()
    if any(line in ("ADMIN_STATE=configured", "ADMIN_STATE=configuring") for line in state):
        netplan = glob.glob(f"{root}/run/systemd/network/*netplan*")
        return "netplan" if netplan else "systemd-networkd"
    for line in _read(f"{root}/run/network/ifstate").splitlines():
        if line.startswith(f"{name}="):
            return "ifupdown"
    return _client(name, root)


def _client(name: str, root: str) -> str | None:
    """A DHCP client that was started for the interface, or for all (dhcpcd)."""
    for path in glob.glob(f"{root}/proc/[0-9]*/cmdline"):
        words = _read(path).split("\0")
        program = os.path.basename(words[0])
        others = [word for word in words[1:] if word and not word.startswith("-")]
        if program in _CLIENTS and (name in others or (program == "dhcpcd" and not others)):
            return f"{program} (pid {path.split('/')[-2]})"
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
