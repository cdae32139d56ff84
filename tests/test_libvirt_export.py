"""Profiles as domains of libvirt: libvirt takes them, and their import is the same profile."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qlaunch.argv import command_line
from qlaunch.libvirt.domain import import_domain
from qlaunch.libvirt.export import export_domain
from qlaunch.libvirt.xml import read
from qlaunch.profile.model import Profile
from tests import plans
from tests.conftest import Golden
from tests.definitions import qlaunch
from tests.machines import CASES, Case
from tests.prerequisites import find_program, require
from tests.test_argv_golden import images_of
from tests.test_libvirt_import import NAMES, imported

DATA = "/vm/data"


def line(case: Case, profile: Profile) -> str:
    resolution = plans.plan_of(profile, images=images_of(case), network=case.network)
    return plans.readable(command_line(resolution.plan))


def again(xml: str, name: str) -> str:
    return import_domain(read(xml.encode(), "a.xml"), "a.xml", stem=name).text


@pytest.mark.parametrize("name", CASES)
def test_the_import_of_an_export_is_the_same_machine(name: str) -> None:
    case = CASES[name]
    profile = plans.profile(case.text(), name=name)
    text = again(export_domain(profile, DATA), name)
    assert line(case, plans.profile(text, name=name)) == line(case, profile)


@pytest.mark.parametrize("name", NAMES)
def test_the_import_of_an_export_of_an_import_is_the_same_text(name: str) -> None:
    made = imported(name)
    profile = plans.profile(made.text, name=made.name)
    text = again(export_domain(profile, DATA), made.name)
    assert said(plans.profile(text, name=made.name)) == said(profile)


def said(profile: Profile) -> str:
    from qlaunch.profile.dump import dumps

    return dumps(profile)


@pytest.mark.parametrize("name", ["xp-libvirt", "linux", "usb-devices", "windows11"])
def test_an_export_reads_as_libvirt_writes_it(name: str, golden: Golden) -> None:
    profile = plans.profile(CASES[name].text(), name=name)
    golden(f"libvirt/export/{name}.xml", export_domain(profile, DATA))


@pytest.mark.qemu
@pytest.mark.parametrize("name", CASES)
def test_libvirt_takes_an_export(name: str, tmp_path: Path) -> None:
    require("qemu", find_program("virt-xml-validate"), "libvirt-clients is not installed")
    require("qemu", find_program("xmllint"), "libxml2-utils is not installed")
    file = tmp_path / "domain.xml"
    file.write_text(export_domain(plans.profile(CASES[name].text(), name=name), DATA))
    done = subprocess.run(
        ["virt-xml-validate", str(file), "domain"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_export_prints_a_profile_and_import_takes_it(own_place: Path) -> None:
    assert qlaunch("new", "xp", "--guest", "windows-xp", "--disk", "20GiB").status == 0
    target = own_place / "xp.xml"
    assert qlaunch("export", "xp", "--libvirt", "-o", target).status == 0
    assert qlaunch("export", "xp", "--libvirt").out == target.read_text()
    assert qlaunch("export", "xp", "--libvirt", "-o", target).status == 5
    assert qlaunch("export", "xp").status == 2
    assert qlaunch("import", target, "--name", "xp2", "--strict").status == 0
