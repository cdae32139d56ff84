"""The USB devices of this computer, as the kernel shows them in sysfs. Nothing is opened."""

from __future__ import annotations

import os
import re

from qlaunch.facts import UsbDevice

DEVICES = "/sys/bus/usb/devices"
NODES = "/dev/bus/usb"
_HUB = 0x09
_PORT = re.compile(r"[1-9][0-9]*-[1-9][0-9]*(\.[1-9][0-9]*)*")


def usb_devices(folder: str = DEVICES, nodes: str = NODES) -> tuple[UsbDevice, ...]:
    """All that are plugged in, by port; hubs, the root's too, are left out."""
    try:
        names = [name for name in os.listdir(folder) if _PORT.fullmatch(name)]
    except OSError:
        return ()
    found = (_device(folder, nodes, name) for name in sorted(names, key=_order))
    return tuple(device for device in found if device is not None)


def _order(name: str) -> list[int]:
    return [int(number) for number in re.split(r"[-.]", name)]


def _device(folder: str, nodes: str, name: str) -> UsbDevice | None:
    """The device at one port; None for a hub, or one that is being pulled out just now."""
    place = os.path.join(folder, name)
    try:
        vendor, product = (int(_read(place, key), 16) for key in ("idVendor", "idProduct"))
        kind = int(_read(place, "bDeviceClass"), 16)
        bus, number = int(_read(place, "busnum")), int(_read(place, "devnum"))
    except (OSError, ValueError):
        return None
    if kind == _HUB:
        return None
    node = os.path.join(nodes, f"{bus:03}", f"{number:03}")
    words = (_said(place, key) for key in ("manufacturer", "product"))
    return UsbDevice(
        port=name,
        vendor=vendor,
        product=product,
        name=" ".join(word for word in words if word),
        serial=_said(place, "serial"),
        kinds=tuple(sorted({kind} - {0} | _interfaces(folder, name))),
        node=node,
        usable=os.access(node, os.R_OK | os.W_OK),
    )


def _interfaces(folder: str, name: str) -> set[int]:
    kinds = set()
    for entry in os.listdir(folder):
        if entry.startswith(f"{name}:"):
            try:
                kinds.add(int(_read(os.path.join(folder, entry), "bInterfaceClass"), 16))
            except (OSError, ValueError):
                continue
    return kinds


def _said(place: str, key: str) -> str:
    """What the device says of itself; nothing where it says nothing."""
    try:
        return " ".join(_read(place, key).split())
    except OSError:
        return ""


def _read(place: str, key: str) -> str:
    with open(os.path.join(place, key), encoding="utf-8", errors="replace") as file:
        return file.read().strip()
