"""Facts are plain data: looked up by name, saved and read again."""

from __future__ import annotations

import json

from qlaunch.facts import Facts, HostFacts, ImageFacts, MachineType, QemuFacts
from qlaunch.records import from_plain, to_plain

QEMU = QemuFacts(
    path="/usr/bin/qemu-system-x86_64",
    version=(7, 2, 22),
    machines=(MachineType(name="pc-i440fx-7.2", alias="pc", default=True, cpu_max=255),),
    devices=frozenset({"rtl8139"}),
    options=frozenset({"spice"}),
)


def test_a_machine_is_found_by_name_and_by_alias() -> None:
    assert QEMU.machine("pc") is QEMU.machine("pc-i440fx-7.2") is QEMU.machines[0]
    assert QEMU.machine("q35") is None


def test_spice_needs_its_modules_and_not_only_its_option() -> None:
    assert not QEMU.has_spice
    devices = frozenset({"chardev-spicevmc"})
    assert QemuFacts(path="q", version=(7, 2, 0), options=QEMU.options, devices=devices).has_spice


def test_a_version_is_written_with_dots() -> None:
    assert QEMU.version_text == "7.2.22"


def test_a_path_nobody_looked_at_does_not_exist() -> None:
    facts = Facts(qemu=QEMU, host=HostFacts())
    assert facts.image("/a") == ImageFacts(path="/a")
    assert not facts.image("/a").exists


def test_facts_survive_json() -> None:
    facts = Facts(
        qemu=QEMU, host=HostFacts(cpus=2), images={"/a": ImageFacts(path="/a", exists=True)}
    )
    assert from_plain(Facts, json.loads(json.dumps(to_plain(facts)))) == facts
