"""The same hardware: both machines of every XML file of tests/domains, libvirt's and qlaunch's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compare.libvirt import Libvirt, RefusedByLibvirt, works
from tests.compare.twins import compare
from tests.prerequisites import both_qemus, find_program, require

pytestmark = pytest.mark.qemu

FOLDER = Path(__file__).parent / "domains"
NAMES = sorted(path.stem for path in FOLDER.glob("*.xml"))
# What this libvirt does not take, and what it says of it.
REFUSED = {"rhel-board": "does not support machine type"}
# On QEMU 10 as well: every board, bus and kind of card is in one of them.
NEWER = ("disk-buses", "q35-linux", "windows-xp")


@pytest.fixture(scope="module")
def libvirt() -> Iterator[Libvirt]:
    require("qemu", find_program("virsh"), "virsh (libvirt-clients) is not installed")
    require("userns", works(), "libvirt's QEMU driver does not run by itself here")
    # Short: paths of sockets are in it.
    folder = Path(tempfile.mkdtemp(prefix="ql-lv-", dir="/tmp"))
    yield Libvirt(folder)
    shutil.rmtree(folder, ignore_errors=True)


def check(name: str, emulator: str, libvirt: Libvirt) -> None:
    folder = Path(tempfile.mkdtemp(prefix="ql-tw-", dir="/tmp"))
    file = FOLDER / f"{name}.xml"
    try:
        if name in REFUSED:
            with pytest.raises(RefusedByLibvirt, match=REFUSED[name]):
                compare(file, emulator, libvirt, folder)
            return
        found = compare(file, emulator, libvirt, folder)
    finally:
        shutil.rmtree(folder)
    assert found.bad == (), "\n".join(map(str, found.bad))


@pytest.mark.parametrize("name", NAMES)
def test_the_imported_machine_is_the_one_of_libvirt(name: str, libvirt: Libvirt) -> None:
    emulator = find_program("qemu-system-x86_64")
    assert emulator is not None
    check(name, os.path.realpath(emulator), libvirt)


@both_qemus
@pytest.mark.parametrize("name", NEWER)
def test_it_is_so_with_every_qemu(name: str, qemu_binary: str, libvirt: Libvirt) -> None:
    check(name, qemu_binary, libvirt)
