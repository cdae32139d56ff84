"""`--set KEY=VALUE` says a key for one start."""

from __future__ import annotations

import pytest

from qlaunch.errors import ProfileError
from qlaunch.profile.fields import Entry, entries_of
from qlaunch.profile.load import loads
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Secret
from qlaunch.profile.values import toml_example

TEXT = """schema = 1
guest = "windows-xp"
[[disk]]
id = "hda"
bus = "ide"
[[nic]]
id = "net0"
"""


def read(*overrides: str, text: str = TEXT) -> Profile:
    return loads(text, "/p/xp.toml", overrides=overrides)


def refused(*overrides: str, text: str = TEXT) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        read(*overrides, text=text)
    assert not caught.value.more, [str(one) for one in caught.value.more]
    return caught.value


def said(profile: Profile, key: str) -> object:
    value: object = profile
    for part in key.split("."):
        if isinstance(value, tuple):
            value = next(item for item in value if item.id == part)
        else:
            value = getattr(value, part.replace("-", "_"))
    return value


@pytest.mark.parametrize(
    "override, value",
    [
        ("memory.size=2GiB", 2 << 30),
        ("memory.size='2GiB'", 2 << 30),
        ("cpu.count=4", 4),
        ("display.vnc=true", True),
        ("disk.hda.bus=virtio", "virtio"),
        ("disk.hda.bus=", None),
        (' disk.hda.bus ="virtio"', "virtio"),
        ("disk.hda.serial=2024", "2024"),
        ("title=2024", "2024"),
        ("title=a = b # c", "a = b # c"),
        ('title="quoted"', "quoted"),
        ("title=1979-05-27", "1979-05-27"),
        ("title=true", "true"),
        ("name=other", "other"),
        ("guest=linux", "linux"),
        ("boot.once=cdrom", "cdrom"),
        ('boot.order=["disk", "cdrom"]', ("disk", "cdrom")),
        ("boot.order=disk", ("disk",)),
        ('nic.net0.forward=["2222:22"]', ("2222:22",)),
        ("nic.net0.forward=2222:22", ("2222:22",)),
        ("cpu.flags=[]", ()),
        ("qemu.args=-S", ("-S",)),
        ("usb.redirect_ports=[4, 5]", (4, 5)),
        ("input.tablet0.model=usb-mouse", "usb-mouse"),
        ("display.password.env=PW", Secret(env="PW")),
        ("display.password={ systemd-credential = 'pw' }", Secret(systemd_credential="pw")),
    ],
)
def test_a_value_is_read_as_toml_or_else_as_text(override: str, value: object) -> None:
    if value is None:
        assert "is not one of" in str(refused(override))
        return
    key = override.partition("=")[0].strip()
    profile = read(override)
    parent = key.removesuffix(".env")
    assert said(profile, parent) == value
    assert profile.origins.get(parent, "--set") == "--set"


def test_several_overrides_of_one_item_add_up_and_the_last_of_one_key_wins() -> None:
    profile = read("disk.hda.bus=sata", "disk.hda.size=1GiB", "disk.hda.bus=virtio")
    assert [(d.id, d.bus, d.size) for d in profile.disk] == [("hda", "virtio", 1 << 30)]
    assert profile.origins["disk.hda"] == "/p/xp.toml:3"
    assert profile.origins["disk.hda.bus"] == "--set"


def test_an_item_can_be_removed_for_one_start() -> None:
    assert read("nic.net0.remove=true").nic == ()
    assert read("channel.vdagent0.remove=true", "nic.net0.remove=false").channel == ()


def test_guest_and_extends_choose_other_bases() -> None:
    assert read("guest=linux").machine.type == "q35"
    assert read("extends=@linux").serial[0].id == "serial0"
    assert read("extends=[]").machine.type is None


def test_a_relative_path_starts_where_the_command_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/usr")
    assert read("disk.hda.path=a,b=c.img").disk[0].path == "/usr/a,b=c.img"


@pytest.mark.parametrize(
    "override, message, hint",
    [
        ("memory", "--set: 'memory' is not KEY=VALUE", "memory.size=2GiB"),
        ("=5", "--set: '=5' is not KEY=VALUE", None),
        ("memroy.size=1GiB", "--set: memroy.size: there is no such key", "'memory'"),
        ("memory.sise=1GiB", "--set: memory.sise: there is no such key", "'size'"),
        ("memory=1GiB", "--set: memory: is a table", "memory.KEY=VALUE"),
        ("disk.hda=1", "--set: disk.hda: is a table", "disk.ID.KEY=VALUE"),
        ("disk=1", "--set: disk: is a table", "disk.ID.KEY=VALUE"),
        ("title.x=1", "--set: title.x: there is no such key", "'title' has no keys below it"),
        ("cpu.count.x=1", "--set: cpu.count.x: there is no such key", "'count' has no keys"),
        ("disk.hdx.bus=ide", "--set: disk.hdx.bus: there is no disk with the id 'hdx'", "'hda'"),
        ("disk.main.bus=ide", "--set: disk.main.bus: there is no disk", "there are: hda"),
        ("share.s.tag=x", "--set: share.s.tag: there is no share", "there is none in this"),
        ("disk.hda.id=x", "--set: disk.hda.id: an id cannot be changed", None),
        ("disk.hda.bus=virtoi", "--set: disk.hda.bus: 'virtoi' is not one of", "'virtio'"),
        ("cpu.count=two", "--set: cpu.count: 'two' is not a whole number", "write count = 1"),
        ("memory.size=2", "--set: memory.size: '2' has no unit", None),
        ("display.password=hunter2", "--set: display.password: a secret is never", "{ env ="),
        ("display.password.word=x", "--set: display.password", None),
        ("title=a\nb", r"--set: title: 'a\nb' has a newline", None),
        ("cpu.count=1\nx=2", r"--set: cpu.count: '1\nx=2' is not a whole number", None),
        ("a\x1bb=1", r"--set: 'a\x1bb': there is no such key", None),
        ("boot.order=[1]", "--set: boot.order[0]: 1 is not text", None),
        ("schema=2", "--set: schema: this qlaunch reads schema 1", "upgrade"),
    ],
)
def test_a_wrong_override_is_told_as_one(override: str, message: str, hint: str | None) -> None:
    with pytest.raises(ProfileError) as caught:
        read(override)
    assert str(caught.value).startswith(message)
    assert hint is None or hint in (caught.value.hint or "")


def keys() -> list[tuple[str, Entry]]:
    """Every key of the model but ids, spelled as after --set."""
    found = []
    for name, entry in entries_of(Profile).items():
        if entry.item is None:
            found.append((name, entry))
            continue
        prefix = f"{name}.item0" if entry.key.kind == "tables" else name
        for key, below in entries_of(entry.item).items():
            if below.key.kind != "id":
                found.append((f"{prefix}.{key}", below))
    return found


@pytest.mark.parametrize("name, entry", keys(), ids=[name for name, _ in keys()])
def test_the_example_of_every_key_can_be_set(name: str, entry: Entry) -> None:
    text = "schema = 1\nextends = []\n"
    if ".item0." in name:
        table = name.partition(".")[0]
        needed = {"share": "path = '/x'\n", "hostdev": "device = '1-2'\n"}
        text += f"[[{table}]]\nid = 'item0'\n" + needed.get(table, "")
    example = toml_example(entry.key)
    quoted = read(f"{name}={example}", text=text)
    assert name == "extends" or said(quoted, name) not in (None, ())
    plain = example.removeprefix('"').removesuffix('"') if example.startswith('"') else example
    assert read(f"{name}={plain}", text=text) == quoted
