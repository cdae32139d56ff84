"""Whatever a profile may say, one value stays one value on QEMU's command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaunch.argv import Handles, build, command_line, keyval, to_json
from qlaunch.plan import Plan, Resolution, resolve
from qlaunch.plan.model import Leases, Places
from qlaunch.profile.model import Profile
from tests import plans

JSON_OPTIONS = ("-blockdev", "-device", "-netdev", "-object", "-audiodev")
PLAIN_OPTIONS = ("-kernel", "-initrd", "-append", "-uuid", "-display", "-msg", "-fsdev")
TIMEOUT = 20.0

# What loads() lets through: no control characters, no separators of lines, no halves of characters.
accepted = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12
)
nasty = st.sampled_from(
    [",", ",,", "=", "a,b=c", "-device", "--", '"', "'", "{}", '{"a":1}', "\\", "%s", "$(x)", "é,ü"]
)
strings = st.lists(st.one_of(accepted, nasty), min_size=10, max_size=10)


def split_keyval(text: str) -> list[tuple[str, str]]:
    """QEMU's own rule (util/keyval.c, util/qemu-option.c): a doubled comma is one in a value."""
    words, at = [""], 0
    while at < len(text):
        if text.startswith(",,", at):
            words[-1] += ","
            at += 2
        elif text[at] == ",":
            words.append("")
            at += 1
        else:
            words[-1] += text[at]
            at += 1
    pairs = [word.partition("=") for word in words]
    return [(name, value) if equals else ("", name) for name, equals, value in pairs]


TEMPLATE = plans.profile(
    'title = "t"\nguest = "linux"\n[boot]\nkernel = "/k"\ninitrd = "/i"\nappend = "x"\n'
    '[[disk]]\nid = "a"\npath = "/a"\nformat = "raw"\n[[disk]]\nid = "b"\npath = "/b"\n'
    '[[cdrom]]\nid = "cd0"\npath = "/c"\n[[floppy]]\nid = "fd0"\npath = "/f"\n'
    '[[share]]\nid = "s"\npath = "/s"\n'
)


def hostile(words: list[str]) -> Profile:
    """A profile with `words` wherever one may write what one likes."""
    title, kernel, initrd, append, a, b, cd, floppy, share, arg = words
    first, second = TEMPLATE.disk
    return evolve(
        TEMPLATE,
        title=title,
        boot=evolve(TEMPLATE.boot, kernel=f"/k{kernel}", initrd=f"/i{initrd}", append=append),
        disk=(evolve(first, path=f"/a{a}"), evolve(second, path=f"/b{b}")),
        cdrom=(evolve(TEMPLATE.cdrom[0], path=f"/c{cd}"),),
        floppy=(evolve(TEMPLATE.floppy[0], path=f"/f{floppy}"),),
        share=(evolve(TEMPLATE.share[0], path=f"/s{share}"),),
        qemu=evolve(TEMPLATE.qemu, args=(arg,)),
    )


def resolved(profile: Profile) -> Resolution:
    disk = {profile.disk[1].path or "": plans.DISK, profile.share[0].path or "": plans.FOLDER}
    files = [profile.disk[0].path, profile.cdrom[0].path, profile.floppy[0].path]
    files += [profile.boot.kernel, profile.boot.initrd]
    images = {path: plans.RAW for path in files if path} | disk
    return plans.plan_of(profile, images=images)


def values(plan: Plan, option: str) -> list[str]:
    # The user's own arguments come alone, whatever they are called.
    return [words[1] for words in command_line(plan) if words[0] == option and len(words) > 1]


def file_names(plan: Plan) -> dict[str, Any]:
    nodes = [json.loads(value) for value in values(plan, "-blockdev")]
    return {node["node-name"]: node["filename"] for node in nodes if "filename" in node}


@settings(max_examples=300)
@given(strings)
def test_a_string_of_the_profile_stays_one_value(words: list[str]) -> None:
    profile = hostile(words)
    resolution = resolved(profile)
    assert resolution.errors == (), plans.findings(resolution)
    plan = resolution.plan
    assert values(plan, "-kernel") == [profile.boot.kernel]
    assert values(plan, "-initrd") == [profile.boot.initrd]
    assert values(plan, "-append") == [profile.boot.append]
    names = file_names(plan)
    assert names["a-file"] == profile.disk[0].path
    assert names["b-file"] == profile.disk[1].path
    assert names["cd0-file"] == profile.cdrom[0].path
    assert names["fd0-file"] == profile.floppy[0].path
    (share,) = values(plan, "-fsdev")
    assert split_keyval(share) == [
        ("", "local"),
        ("id", "s"),
        ("path", profile.share[0].path),
        ("security_model", "none"),
    ]
    flat = [word for option in command_line(plan) for word in option]
    assert flat[-1] == profile.qemu.args[0]
    check_same_shape(plan)


NAMES = [words[0] for words in command_line(resolved(hostile(["x"] * 10)).plan)][:-1]


def check_same_shape(plan: Plan) -> None:
    """The options are those of a tame profile, and no value began another."""
    options = command_line(plan)[:-1]
    assert [words[0] for words in options] == NAMES
    assert all(len(words) <= 2 for words in options)
    for name, *rest in options[1:]:
        if name in JSON_OPTIONS:
            assert to_json(json.loads(rest[0])) == rest[0]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["path", "id", "x"]), accepted)))
def test_keyval_is_read_back_as_it_was_written(pairs: list[tuple[str, str]]) -> None:
    assert split_keyval(keyval("first", pairs))[1:] == pairs
    assert split_keyval(keyval(None, [("a", "1"), *pairs]))[1:] == pairs


def test_places_with_commas_stay_one_value() -> None:
    places = Places(data="/d,a=b", state="/s", runtime="/run/u,ser=1")
    plan = resolve(plans.profile(""), plans.facts(), Leases(), places).plan
    (first, _second) = values(plan, "-chardev")
    assert split_keyval(first) == [
        ("", "socket"),
        ("id", "qmp"),
        ("path", "/run/u,ser=1/qmp.sock"),
        ("server", "on"),
        ("wait", "off"),
    ]


def test_words_of_the_way_out_are_grouped_but_not_changed() -> None:
    args = ("-global", "a.b=c", "-S", "lone", "-append", "x", "y")
    plan = plans.plan_of(f"[qemu]\nargs = {json.dumps(args)}\n").plan
    assert command_line(plan)[-3:] == (
        ("-global", "a.b=c"),
        ("-S", "lone"),
        ("-append", "x", "y"),
    )


def test_descriptors_take_the_place_of_paths() -> None:
    plan = plans.plan_of('[[disk]]\nid = "a"\nsize = "1GiB"\n').plan
    handles = Handles(images={"a-file": 0}, sets={0: (7, 8)}, sockets={"qmp": 9})
    options = build(plan, handles)
    assert [words[1] for words in options if words[0] == "-add-fd"] == ["fd=7,set=0", "fd=8,set=0"]
    nodes = [json.loads(words[1]) for words in options if words[0] == "-blockdev"]
    assert nodes[0]["filename"] == "/dev/fdset/0"
    chardevs = [words[1] for words in options if words[0] == "-chardev"]
    assert chardevs[0] == "socket,id=qmp,fd=9,server=on,wait=off"


@pytest.mark.qemu
@pytest.mark.parametrize(
    "name", ["a,b=c.img", "-device,x", "q\"u'o\\te", "{}", "é ü,,漢字😀", "=,=,"]
)
def test_a_real_qemu_opens_the_file_that_is_meant(
    name: str, qemu_binary: str, own_place: Path
) -> None:
    folder = own_place / name
    folder.mkdir()
    paths = {key: folder / f"{key}{name}" for key in ("disk", "cd")}
    for path in paths.values():
        path.write_bytes(bytes(1 << 20))
    images = {str(path): plans.RAW for path in paths.values()} | {str(folder): plans.FOLDER}
    profile = evolve(
        plans.profile(
            '[machine]\naccel = "tcg"\n[display]\nspice = false\n'
            '[[disk]]\nid = "a"\nformat = "raw"\npath = "/a"\n'
            '[[cdrom]]\nid = "cd0"\npath = "/c"\n[[share]]\nid = "s"\npath = "/s"\n'
        )
    )
    profile = evolve(
        profile,
        disk=(evolve(profile.disk[0], path=str(paths["disk"])),),
        cdrom=(evolve(profile.cdrom[0], path=str(paths["cd"])),),
        share=(evolve(profile.share[0], path=str(folder)),),
    )
    places = Places(data=str(folder), state=str(folder), runtime=str(folder))
    resolution = resolve(profile, plans.facts(images=images), Leases(), places)
    assert resolution.errors == (), plans.findings(resolution)
    words = [word for option in command_line(resolution.plan) for word in option]
    done = subprocess.run(
        [qemu_binary, *words[1:], "-qmp", "stdio"],
        input='{"execute":"qmp_capabilities"}{"execute":"query-named-block-nodes"}'
        '{"execute":"quit"}',
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    nodes = next(answer["return"] for answer in answers if isinstance(answer.get("return"), list))
    opened = {node["node-name"]: node["file"] for node in nodes}
    assert opened["a-file"] == str(paths["disk"])
    assert opened["cd0-file"] == str(paths["cd"])
