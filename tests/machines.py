"""Profiles for the tests of plans and command lines: tests/profiles/*.toml.

All that a machine can have is in one of them. `@/` in a path stands for a folder of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from qlaunch.facts import NetworkFacts

BASE = "/vm/images"
FOLDER = Path(__file__).parent / "profiles"


@frozen(kw_only=True)
class Case:
    """What must be there for a profile: images (`name: format`, or `name: format < backing`),
    shared folders, SPICE, network services."""

    name: str
    files: Mapping[str, str] = field(factory=dict)
    folders: tuple[str, ...] = ()
    spice: bool = False
    network: NetworkFacts = NetworkFacts()

    def text(self, folder: str = BASE) -> str:
        """The profile, with its images in `folder`."""
        text = (FOLDER / f"{self.name}.toml").read_text(encoding="utf-8")
        return text.replace("@/", f"{folder}/")


_NEEDS: tuple[Case, ...] = (
    Case(
        name="xp-libvirt",
        files={"hda.qcow2": "qcow2", "winxp.iso": "raw", "drivers.img": "raw"},
        spice=True,
    ),
    Case(name="xp-virtio", files={"winxp.iso": "raw", "virtio.vfd": "raw"}, spice=True),
    Case(name="windows11", spice=True),
    Case(name="uefi", files={"own.fd": "raw"}),
    Case(name="scsi", files={"sdb.qcow2": "qcow2", "a.iso": "raw"}),
    Case(name="usb-disks", files={"a.iso": "raw", "stick.qcow2": "qcow2"}),
    Case(name="disk-modes", files={"b.raw": "raw", "d.qcow2": "qcow2"}),
    Case(name="usb-devices", files={"stick.img": "raw"}, spice=True),
    Case(
        name="backing-chain",
        files={
            "a.base.raw": "raw",
            "a.mid.qcow2": "qcow2 < a.base.raw",
            "a.qcow2": "qcow2 < a.mid.qcow2",
            "base.raw": "raw",
        },
    ),
    Case(name="shares", folders=("work, and more", "music")),
    Case(name="displays", spice=True),
    Case(name="floppies", files={"fd0.img": "raw"}),
    Case(name="kernel", files={"vmlinuz": "kernel", "initrd.img": "raw"}),
    Case(name="dos", files={"dos.img": "raw"}),
    Case(name="cables", network=NetworkFacts(netd=("*",), passt="/usr/bin/passt")),
)

CASES: Mapping[str, Case] = {
    **{path.stem: Case(name=path.stem) for path in sorted(FOLDER.glob("*.toml"))},
    **{case.name: case for case in _NEEDS},
}
