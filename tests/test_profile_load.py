"""A profile that is wrong is refused with file, line, key and what to do; a good one is read."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import pytest

from qlaunch.errors import NotFoundError, ProfileError
from qlaunch.profile.load import load, loads
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Secret

PLACE = re.compile(r"^([^:]+(:\d+)?|--set)(: \S.*)?$")


def mistakes(text: str | bytes, *overrides: str, file: str = "xp.toml") -> list[ProfileError]:
    """Every mistake of a profile with the body `text`."""
    with pytest.raises(ProfileError) as caught:
        loads(text, file, overrides=overrides)
    found = [caught.value, *caught.value.more]
    for one in found:
        assert PLACE.match(one.where), one.where
    return found


def mistake(text: str | bytes, *overrides: str) -> ProfileError:
    found = mistakes(text, *overrides)
    assert len(found) == 1, [str(one) for one in found]
    return found[0]


def profile(text: str, *overrides: str, file: str = "/p/xp.toml") -> Profile:
    return loads(f"schema = 1\n{text}", file, overrides=overrides)


# ---- the text -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, message, hint",
    [
        (b"schema = 1\ntitle = \"\xff\"", "xp.toml:2: byte 0xff is not UTF-8", "UTF-8"),
        ('schema = 1'.encode("utf-16"), "xp.toml:1: byte 0xff is not UTF-8", "UTF-16"),
        (b"schema = 1\nguest linux\n", "xp.toml:2: not TOML: expected '='", None),
        (b"schema = 1\n[cpu\n", "xp.toml:2: not TOML: ", None),
        (b"schema = 1\nguest = linux", "xp.toml:2: not TOML: ", 'guest = "linux"'),
        (b"schema = 1\n[memory]\nsize = 2GiB", "xp.toml:3: not TOML: ", 'size = "2GiB"'),
        (b"schema = 1\n[machine]\nacpi = yes", "xp.toml:3: not TOML: ", "acpi = true"),
        (b'schema = 1\ntitle = "C:\\Users"', "xp.toml:2: not TOML: ", "single quotes"),
        ("schema = 1\ntitle = “XP”".encode(), "xp.toml:2: not TOML: ", "typographic"),
        (b"schema = 1\nschema = 1", "xp.toml:2: not TOML: ", None),
        (b"schema = 1\na = " + b"[" * 100_000, "xp.toml: lists or tables are nested", None),
        (b"schema = 1\na = '''\n\n", "xp.toml:2: not TOML: ", None),
        (b"schema = 1\n\x00", "xp.toml:2: not TOML: ", None),
        (b"schema = 1\na = " + b"1" * 5000, "xp.toml:", None),
        (b"# \x1b[31m", "xp.toml:1: not TOML: ", None),
    ],
)  # fmt: skip
def test_what_is_not_toml_is_refused_with_its_line(
    data: bytes, message: str, hint: str | None
) -> None:
    error = mistakes(data)[0]
    assert str(error).startswith(message)
    assert hint is None or hint in (error.hint or "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", str(error))


def test_a_toml_error_shows_the_line_and_marks_the_place() -> None:
    assert str(mistake("schema = 1\nmemory 512")).endswith("\n    memory 512\n           ^")


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    read = loads(b"\xef\xbb\xbfschema = 1\r\n[cpu]\r\ncount = 2\r\n", "xp.toml")
    assert read.cpu.count == 2
    assert read.origins["cpu.count"] == "xp.toml:3"


def test_a_file_of_ten_megabytes_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    file = tmp_path / "disk.toml"
    with file.open("wb") as big:
        big.truncate(10 << 40)
    before = time.process_time()
    with pytest.raises(ProfileError, match=r"disk\.toml: is larger than 1024 KiB"):
        load(file)
    assert time.process_time() - before < 1


@pytest.mark.parametrize(
    "row",
    [
        "k{} = 1\n",
        "[t{}]\n",
        "[[disk]]\n",
        "[cpu.x{}]\n",
        "a{}.b.c.d.e.f.g.h.i.j.k = 1\n",
        "# {}\n",
    ],
)
def test_a_long_file_does_not_take_long(row: str) -> None:
    text = "schema = 1\n" + "".join(row.format(at) for at in range(300_000 // len(row)))
    before = time.process_time()
    with contextlib.suppress(ProfileError):
        loads(text, "xp.toml")
    assert time.process_time() - before < 5


def test_a_missing_file_is_not_found_and_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no profile"):
        load(tmp_path / "none.toml")
    with pytest.raises(ProfileError, match="cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(ProfileError, match="cannot be read"):
        load("a\0b")


# ---- the mistakes -------------------------------------------------------------------------------

TABLE: list[tuple[str, str, str | None]] = [
    # unknown
    ("gues = 'linux'", "2: gues: there is no such key", "did you mean 'guest'?"),
    ("[memroy]", "2: memroy: there is no such table", "did you mean 'memory'?"),
    ("[[dsik]]", "2: dsik: there is no such table", "did you mean 'disk'?"),
    ("[cpu]\nCount = 1", "3: cpu.Count: there is no such key", "did you mean 'count'?"),
    ("[cpu]\nxyz = 1", "3: cpu.xyz: there is no such key", "there are: model, flags, count,"),
    ("[cpu]\ntitle = 'x'", "3: cpu.title: there is no such key", "at the top of the file"),
    ("[machine]\nballoon = true", "3: machine.balloon: there", "'balloon' is a key of [memory]"),
    ('"a\\u001b" = 1', r"2: 'a\x1b': there is no such key", "there are: schema, name"),
    ("[[disk]]\nid = 'hda'\nbuss = 1", "4: disk.hda.buss: there is", "did you mean 'bus'?"),
    ("[machine.extra]\na = 1", "2: machine.extra: there is no such key", None),
    # shapes
    ("cpu = 2", "2: cpu: is no table", "write [cpu]"),
    ("[[cpu]]", "2: cpu: [[...]] makes a list of it", "write [cpu]"),
    ("[disk]", "2: disk: is a list of tables", "write [[disk]] with two brackets"),
    ("[disk.hda]", "2: disk: is a list of tables", "write [[disk]] with two brackets"),
    ("disk = 'a.img'", "2: disk: 'a.img' is no list of tables", "write [[disk]]"),
    ("disk = [1]", "2: disk: a list is no list of tables", "write [[disk]]"),
    # types
    ("title = 5", "2: title: 5 is not text in quotes", 'write title = "Windows XP"'),
    ("title = 1979-05-27", "2: title: the date or time 1979-05-27 is not text", None),
    ("title = ''", "2: title: is empty", 'or write title = "Windows XP"'),
    ("title = {}", "2: title: a table is not text in quotes", None),
    ("extends = '@linux'", "2: extends: '@linux' is not a list", 'extends = ["@linux"]'),
    ("extends = [1]", "2: extends[0]: 1 is not text", None),
    ("[cpu]\ncount = '4'", "3: cpu.count: '4' is text", "write count = 4"),
    ("[cpu]\ncount = 'four'", "3: cpu.count: 'four' is not a whole number", "write count = 1"),
    ("[cpu]\ncount = 2.0", "3: cpu.count: 2.0 is not a whole number", None),
    ("[cpu]\ncount = true", "3: cpu.count: true is not a whole number", None),
    ("[cpu]\nflags = '+nx'", "3: cpu.flags: '+nx' is not a list", 'flags = ["+ssse3", "-pni"]'),
    ("[cpu]\nflags = [\n'+nx',\n'nx']", "5: cpu.flags[1]: 'nx' is not a feature with", None),
    ("[machine]\nacpi = 'yes'", "3: machine.acpi: 'yes' is not true or false", "write acpi = true"),
    ("[machine]\nacpi = 0", "3: machine.acpi: 0 is not true or false", "write acpi = false"),
    ("[machine]\nacpi = 2", "3: machine.acpi: 2 is not true or false", "write acpi = true"),
    # sizes and durations
    ("[memory]\nsize = 512", "3: memory.size: 512 has no unit", 'size = "512MiB" or "512GiB"'),
    ("[memory]\nsize = '512'", "3: memory.size: '512' has no unit", None),
    ("[memory]\nsize = '5 Gib'", "3: memory.size: 'Gib' is not a unit of size; use B, KiB", None),
    ("[memory]\nsize = 'big'", "3: memory.size: 'big' is not a size", 'write size = "2GiB"'),
    ("[memory]\nsize = '1KiB'", "3: memory.size: '1KiB' is too little; at least 1MiB", None),
    ("[memory]\nsize = true", "3: memory.size: true is not a size in quotes", None),
    ("[memory]\nsize = '%s.5GiB'" % ("9" * 400), "3: memory.size: ", None),
    ("[video]\nvram = '8GiB'", "3: video.vram: '8GiB' is too much; at most 4GiB", None),
    ("[lifecycle]\nstop_timeout = 90", "3: lifecycle.stop_timeout: 90 has no unit", '"90s"'),
    ("[lifecycle]\nstop_timeout = '2d'", "3: lifecycle.stop_timeout: '2d' is too much", None),
    ("[lifecycle]\nstop_timeout = '1y'", "3: lifecycle.stop_timeout: 'y' is not a unit", None),
    # numbers, choices, patterns
    ("[cpu]\ncount = 0", "3: cpu.count: 0 is too little; at least 1", None),
    ("[cpu]\ncount = 0x%s" % ("f" * 90), "3: cpu.count: a number of more than 64 bits is", None),
    ("[cpu]\ncount = 0x%s" % ("f" * 9000), "3: cpu.count: a number of more than 64 bits is", None),
    ("[usb]\nredirect_ports = [1, 99]", "3: usb.redirect_ports[1]: 99 is too much", None),
    ("guest = 'windows-xpp'", "2: guest: 'windows-xpp' is not one of windows-xp,", "'windows-xp'"),
    ("guest = 'WINDOWS XP'", "2: guest: 'WINDOWS XP' is not one of", "did you mean 'windows-xp'?"),
    ("uuid = '123'", "2: uuid: '123' is not a UUID, such as", None),
    ("name = 'a b'", "2: name: 'a b' is not a letter or digit, then", None),
    ("[[nic]]\nid='n'\nmac='01:00:00:00:00:00'", "4: nic.n.mac: '01:00:00:00:00:00' is", None),
    ("[[nic]]\nid='n'\nforward=['99999:22']", "4: nic.n.forward[0]: '99999:22' is not a fo", None),
    # control characters
    ('title = "a\\u0000b"', r"2: title: 'a\x00b' has a NUL in it", None),
    ('title = "a\\nb"', r"2: title: 'a\nb' has a newline in it", None),
    ('title = "a\\tb"', r"2: title: 'a\tb' has a tab in it", None),
    ('title = "a\\u009bb"', r"2: title: 'a\x9bb' has the control character U+009B", None),
    ('title = "%s"' % ("x" * 3000), "2: title: is 3000 characters long; 2000 are allowed", None),
    ('[[disk]]\nid = "d"\npath = "a\\nb"', r"4: disk.d.path: 'a\nb' has a newline in it", None),
    ('[[disk]]\nid = "d"\npath = "~nobody7/x"', "4: disk.d.path: '~nobody7' is nobody's", "./~n"),
    ('[qemu]\nargs = ["-S", "a\\u0000"]', r"3: qemu.args[1]: 'a\x00' has a NUL", None),
    ('extends = ["a\\u0000"]', r"2: extends[0]: 'a\x00' has a NUL", None),
    # ids
    ("[[disk]]", "2: disk[0]: has no id", 'write id = "disk0"'),
    ("[[disk]]\nid = 5", "3: disk[0].id: 5 is not text", None),
    ("[[disk]]\nid = 'HDA'", "3: disk[0].id: 'HDA' is not an id", 'write id = "hda"'),
    ("[[disk]]\nid = '0'", "3: disk[0].id: '0' is not an id", None),
    ("[[disk]]\nid = '%s'" % ("a" * 21), "3: disk[0].id: 'aaaaaaaaaaaaaaaaaaaaa' is not", None),
    ("[[disk]]\nid = 'a-file'", "3: disk.a-file.id: 'a-file' ends in '-file'", None),
    ("[[disk]]\nid='a'\n[[disk]]\nid='a'", "5: disk.a.id: 'a' is already the id of disk.a (", None),
    ("[[disk]]\nid='a'\n[[nic]]\nid='a'", "5: nic.a.id: 'a' is already the id of disk.a", None),
    ("[[share]]\nid = 's'", "2: share.s.path: is missing", 'write path = "~/shared"'),
    # secrets
    ("[display]\npassword = 'hunter2'", "3: display.password: a secret is never", "{ env ="),
    ("[display]\npassword = {}", "3: display.password: exactly one of file, env", "systemd-cred"),
    ("[display]\npassword = {env = 'A', file = 'b'}", "3: display.password: exactly one", None),
    ("[display]\npassword = {env = 'A=B'}", "3: display.password.env: 'A=B' is not the name", None),
]  # fmt: skip


@pytest.mark.parametrize("text, message, hint", TABLE, ids=[row[1][:40] for row in TABLE])
def test_a_mistake_is_told_with_file_line_and_key(
    text: str, message: str, hint: str | None
) -> None:
    error = mistake(f"schema = 1\n{text}")
    assert str(error).startswith(f"xp.toml:{message}")
    assert hint is None or hint in (error.hint or "")
    assert "hunter2" not in str(error.to_dict())


@pytest.mark.parametrize(
    "text, message, hint",
    [
        ("", "xp.toml:1: schema: is missing", "write schema = 1 at the top"),
        ("schema = 2", "xp.toml:1: schema: this qlaunch reads schema 1, the file", "upgrade"),
        ("schema = 0", "xp.toml:1: schema: 0 is too little; at least 1", None),
        ("schema = '1'", "xp.toml:1: schema: '1' is text", "write schema = 1"),
    ],
)
def test_the_schema_must_be_said_and_known(text: str, message: str, hint: str | None) -> None:
    error = mistake(text)
    assert str(error).startswith(message)
    assert hint is None or hint in (error.hint or "")


def test_a_newer_schema_is_the_only_complaint() -> None:
    assert len(mistakes("schema = 9\nnew = 1\n[newer]\nkey = 1")) == 1


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    found = mistakes("[cpu]\ncount = 0\nmodell = 'x'\n[[disk]]\nbus = 'virtoi'\n[memory]\nsize = 1")
    assert [one.where for one in found] == [
        "xp.toml:1: schema",
        "xp.toml:2: cpu.count",
        "xp.toml:3: cpu.modell",
        "xp.toml:4: disk[0]",
        "xp.toml:5: disk[0].bus",
        "xp.toml:7: memory.size",
    ]


def test_more_than_a_hundred_mistakes_are_not_told() -> None:
    text = "schema = 1\n" + "".join(f"key{at} = 1\n" for at in range(20_000))
    assert len(mistakes(text)) == 100


# ---- what is read -------------------------------------------------------------------------------


def test_paths_start_at_the_file_that_says_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    texts = {
        "a.qcow2": "/p/a.qcow2",
        "./x/../a,b=c.img": "/p/./x/../a,b=c.img",
        "-S": "/p/-S",
        "~/a": "/home/u/a",
        "/abs//a": "/abs/a",
        "@demo": "@demo",
        "./@demo": "/p/@demo",
    }
    for text, path in texts.items():
        assert profile(f'[[disk]]\nid = "a"\npath = "{text}"').disk[0].path == path
    monkeypatch.chdir("/usr")
    read = loads('schema = 1\n[boot]\nkernel = "k"', "lib/xp.toml")
    assert (read.boot.kernel, read.file) == ("/usr/lib/k", "lib/xp.toml")


def test_values_become_bytes_seconds_and_tuples() -> None:
    read = profile(
        "[memory]\nsize = '1.5GiB'\n[lifecycle]\nstop_timeout = '3min'\n[cpu]\nflags = ['+nx']\n"
        "[usb]\nredirect_ports = [4, 5]\n[display]\npassword = { systemd-credential = 'pw' }"
    )
    assert (read.memory.size, read.lifecycle.stop_timeout) == (3 << 29, 180.0)
    assert (read.cpu.flags, read.usb.redirect_ports) == (("+nx",), (4, 5))
    assert read.display.password == Secret(systemd_credential="pw")


def test_the_name_comes_from_the_caller_the_profile_or_the_file() -> None:
    assert profile("").name == "xp"
    assert profile("name = 'old'").name == "old"
    assert profile("name = 'old'", "name=new").name == "new"
    assert loads("schema = 1\nname = 'old'", "a b.toml", name="given").name == "given"
    error = mistake_in_name("my machine.toml")
    assert "'my machine' is not a letter or digit" in str(error)
    assert "rename the file" in (error.hint or "")


def mistake_in_name(file: str) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        loads("schema = 1", file)
    return caught.value


def test_where_tells_the_line_of_a_key_or_of_the_table_above_it() -> None:
    read = profile("[[disk]]\nid = 'hda'\nbus = 'ide'\n[[nic]]\nid = 'n'\nforward = ['1:1']")
    assert read.where("disk.hda.bus") == "/p/xp.toml:4: disk.hda.bus"
    assert read.where("disk.hda.size") == "/p/xp.toml:2: disk.hda.size"
    assert read.where("nic.n.forward[0]") == "/p/xp.toml:7: nic.n.forward[0]"
    assert read.where("cpu.count") == "/p/xp.toml: cpu.count"
    assert Profile().where("cpu.count") == "profile: cpu.count"


def test_a_profile_may_come_from_elsewhere_than_a_file() -> None:
    files = {
        "/x/a.toml": b"schema = 1\nextends = ['b.toml']",
        "/x/b.toml": b"schema = 1\ntitle='t'",
    }
    files["/x/b.toml"] += b"\n[cpu]\ncount = 3"
    assert load("/x/a.toml", read=files.__getitem__).cpu.count == 3


def test_a_text_from_a_locale_that_is_not_utf_8_is_refused() -> None:
    name = os.fsdecode(b"a\xff")
    assert "UTF-8" in str(mistake(f"schema = 1\ntitle = '{name}'"))
    assert "U+DCFF" in str(mistake("schema = 1", f"title={name}"))
