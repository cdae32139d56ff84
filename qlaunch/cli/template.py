"""The profile that `qlaunch new` writes: short, and commented so that a newcomer learns from it."""

from __future__ import annotations

from attrs import frozen

from qlaunch.profile.dump import toml_text

_WIDTH = 24
_NO_DISK = """\
# A disk; it is made at the first start.
# [[disk]]
# id = "disk0"
# size = "20GiB"
"""
_BUSES = {
    "windows-xp": ("ide", "XP's own CD has a driver for it; virtio needs one from a floppy first"),
    "windows-2000": ("ide", "Windows 2000 has a driver for it"),
    "windows-7": ("sata", "its CD has a driver for it; virtio needs the virtio-win CD"),
    "windows-10": ("sata", "its CD has a driver for it; virtio is faster, with the virtio-win CD"),
    "windows-11": ("sata", "its CD has a driver for it; virtio is faster, with the virtio-win CD"),
    "linux": ("virtio", "the fastest; Linux has its driver"),
    "bsd": ("virtio", "the fastest; the BSDs have its driver"),
    "dos": ("ide", "what DOS knows"),
    "other": ("ide", "what every system knows; virtio is faster where there is a driver"),
}
_CARDS = {
    "windows-xp": ("rtl8139", "its driver is on XP's CD"),
    "windows-2000": ("rtl8139", "its driver is on the CD"),
    "windows-7": ("e1000e", "virtio is faster, with the virtio-win CD"),
    "windows-10": ("e1000e", "its driver is on the CD; virtio is faster, with the virtio-win CD"),
    "windows-11": ("e1000e", "its driver is on the CD; virtio is faster, with the virtio-win CD"),
    "linux": ("virtio", "the fastest; Linux has its driver"),
    "bsd": ("virtio", "the fastest; the BSDs have its driver"),
    "dos": ("pcnet", "packet drivers for it are easy to find"),
    "other": ("e1000", "a card that most systems know; virtio is faster"),
}


@frozen(kw_only=True)
class Wish:
    """What the command line asks for; sizes as the user wrote them. `call` is how commands name
    the profile, `said_name` is set where the file's name does not say the machine's."""

    name: str
    call: str
    guest: str
    said_name: bool = False
    iso: str | None = None
    disks: tuple[str, ...] = ()
    memory: str | None = None
    cpus: int | None = None


def template(wish: Wish) -> str:
    """The text of the profile."""
    blocks = [_head(wish), *_sizes(wish)]
    if wish.iso is not None:
        blocks.append(_BOOT)
    blocks += [_disk(wish, at, size) for at, size in enumerate(wish.disks)] or [_NO_DISK]
    if wish.iso is not None:
        blocks.append(_cdrom(wish.iso))
    blocks.append(_nic(wish))
    return "\n".join(blocks)


_BOOT = """\
[boot]
# The first start boots from the CD. From the guest's first restart on it is the disk again, so
# that the installer does not start twice.
once = "cdrom"
"""


def _said(key: str, value: str, comment: str) -> str:
    return f"{f'{key} = {value}':<{_WIDTH}}# {comment}\n"


def _head(wish: Wish) -> str:
    call = wish.call
    text = (
        f"# A machine of qlaunch. `qlaunch check {call}` finds mistakes, `qlaunch up {call}`\n"
        f"# starts it, `qlaunch show {call}` prints it with all that its guest brings along.\n\n"
        "schema = 1\n"
    )
    if wish.said_name:
        text += f"name = {toml_text(wish.name)}\n"
    why = "brings what it has drivers for, warns of the rest"
    text += _said("guest", toml_text(wish.guest), why)
    return text + '# title = "A line for lists"\n'


def _sizes(wish: Wish) -> list[str]:
    found = []
    if wish.memory is not None:
        found.append(f"[memory]\nsize = {toml_text(wish.memory)}\n")
    else:
        found.append('# [memory]\n# size = "2GiB"         # instead of what suits the guest\n')
    if wish.cpus is not None:
        found.append(f"[cpu]\ncount = {wish.cpus}\n")
    return found


def disk_ids(guest: str, count: int) -> list[str]:
    """What the disks are called: `hda` and `hdb` on IDE, else `disk0` and `disk1`."""
    names = ("hda", "hdb") if _BUSES[guest][0] == "ide" else ("disk0", "disk1")
    return list(names[:count])


def _disk(wish: Wish, at: int, size: str) -> str:
    bus, why = _BUSES[wish.guest]
    text = f'[[disk]]\nid = "{disk_ids(wish.guest, 2)[at]}"\n'
    words = "made at the first start; takes only what the guest writes" if at == 0 else "for data"
    text += _said("size", toml_text(size), words)
    return text + _said("bus", toml_text(bus), why if at == 0 else "as above")


def _cdrom(iso: str) -> str:
    return f'[[cdrom]]\nid = "cd0"\npath = {toml_text(iso)}\n'


def _nic(wish: Wish) -> str:
    model, why = _CARDS[wish.guest]
    return (
        '[[nic]]\nid = "net0"\n'
        + _said("model", toml_text(model), why)
        + '# forward = ["2222:22"]  # port 2222 of this computer leads to port 22 of the guest\n'
    )
