"""Domains of libvirt as profiles: what the XML of tests/domains becomes, with what is said of it.

`make golden` rewrites the profiles, reports and command lines; read the diff.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qlaunch.argv import command_line
from qlaunch.errors import ProfileError
from qlaunch.facts import ImageFacts, NetworkFacts
from qlaunch.libvirt.domain import import_domain
from qlaunch.libvirt.imported import Imported
from qlaunch.libvirt.report import GROUPS
from qlaunch.libvirt.xml import MAX_BYTES, read
from qlaunch.profile.load import loads
from qlaunch.profile.model import Profile
from tests import plans
from tests.conftest import Golden

FOLDER = Path(__file__).parent / "domains"
NAMES = sorted(path.stem for path in FOLDER.glob("*.xml"))
SERVED = NetworkFacts(netd=("*",), passt="/usr/bin/passt")


def imported(name: str) -> Imported:
    data = (FOLDER / f"{name}.xml").read_bytes()
    return import_domain(read(data, f"{name}.xml"), f"{name}.xml", stem="")


def domain(inside: str, kind: str = "kvm") -> Imported:
    text = f"<domain type='{kind}'><name>vm</name><memory>262144</memory>{inside}</domain>"
    return import_domain(read(text.encode(), "vm.xml"), "vm.xml", stem="")


def images_of(profile: Profile) -> dict[str, ImageFacts]:
    """The images that the profile names, as if they were there."""
    found: dict[str, ImageFacts] = {}
    for disk in profile.disk:
        if disk.path:
            form = plans.DISK if disk.format != "raw" else plans.RAW
            found[disk.path] = form
    found |= {drive.path: plans.RAW for drive in profile.cdrom if drive.path}
    found |= {drive.path: plans.RAW for drive in profile.floppy if drive.path}
    found |= {share.path: plans.FOLDER for share in profile.share if share.path}
    boot = profile.boot
    found |= {path: plans.RAW for path in (boot.kernel, boot.initrd) if path}
    if profile.machine.nvram:
        found[profile.machine.nvram] = plans.RAW
    return found


def report_text(made: Imported) -> str:
    return "".join(
        f"{entry.group}: {entry.line}: {entry.what}: {entry.message}\n" for entry in made.report
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_domain_becomes_a_profile_and_what_is_lost_is_told(name: str, golden: Golden) -> None:
    made = imported(name)
    golden(f"libvirt/profiles/{name}.toml", made.text)
    golden(f"libvirt/reports/{name}.txt", report_text(made))


@pytest.mark.parametrize("name", NAMES)
def test_the_machine_of_a_domain_has_the_golden_command_line(name: str, golden: Golden) -> None:
    made = imported(name)
    profile = loads(made.text, f"/p/{made.name}.toml", name=made.name)
    resolution = plans.plan_of(profile, images=images_of(profile), network=SERVED)
    own = [finding for finding in resolution.errors if finding.cause == "profile"]
    assert own == [], plans.findings(resolution)
    found = [f"# {line}" for line in plans.findings(resolution).splitlines()]
    text = "\n".join([*found, plans.readable(command_line(resolution.plan))])
    golden(f"libvirt/argv/{name}.txt", text)


def test_there_are_as_many_domains_as_were_promised() -> None:
    assert len(NAMES) >= 40


def test_every_group_of_the_report_is_used() -> None:
    assert {entry.group for name in NAMES for entry in imported(name).report} == set(GROUPS)


# ---- XML as people have it ----------------------------------------------------------------------


def test_arguments_count_without_a_declared_namespace() -> None:
    made = domain(
        "<qemu:commandline><qemu:arg value='-cpu'/><qemu:arg value='kvm64'/></qemu:commandline>"
    )
    assert 'model = "kvm64"' in made.text
    assert [entry.line for entry in made.report if entry.what == "qemu:commandline"] == [1]


@pytest.mark.parametrize("quotes", ["\u2018\u2019", "\u201c\u201d", "\u201e\u201c", "\u00ab\u00bb"])
def test_typographic_quotes_are_quotes(quotes: str) -> None:
    left, right = quotes[0], quotes[1]
    text = (
        f"<domain type={left}qemu{right}><name>don\u2019t</name>\n<memory>262144</memory></domain>"
    )
    made = import_domain(read(text.encode(), "a.xml"), "a.xml", stem="")
    assert 'accel = "tcg"' in made.text
    assert 'title = "don\u2019t"' in made.text


def test_an_apostrophe_in_straight_quotes_stays() -> None:
    disk = "<disk><source file=\"/a/it\u2019s mine.img\"/><target dev='hda'/></disk>"
    assert '"/a/it\u2019s mine.img"' in domain(f"<devices>{disk}</devices>").text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "iso-8859-1", "cp1252"])
def test_any_encoding_is_read(encoding: str) -> None:
    text = f"<?xml version='1.0' encoding='{encoding}'?><domain><name>b\u00fcro</name></domain>"
    made = import_domain(read(text.encode(encoding), "a.xml"), "a.xml", stem="")
    assert 'title = "b\u00fcro"' in made.text


def test_an_encoding_that_the_file_does_not_have_is_told() -> None:
    text = "<?xml version='1.0' encoding='UTF-16'?>\n<domain><name>b\u00fcro</name></domain>"
    made = import_domain(read(text.encode(), "a.xml"), "a.xml", stem="")
    assert 'title = "b\u00fcro"' in made.text
    assert made.report[0].group == "mended"


def test_blank_lines_before_the_declaration_keep_the_lines_right() -> None:
    text = b"\n\n<?xml version='1.0'?>\n<domain>\n<frob/>\n</domain>"
    made = import_domain(read(text, "a.xml"), "a.xml", stem="")
    assert [entry.line for entry in made.report if entry.what == "frob"] == [5]


@pytest.mark.parametrize(
    "data, words",
    [
        (b"<!DOCTYPE domain><domain/>", "a.xml:1: a document type or an entity is refused"),
        (b"<!DOCTYPE d [<!ENTITY a SYSTEM '/etc/passwd'>]><d>&a;</d>", "is refused"),
        (b"<domain>&a;</domain>", "a.xml:1: not XML: undefined entity"),
        (b"<a>" * 101, "a.xml:1: nested too deeply"),
        (b"<a>" + b"<b/>" * 100_001, "a.xml:1: too many elements"),
        (b" " * (MAX_BYTES + 1), "a.xml: is larger than 4 MiB"),
        (b"", "a.xml:1: not XML: no element found"),
        (b"<domain>\n<a></domain>", "a.xml:2: not XML: mismatched tag"),
        (b"<domain type='xen'/>", "a.xml:1: a domain of the type 'xen' is no machine of QEMU"),
        (b"<domain><os><type arch='s390x'>hvm</type></os></domain>", "'s390x' is no PC"),
        (b"<domain><os><type>linux</type></os></domain>", "is no full machine"),
        (b"<pool/>", "a.xml:1: <pool> is no domain"),
    ],
)
def test_what_cannot_be_meant_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(words)):
        import_domain(read(data, "a.xml"), "a.xml")


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory, size",
    [
        ("<memory>262144</memory>", "256MiB"),
        ("<memory unit='b'>1073741824</memory>", "1GiB"),
        ("<memory unit='KB'>1048576</memory>", "1GiB"),
        ("<memory unit='M'>100</memory>", "100MiB"),
        ("<memory unit='GiB'>3</memory>", "3GiB"),
        ("<memory unit='TiB'>1</memory>", "1TiB"),
    ],
)
def test_memory_has_every_unit(memory: str, size: str) -> None:
    text = f"<domain><name>vm</name>{memory}<os><type machine='q35'>hvm</type></os></domain>"
    made = import_domain(read(text.encode(), "a.xml"), "a.xml", stem="")
    found = loads(made.text, "/p/vm.toml", name="vm").memory.size
    again = loads(f'schema = 1\n[memory]\nsize = "{size}"\n', "/p/vm.toml", name="vm").memory.size
    # Megabytes of 1000 are rounded up to whole MiB, as libvirt does.
    assert found is None or again is None or found - again < 1 << 30


def test_a_value_that_no_profile_can_hold_is_told_and_left_out() -> None:
    made = domain("<devices><disk><serial>a b/c</serial><target dev='hda'/></disk></devices>")
    assert "serial" not in loads(made.text, "/p/vm.toml", name="vm").origins
    assert [entry.group for entry in made.report if entry.what == "serial"] == ["not supported"]


@pytest.mark.parametrize(
    "name, guest",
    [
        ("winxp", "windows-xp"),
        ("WinXP-SP3", "windows-xp"),
        ("win10", "windows-10"),
        ("win11-work", "windows-11"),
        ("debian12", "linux"),
        ("freebsd-14", "bsd"),
        ("export", "other"),
        ("boxpilot", "other"),
    ],
)
def test_the_guest_is_guessed_by_a_name(name: str, guest: str) -> None:
    text = f"<domain><name>{name}</name></domain>"
    made = import_domain(read(text.encode(), "a.xml"), "a.xml", stem="")
    assert f'guest = "{guest}"' in made.text


def test_each_id_is_there_once() -> None:
    disks = "<disk><target dev='hda'/></disk>" * 3
    made = domain(f"<devices>{disks}</devices>")
    assert [disk.id for disk in loads(made.text, "/p/a.toml", name="a").disk] == [
        "hda",
        "hda0",
        "hda1",
    ]
