"""Networks, snapshots and devices of libvirt: what each becomes, with what is said of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qlaunch.cli import importing
from qlaunch.errors import ProfileError
from qlaunch.libvirt.imported import Imported
from qlaunch.libvirt.pieces import import_any
from qlaunch.libvirt.xml import read
from qlaunch.machine.names import profile_of
from qlaunch.profile.load import loads
from qlaunch.profile.network_load import loads_network
from qlaunch.store import paths
from tests.conftest import Golden
from tests.definitions import qlaunch
from tests.test_libvirt_import import FOLDER as DOMAINS
from tests.test_libvirt_import import report_text

FOLDER = Path(__file__).parent / "domains"
NETWORKS = sorted(path.stem for path in (FOLDER / "networks").glob("*.xml"))
PIECES = sorted(path.stem for path in (FOLDER / "pieces").glob("*.xml"))


def imported(name: str) -> Imported:
    data = (FOLDER / f"{name}.xml").read_bytes()
    shown = f"{name.rpartition('/')[2]}.xml"
    return import_any(read(data, shown), shown, stem="")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_becomes_a_network_file(name: str, golden: Golden) -> None:
    made = imported(f"networks/{name}")
    loads_network(made.text, f"/n/{made.name}.toml")
    golden(f"libvirt/networks/{name}.toml", made.text)
    golden(f"libvirt/networks/{name}.txt", report_text(made))


@pytest.mark.parametrize("name", PIECES)
def test_snapshots_and_devices_become_what_is_typed_for_them(name: str, golden: Golden) -> None:
    made = imported(f"pieces/{name}")
    golden(f"libvirt/pieces/{name}.txt", made.text + "----\n" + report_text(made))


def test_a_part_goes_into_a_profile_as_it_is() -> None:
    made = imported("pieces/disk")
    profile = loads(f"schema = 1\n{made.text}", "/p/a.toml", name="a")
    assert [(disk.path, disk.bus) for disk in profile.disk] == [("/vm/images/data.qcow2", "virtio")]


def test_what_has_no_counterpart_is_told() -> None:
    with pytest.raises(ProfileError, match=re.escape("a:1: <pool> has no counterpart here")):
        import_any(read(b"<pool type='dir'/>", "a"), "a")


def test_a_network_is_written_among_the_users_networks(own_place: Path) -> None:
    done = qlaunch("import", FOLDER / "networks" / "lab.xml", "--json")
    assert done.status == 0, done.err
    target = Path(done.json["file"])
    assert target.name == "lab-net.toml"
    assert str(target.parent) in paths.network_dirs(system=False) + paths.network_dirs(system=True)
    target.unlink()


def test_all_that_libvirt_has_defined_is_imported(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_place / "qemu"
    (folder / "networks").mkdir(parents=True)
    (folder / "autostart").mkdir()
    for name in ("minimal", "windows-xp", "hostdevs"):
        (folder / f"{name}.xml").write_bytes((DOMAINS / f"{name}.xml").read_bytes())
    (folder / "broken.xml").write_text("<domain")
    (folder / "autostart" / "hostdevs.xml").symlink_to(folder / "hostdevs.xml")
    monkeypatch.setattr(importing, "FOLDERS", (str(folder), str(own_place / "none")))
    two = qlaunch("import", "--from-libvirt", "minimal", "windows-xp", "--json")
    assert two.status == 0, two.err
    assert [each["name"] for each in two.json["imports"]] == ["minimal", "windows-xp"]
    rest = qlaunch("import", "--from-libvirt")
    # Two are there already, one is no XML; the others are imported all the same.
    assert rest.status == 2
    assert Path(profile_of("hostdevs")).exists()
    assert "3 of 4 were not imported" in rest.err
    assert "qlaunch autostart hostdevs on" in rest.err
    gone = qlaunch("import", "--from-libvirt", "nobody")
    assert (gone.status, "minimal" in gone.err) == (4, True)


def test_without_libvirt_nothing_is_found(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "FOLDERS", (str(own_place / "none"),))
    assert qlaunch("import", "--from-libvirt").status == 4
