"""Plans without a computer: facts as real QEMUs gave them, on a host that never changes.

`tools/record-facts` records them anew.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from attrs import evolve

from qlaunch.facts import (
    Facts,
    Firmware,
    HostFacts,
    ImageFacts,
    KvmFacts,
    NetworkFacts,
    QemuFacts,
    UsbDevice,
)
from qlaunch.machine.prepare import with_shipped
from qlaunch.plan import Leases, Places, Resolution, resolve
from qlaunch.profile.load import loads
from qlaunch.profile.model import Profile
from qlaunch.records import from_plain

DATA = Path(__file__).parent / "data"
VERSIONS = ("7.2", "10.0")
PLACES = Places(data="/vm/data", state="/vm/state", runtime="/run/vm")
GIB = 1 << 30
DISK = ImageFacts(
    path="", exists=True, readable=True, writable=True, format="qcow2", virtual_size=20 * GIB
)
RAW = evolve(DISK, format="raw")
FOLDER = ImageFacts(path="", exists=True, format="directory")


def uefi(name: str, *features: str, arch: str = "x86_64") -> Firmware:
    """A descriptor of an OVMF whose files are called after `name`."""
    return Firmware(
        descriptor=f"/usr/share/qemu/firmware/{name}.json",
        description=name,
        code=f"/usr/share/OVMF/{name}_CODE.fd",
        code_format="raw",
        vars_template=f"/usr/share/OVMF/{name}_VARS.fd",
        vars_format="raw",
        architectures=frozenset({arch}),
        machines=("pc-q35-*",) if "requires-smm" in features else ("pc-i440fx-*", "pc-q35-*"),
        features=frozenset(features),
    )


HOST = HostFacts(
    machine_id="0123456789abcdef",
    user="ann",
    uid=1000,
    cpus=4,
    memory_total=64 * GIB,
    memory_available=32 * GIB,
    kvm=KvmFacts(usable=True, smm=True, max_vcpus=255),
    firmware=(
        uefi("ENROLLED", "secure-boot", "enrolled-keys", "requires-smm"),
        uefi("PLAIN"),
        uefi("PLAIN32", arch="i386"),
    ),
    swtpm="/usr/bin/swtpm",
    qemu_img="/usr/bin/qemu-img",
    systemd_scope="user",
)


@cache
def qemu(version: str = "7.2") -> QemuFacts:
    """What QEMU 7.2 or 10.0 of Debian can do."""
    plain = json.loads((DATA / f"facts-{version}.json").read_text(encoding="utf-8"))
    return from_plain(QemuFacts, plain)


@cache
def commands(version: str) -> Mapping[str, tuple[str, ...]]:
    """The QMP commands of that QEMU, each with its arguments; optional ones end in `?`."""
    plain = json.loads((DATA / f"qmp-{version}.json").read_text(encoding="utf-8"))
    return {name: tuple(arguments) for name, arguments in plain.items()}


def profile(text: str, *overrides: str, name: str = "vm") -> Profile:
    """The profile that says `text`; `schema = 1` need not be said."""
    whole = text if "schema" in text else f"schema = 1\n{text}"
    return with_shipped(loads(whole, f"/p/{name}.toml", name=name, overrides=overrides))


def facts(version: str = "7.2", images: Mapping[str, ImageFacts] | None = None) -> Facts:
    """Facts with `images`, which are at the paths by which they are named."""
    named = {path: evolve(image, path=path) for path, image in (images or {}).items()}
    return Facts(qemu=qemu(version), host=HOST, images=named)


def plan_of(
    text: str | Profile,
    *,
    images: Mapping[str, ImageFacts] | None = None,
    leases: Leases | None = None,
    version: str = "7.2",
    host: HostFacts | None = None,
    ports: Mapping[str, str] | None = None,
    without: tuple[str, ...] = (),
    heads: Mapping[str, str] | None = None,
    network: NetworkFacts | None = None,
    usb: tuple[UsbDevice, ...] = (),
) -> Resolution:
    """What is decided for the profile `text`, with a QEMU that has no device `without`."""
    known = facts(version, images)
    there = evolve(known.qemu, devices=known.qemu.devices - set(without))
    known = evolve(known, qemu=there, host=host or HOST, ports_in_use=ports or {})
    known = evolve(known, network=network or NetworkFacts(), usb=usb)
    wish = profile(text) if isinstance(text, str) else text
    return resolve(wish, known, leases or Leases(), PLACES, heads)


def findings(resolution: Resolution) -> str:
    """What was found, one finding after the other, as a person reads it."""
    lines = []
    for finding in resolution.findings:
        where = finding.where.removeprefix("/p/")
        who = "" if finding.cause == "profile" else f" ({finding.cause})"
        lines.append(f"{finding.level}{who}: {where}: {finding.message}")
        if finding.hint:
            lines.append(f"  {finding.hint}")
    return "\n".join(lines)


def readable(options: tuple[tuple[str, ...], ...]) -> str:
    """A command line with one option on a line; JSON stays as it is."""
    lines = []
    for name, *values in options:
        words = [v if v.startswith("{") else shlex.quote(v) for v in values]
        lines.append(" ".join([name, *words]))
    return "\n".join(lines) + "\n"


def devices_of(resolution: Resolution) -> dict[str, dict[str, Any]]:
    """The properties of every device, by its id; `driver` among them."""
    found = resolution.plan.all_devices()
    return {device.id: {"driver": device.driver, **device.props} for device in found}


NO_KVM = KvmFacts(
    problem="/dev/kvm: Permission denied", hint="sudo usermod -aG kvm ann, then log in again"
)
