"""The table `[security]` of a profile."""

from __future__ import annotations

from attrs import frozen

from qlaunch.profile import fields as key


@frozen(kw_only=True)
class Security:
    """How the machine's programs are confined."""

    sandbox: bool | None = key.boolean(
        "QEMU is kept to system calls that it needs (seccomp) and to the files and the network of"
        " this machine (Landlock). `false` lets it do all that you may; `ps` says so then.",
        otherwise="true",
    )
    tcp: bool | None = key.boolean(
        "QEMU itself may use TCP. A card on QEMU's own `user` network needs that; a machine that"
        " starts without one and may get one later must say it.",
        otherwise="true with such a card or with `qemu.args`, else false",
    )
    read: tuple[str, ...] = key.words(
        "More files and folders that QEMU may read: of an emulator that lies elsewhere, say.",
        example='["/opt/qemu"]',
        **key.ABSOLUTE_PATH,
    )
    write: tuple[str, ...] = key.words(
        "More files, folders and devices that QEMU may read and write. Absolute paths in"
        " `qemu.args` are among them already.",
        example='["/dev/vfio"]',
        **key.ABSOLUTE_PATH,
    )
