"""A profile as a person would write it: what qlaunch does anyway is left out."""

from __future__ import annotations

from functools import cache
from typing import Any

from qlaunch.libvirt.wish import Wish
from qlaunch.profile.extends import BASE_OF_GUEST
from qlaunch.profile.fields import entries_of
from qlaunch.profile.guests import GuestDefaults, defaults_of
from qlaunch.profile.load import loads
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import BOOT_ORDER

_MIB = 1 << 20
# What the plan takes where neither profile nor base says it. What depends on more is below.
_PLAIN: dict[str, object] = {
    "machine.arch": "x86_64",
    "machine.acpi": True,
    "machine.smm": True,
    "machine.firmware": "bios",
    "machine.secure_boot": False,
    "machine.tpm": False,
    "machine.rng": False,
    "machine.watchdog": "none",
    "machine.watchdog_action": "reset",
    "machine.panic": False,
    "machine.generation_id": False,
    "clock.base": "utc",
    "clock.drift": "none",
    "boot.menu": False,
    "lifecycle.on_poweroff": "destroy",
    "lifecycle.on_reboot": "restart",
    "lifecycle.on_crash": "destroy",
    "display.spice": True,
    "display.vnc": False,
    "display.clipboard": True,
    "display.file_transfer": True,
    "display.agent_mouse": True,
    "video.model": "std",
    "video.heads": 1,
    "sound.model": "none",
    "usb.redirect": 0,
}
_ITEMS: dict[str, dict[str, object]] = {
    "disk": {
        "format": "qcow2", "cache": "writeback", "aio": "threads", "discard": "unmap",
        "read_only": False, "snapshot": True, "removable": False,
    },
    "floppy": {"read_only": False},
    "nic": {"link": "up", "backend": "user", "filter": "clean", "queues": 1},
    "input": {"model": "usb-tablet"},
    "share": {"read_only": False},
}  # fmt: skip
_CHANNELS = {
    "com.redhat.spice.0": "spicevmc",
    "org.qemu.guest_agent.0": "guest-agent",
}
_WEBDAV = "org.spice-space.webdav.0"


def shorten(wish: Wish) -> None:
    """Take out of `wish` what a profile for its guest says by itself."""
    guest = str(wish.get("guest") or "other")
    base, defaults = base_of(guest), defaults_of(guest)
    q35 = "q35" in str(wish.get("machine.type"))
    _order(wish)
    _shape(wish, base)
    _folders(wish)
    _automatic_seats(wish, q35=q35)
    _webdav(wish)
    _ports(wish, base)
    plain = {**_PLAIN, **_by_guest(wish, defaults, guest)}
    for table, keys in wish.tables.items():
        if table:
            _table(wish, table, keys, getattr(base, table), plain)
    if not wish.get("display.spice") and wish.get("display.spice") is not None:
        # Without SPICE a screen would be on VNC by itself.
        wish.tables["display"].setdefault("vnc", False)
    for array, items in wish.items.items():
        inherited = {item.id: item for item in getattr(base, array)}
        for item in items:
            _item(array, item, inherited.get(item["id"]), defaults, q35=q35)
    _removed(wish, base)


@cache
def base_of(guest: str) -> Profile:
    """What a profile says that says nothing but its guest."""
    text = f'schema = 1\nguest = "{guest}"\n'
    return loads(text, "/base.toml", name="base")


def _by_guest(wish: Wish, defaults: GuestDefaults, guest: str) -> dict[str, object]:
    found: dict[str, object] = {
        "machine.type": defaults.machine,
        "machine.hpet": defaults.hpet,
        "memory.size": defaults.memory,
        "memory.balloon": guest != "dos",
        "cpu.model": defaults.cpu or "host",
    }
    if wish.get("video.model") == "qxl":
        found |= {"video.vram": 64 * _MIB, "video.ram": 64 * _MIB, "video.vgamem": 16 * _MIB}
    else:
        found |= {"video.vram": 16 * _MIB}
    return found


def _table(
    wish: Wish, table: str, keys: dict[str, Any], base: object, plain: dict[str, object]
) -> None:
    for key, value in list(keys.items()):
        entry = entries_of(type(base)).get(key)
        inherited = getattr(base, entry.attribute) if entry else None
        said = inherited is not None and inherited != ()
        if value == inherited if said else value == plain.get(f"{table}.{key}"):
            del keys[key]
            wish.comments.pop(f"{table}.{key}", None)


def _order(wish: Wish) -> None:
    """The boot order, unless it is the usual one."""
    kinds = wish.tables.get("boot", {}).pop("kinds", []) or ["disk"]
    ids = {
        "disk": [item["id"] for item in wish.items.get("disk", ())],
        "cdrom": [item["id"] for item in wish.items.get("cdrom", ())],
        "floppy": [item["id"] for item in wish.items.get("floppy", ())],
        "network": [item["id"] for item in wish.items.get("nic", ())],
    }
    if wish.turns:
        meant = [wish.turns[turn] for turn in sorted(wish.turns)]
        alone = {found[0]: kind for kind, found in ids.items() if len(found) == 1}
        words = [alone.get(ident, ident) for ident in meant]
    else:
        # libvirt's kinds mean the first device of each.
        words = [kind if len(ids[kind]) == 1 else ids[kind][0] for kind in kinds if ids[kind]]
        meant = [ids[kind][0] for kind in kinds if ids[kind]]
    usual = [ident for kind in BOOT_ORDER for ident in ids[kind]]
    if meant != usual and words:
        wish.tables["boot"]["order"] = tuple(words)


def _shape(wish: Wish, base: Profile) -> None:
    """Sockets, cores and threads only where their number does not say it."""
    cpu = wish.tables.get("cpu", {})
    sockets, threads = cpu.get("sockets", 1), cpu.get("threads", 1)
    if sockets == 1 and threads == 1:
        count = cpu.get("count", 1)
        for key in ("sockets", "cores", "threads"):
            cpu.pop(key, None)
        if count == (base.cpu.count or 1):
            cpu.pop("count", None)
        return
    cpu.pop("count", None)
    for key in ("sockets", "cores", "threads"):
        if cpu.get(key) == 1:
            del cpu[key]


def _folders(wish: Wish) -> None:
    """Shared folders come with the SPICE agent unless the profile says otherwise."""
    display = wish.tables.get("display", {})
    names = [item.get("name") for item in wish.items.get("channel", ())]
    spice = display.get("spice", True) and wish.get("video.model") != "none"
    agent = "com.redhat.spice.0" in names
    if not spice or display.get("folder_sharing") == agent:
        display.pop("folder_sharing", None)


def _webdav(wish: Wish) -> None:
    """The channel of shared folders, where it is the one that comes by itself: the last."""
    channels = wish.items.get("channel", [])
    names = [item.get("name") for item in channels]
    last = channels[-1] if channels else {}
    if "com.redhat.spice.0" in names and names[-1] == _WEBDAV and last["port"] == len(channels):
        channels.pop()


def _ports(wish: Wish, base: Profile) -> None:
    """Leave out the numbers of ports that qlaunch would give by itself: those of the order, in
    which the channels of the base come first."""
    channels = wish.items.get("channel", [])
    ids = [item["id"] for item in channels]
    ordered = [item.id for item in base.channel if item.id in ids]
    ordered += [ident for ident in ids if ident not in ordered]
    if all(item["port"] == ordered.index(item["id"]) + 1 for item in channels):
        for item in channels:
            del item["port"]


def _automatic_seats(wish: Wish, *, q35: bool) -> None:
    """Leave out the seats on IDE and SATA where qlaunch would choose the same."""
    for bus, cd_seat in (("ide", 2), ("sata", 1)):
        disks = [item for item in wish.items.get("disk", ()) if item.get("bus") == bus]
        drives = [item for item in wish.items.get("cdrom", ()) if item.get("bus") == bus]
        given: dict[str, int] = {}
        if drives:
            given[drives[0]["id"]] = cd_seat
        for item in (*disks, *drives[1:]):
            free = [number for number in range(6) if number not in given.values()]
            given[item["id"]] = free[0] if free else -1
        for item in (*disks, *drives):
            number = given[item["id"]]
            seat = f"{number // 2}.{number % 2}" if bus == "ide" else str(number)
            if item.get("address", seat) != seat:
                break
        else:
            for item in (*disks, *drives):
                item.pop("address", None)


def _item(
    array: str, item: dict[str, Any], inherited: object, defaults: GuestDefaults, *, q35: bool
) -> None:
    plain = dict(_ITEMS.get(array, {}))
    if array == "disk":
        plain["bus"] = defaults.q35_bus if q35 else defaults.disk_bus
    elif array == "cdrom":
        plain["bus"] = "sata" if q35 else "ide"
    elif array == "nic":
        plain["model"] = defaults.nic
    elif array == "channel":
        kind = _CHANNELS.get(item.get("name", ""))
        if kind == item.get("type"):
            plain["name"] = item["name"]
        elif kind is None and item.get("type") == "socket":
            plain["type"] = "socket"
    for key, value in list(item.items()):
        own = getattr(inherited, key, None) if inherited is not None else None
        if key != "id" and value == (plain.get(key) if own in (None, ()) else own):
            del item[key]


def _removed(wish: Wish, base: Profile) -> None:
    """Leave out the items that the base brings just so, and take away those that are not wanted."""
    for array in Profile.ARRAYS:
        items = wish.items.get(array, [])
        there = {item["id"] for item in items}
        inherited = {item.id for item in getattr(base, array)}
        kept = [item for item in items if len(item) > 1 or item["id"] not in inherited]
        gone = [{"id": ident, "remove": True} for ident in sorted(inherited - there)]
        wish.items[array] = [*gone, *kept]


def has_base(guest: str) -> bool:
    """Whether profiles for this guest build on a base."""
    return guest in BASE_OF_GUEST
