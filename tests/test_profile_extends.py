"""Profiles build on bases and on each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlaunch.errors import ProfileError
from qlaunch.profile.extends import BASE_OF_GUEST, BASES_FOLDER, base_names, base_tree
from qlaunch.profile.load import load, loads
from qlaunch.profile.model import GUESTS, Profile

BASE = """schema = 1
name = "base"
title = "Base"
uuid = "12345678-1234-1234-1234-123456789abc"
[cpu]
count = 2
model = "max"
flags = ["+nx", "-pni"]
[display]
password = { env = "PW" }
[[disk]]
id = "hda"
bus = "ide"
path = "images/hda.img"
[[disk]]
id = "hdb"
[[nic]]
id = "net0"
"""


def built(over: str, **files: str) -> Profile:
    """The profile `over`, which extends `base.toml` and may extend the other `files`."""
    texts = {"/p/lib/base.toml": BASE, **{f"/p/{name}.toml": text for name, text in files.items()}}
    return loads(
        f"schema = 1\nextends = ['lib/base.toml']\n{over}",
        "/p/xp.toml",
        read=lambda path: read_from(texts, path),
    )


def read_from(texts: dict[str, str], path: str) -> bytes:
    if path not in texts:
        raise FileNotFoundError(2, "No such file or directory")
    return texts[path].encode()


def refused(over: str, **files: str) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        built(over, **files)
    assert not caught.value.more, [str(one) for one in caught.value.more]
    return caught.value


def test_tables_are_merged_key_by_key_and_each_key_knows_its_file() -> None:
    read = built("[cpu]\ncount = 4")
    assert (read.cpu.count, read.cpu.model) == (4, "max")
    assert read.origins["cpu.count"] == "/p/xp.toml:4"
    assert read.origins["cpu.model"] == "/p/lib/base.toml:7"
    assert read.origins["cpu"] == "/p/xp.toml:3"


def test_lists_and_secrets_are_replaced_as_a_whole() -> None:
    read = built("[cpu]\nflags = []\n[display]\npassword = { file = 'pw' }")
    assert read.cpu.flags == ()
    assert read.display.password is not None
    assert (read.display.password.file, read.display.password.env) == ("/p/pw", None)


def test_items_are_merged_by_id_added_and_removed() -> None:
    read = built(
        "[[disk]]\nid = 'new'\n[[disk]]\nid = 'hda'\nbus = 'sata'\n"
        "[[nic]]\nid = 'net0'\nremove = true\n[[disk]]\nid = 'hdb'\nremove = false"
    )
    assert [(disk.id, disk.bus) for disk in read.disk] == [
        ("hda", "sata"), ("hdb", None), ("new", None),
    ]  # fmt: skip
    assert read.nic == ()
    assert read.disk[0].path == "/p/lib/images/hda.img"
    assert read.where("disk.hda.path") == "/p/lib/base.toml:14: disk.hda.path"


def test_an_empty_list_of_tables_removes_all() -> None:
    assert built("disk = []").disk == ()


def test_what_names_a_machine_is_not_inherited() -> None:
    read = built("")
    assert (read.name, read.title, read.uuid) == ("xp", None, None)


def test_a_loaded_profile_says_no_extends_for_it_has_it_all() -> None:
    assert built("").extends == ()


def test_later_ones_win_and_files_are_found_beside_the_one_that_extends() -> None:
    files = {
        "/p/lib/a.toml": "schema = 1\nextends = ['../deep/b.toml']\n[cpu]\ncount = 1",
        "/p/deep/b.toml": "schema = 1\n[cpu]\ncount = 8\nthreads = 2",
        "/p/lib/c.toml": "schema = 1\n[cpu]\ncount = 3",
    }
    text = "schema = 1\nextends = ['lib/a.toml', 'lib/c.toml']"
    read = loads(text, "/p/xp.toml", read=lambda path: read_from(files, path))
    assert (read.cpu.count, read.cpu.threads) == (3, 2)
    assert read.origins["cpu.threads"] == "/p/deep/b.toml:4"


@pytest.mark.parametrize(
    "text, message, hint",
    [
        ("[[nic]]\nid='net1'\nremove=true", "/p/xp.toml:3: nic.net1: there is nothing", "'net0'"),
        ("[[serial]]\nid='s'\nremove=true", "/p/xp.toml:3: serial.s: there is nothing", None),
        ("[[nic]]\nremove=true", "/p/xp.toml:3: nic[0]: nothing says which", "give its id"),
        ("[[nic]]\nid='net0'\nremove=1", "/p/xp.toml:5: nic.net0.remove: 1 is not", None),
        (
            "[[nic]]\nid='net0'\nremove=true\nmac='x'",
            "/p/xp.toml:3: nic.net0: is removed, so it cannot say more: 'mac'",
            None,
        ),
        (
            "[[disk]]\nid='hda'\n[[disk]]\nid='hda'",
            "/p/xp.toml:6: disk.hda.id: 'hda' is already the id of disk.hda (/p/xp.toml:3)",
            None,
        ),
        ("[[nic]]\nid='hda'", "/p/xp.toml:4: nic.hda.id: 'hda' is already the id of disk", None),
    ],
)
def test_a_merge_that_makes_no_sense_is_refused(text: str, message: str, hint: str | None) -> None:
    error = refused(text)
    assert str(error).startswith(message)
    assert hint is None or hint in (error.hint or "")


def loads_from(texts: dict[str, str], text: str, file: str = "xp.toml") -> ProfileError:
    files = {str(Path.cwd() / name): body for name, body in texts.items()}
    with pytest.raises(ProfileError) as caught:
        loads(text, file, read=lambda path: read_from(files, path))
    return caught.value


@pytest.mark.parametrize(
    "name, message, hint",
    [
        ("@windos", "xp.toml:2: extends: there is no base '@windos'", "did you mean '@windows'?"),
        ("@x", "xp.toml:2: extends: there is no base '@x'", "there are: @linux, @windows, @"),
        ("@../linux", "xp.toml:2: extends: there is no base", None),
        ("no.toml", "xp.toml:2: extends: 'no.toml' cannot be read: No such file", "looked for '/"),
        ("xp.toml", "xp.toml:2: extends: goes round in a circle: xp.toml -> xp.toml", None),
        ("./d/../xp.toml", "xp.toml:2: extends: goes round in a circle", None),
        ("a.toml", "b.toml:1: extends: goes round in a circle: a.toml -> b.toml -> a.toml", None),
        ("bad.toml", "bad.toml:1: not TOML: ", None),
        ("key.toml", "key.toml:2: cpuu: there is no such key", "did you mean 'cpu'?"),
        ("old.toml", "old.toml:1: schema: is missing", None),
        ("new.toml", "new.toml:1: schema: this qlaunch reads schema 1", "upgrade"),
        ("list.toml", "list.toml:2: extends: '@linux' is not a list", None),
    ],
)
def test_what_cannot_be_extended_is_told_where_it_is_asked_for(
    name: str, message: str, hint: str | None
) -> None:
    texts = {
        "xp.toml": "schema = 1\nextends = ['xp.toml']",
        "a.toml": "schema = 1\nextends = ['b.toml']",
        "b.toml": "extends = ['a.toml']\nschema = 1",
        "bad.toml": "nonsense",
        "key.toml": "schema = 1\ncpuu = 1",
        "old.toml": "title = 'x'",
        "new.toml": "schema = 7",
        "list.toml": "schema = 1\nextends = '@linux'",
    }
    error = loads_from(texts, f"schema = 1\nextends = ['{name}']")
    assert str(error).startswith(message)
    assert hint is None or hint in (error.hint or "")
    assert not error.more


def test_a_chain_of_more_than_ten_is_refused() -> None:
    texts = {f"{at}.toml": f"schema = 1\nextends = ['{at + 1}.toml']" for at in range(12)}
    texts["10.toml"] = "schema = 1"
    load_ok = "schema = 1\nextends = ['1.toml']"
    files = {str(Path.cwd() / name): body for name, body in texts.items()}
    assert loads(load_ok, "0.toml", read=lambda path: read_from(files, path)).name == "0"
    error = loads_from(texts | {"10.toml": "schema = 1\nextends = ['11.toml']"}, load_ok, "0.toml")
    assert str(error) == "10.toml:2: extends: is more than 10 steps deep"


def test_profiles_that_extend_each_other_a_thousandfold_are_refused() -> None:
    texts = {}
    for at in range(8):
        names = f"'{at + 1}.toml', " * 9
        texts[f"{at}.toml"] = f"schema = 1\nextends = [{names}]"
    error = loads_from(texts, texts["0.toml"], "start.toml")
    assert "brings in more than 100 profiles" in str(error) or "cannot be read" in str(error)


# ---- bases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("guest", GUESTS)
def test_a_guest_builds_on_its_base_unless_extends_is_said(guest: str) -> None:
    by_itself = loads(f"schema = 1\nguest = '{guest}'", "vm.toml")
    base = BASE_OF_GUEST.get(guest)
    bases = f"'{base}'" if base else ""
    extended = loads(f"schema = 1\nguest = '{guest}'\nextends = [{bases}]", "vm.toml")
    assert by_itself == extended
    assert by_itself.guest == guest
    bare = loads(f"schema = 1\nguest = '{guest}'\nextends = []", "vm.toml")
    assert bare == Profile(name="vm", guest=guest)
    assert (bare == by_itself) == (base is None)
    assert by_itself.from_base("machine.type") == (base is not None)


def test_a_base_gives_its_guest_to_a_profile_that_extends_it() -> None:
    assert loads("schema = 1\nextends = ['@windows-11']", "vm.toml").guest == "windows-11"


@pytest.mark.parametrize("name", base_names())
def test_a_base_is_commented_and_every_guest_in_it_is_its_own(name: str) -> None:
    text = Path(BASES_FOLDER, f"{name[1:]}.toml").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}: ")
    assert base_tree(name).value["guest"].value in GUESTS
    assert not {"name", "title", "uuid", "disk", "nic"} & base_tree(name).value.keys()


def test_the_bases_say_what_their_guests_need() -> None:
    xp, w7, w11, linux = (
        loads(f"schema = 1\nguest = '{guest}'", "vm.toml")
        for guest in ("windows-2000", "windows-7", "windows-11", "linux")
    )
    assert (xp.machine.type, xp.clock.base, xp.clock.drift) == ("pc", "localtime", "slew")
    assert (xp.sound.model, xp.usb.controller, xp.usb.redirect) == ("ac97", "ich9-ehci1", 4)
    assert [channel.type for channel in xp.channel] == ["spicevmc"]
    assert (w7.usb.controller, w7.machine.tpm) == ("ich9-ehci1", None)
    assert (w11.machine.firmware, w11.machine.secure_boot, w11.machine.tpm) == ("uefi", True, True)
    assert w11.usb.controller == "xhci"
    assert linux.machine.rng
    assert [channel.type for channel in linux.channel] == ["spicevmc", "guest-agent"]
    assert [serial.id for serial in linux.serial] == ["serial0"]


def test_real_files_extend_each_other(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(BASE, encoding="utf-8")
    (tmp_path / "xp.toml").write_text(
        "schema = 1\nextends = ['@windows-xp', 'base.toml']\n", encoding="utf-8"
    )
    read = load(tmp_path / "xp.toml")
    assert (read.guest, read.cpu.model, len(read.disk)) == ("windows-xp", "max", 2)
    assert read.disk[0].path == str(tmp_path / "images/hda.img")
