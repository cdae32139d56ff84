"""`qlaunch image`: files looked at, made, enlarged and converted; nothing that is in use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qlaunch.host.images import image_contents
from tests.definitions import qlaunch
from tests.rig import Rig

pytestmark = pytest.mark.qemu

MIB = 1 << 20


def make(path: Path, form: str = "qcow2", *more: str) -> Path:
    words = ["qemu-img", "create", "-q", "-f", form, *more, str(path), "8M"]
    subprocess.run(words, check=True)
    return path


def test_an_image_is_made_shown_enlarged_and_checked(own_place: Path) -> None:
    path = own_place / "a.qcow2"
    assert qlaunch("image", "create", path, "8MiB").status == 0
    assert qlaunch("image", "resize", path, "+8MiB").status == 0
    assert image_contents(str(path)).virtual_size == 16 * MIB
    assert qlaunch("image", "resize", path, "4MiB").status == 2
    assert qlaunch("image", "info", path, "--json").json["layers"][0]["format"] == "qcow2"
    assert qlaunch("image", "check", path).status == 0
    assert qlaunch("image", "chain", path, "--json").json["chain"][0]["virtual_size"] == 16 * MIB


@pytest.mark.parametrize("form", ["vmdk", "vdi", "vhdx", "raw"])
def test_an_image_of_another_program_is_converted(form: str, own_place: Path) -> None:
    source = own_place / f"old.{form}"
    subprocess.run(["qemu-img", "create", "-q", "-f", form, str(source), "8M"], check=True)
    write = ["qemu-io", "-f", form, "-c", "write -P 7 1M 1M", str(source)]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    target = own_place / "new.qcow2"
    done = qlaunch("image", "convert", source, target, *(["--from", form] if form == "raw" else []))
    assert done.status == 0, done.err
    words = ["qemu-img", "compare", "-f", form, "-F", "qcow2", str(source), str(target)]
    assert subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert qlaunch("image", "convert", source, target).status == 5
    assert sorted(each.name for each in own_place.glob("*.*")) == sorted([source.name, target.name])


def test_what_another_image_stands_on_is_not_resized(own_place: Path) -> None:
    base = make(own_place / "base.qcow2")
    make(own_place / "top.qcow2", "qcow2", "-b", str(base), "-F", "qcow2")
    done = qlaunch("image", "resize", base, "1GiB")
    assert (done.status, "top.qcow2 stands on it" in done.err) == (6, True)


def test_what_is_no_image_is_told(own_place: Path) -> None:
    bad = own_place / "bad.vmdk"
    bad.write_bytes(b"nothing of the sort" * 100)
    done = qlaunch("image", "convert", bad, own_place / "new.qcow2")
    assert (done.status, "was not converted" in done.err) == (1, True)
    assert not (own_place / "new.qcow2").exists()
    assert qlaunch("image", "resize", own_place / "gone.qcow2", "1GiB").status == 4


def test_what_a_running_machine_holds_is_refused(rig: Rig) -> None:
    rig.up("demo")
    report = qlaunch("disk", "info", "demo", "--json").json
    path = report["disks"][0]["layers"][0]["path"]
    for words in (("resize", path, "1GiB"), ("convert", path, f"{path}.new")):
        done = qlaunch("image", *words)
        assert (done.status, "in use by" in done.err) == (5, True), done.err
