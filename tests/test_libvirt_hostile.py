"""Hostile XML: whatever is in a file, there is a profile or an error for its author, and soon."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlaunch.errors import ProfileError
from qlaunch.libvirt.domain import import_domain
from qlaunch.libvirt.export import export_domain
from qlaunch.libvirt.pieces import import_any
from qlaunch.libvirt.xml import read
from qlaunch.profile.load import loads
from qlaunch.profile.network_load import loads_network

FOLDER = Path(__file__).parent / "domains"
SEEDS = [path.read_bytes() for path in sorted(FOLDER.glob("**/*.xml"))]
MUTANTS = 5000
PATIENCE = 1.0
WORDS = (
    b"'", b'"', b"<", b">", b"&", b"&#0;", b"&#x1F4A9;", b"&lol;", b"<!DOCTYPE a>", b"]]>", b"\0",
    b"<![CDATA[", b"<!--", b"-->", b"<?xml encoding='zip'?>", b"\xff", b"\xe2\x80\x99", b"-1",
    b"99999999999999999999999", b"0x", b"../../../etc/passwd", b"\n", b" ", b"ua-", b"1e9",
    b"~root",
    b"<a>" * 120, b"name='", b"unit='PiB'", b"port='", b"slot='0xff'", b"<qlaunch:profile>",
)  # fmt: skip


def survives(data: bytes) -> None:
    began = time.process_time()
    made = None
    with contextlib.suppress(ProfileError):
        made = import_any(read(data, "a.xml"), "a.xml", stem=None)
    if made is not None and made.kind == "machine":
        loads(made.text, "/p/a.toml", name="a")
    elif made is not None and made.kind == "network":
        # Whether a range lies in its network is for its author to know.
        with contextlib.suppress(ProfileError):
            loads_network(made.text, "/n/a.toml", name="a")
    assert time.process_time() - began < PATIENCE


def mutant(number: int) -> bytes:
    """The file `number`: one of the seeds with some of its bytes changed."""
    dice = random.Random(number)
    data = bytearray(dice.choice(SEEDS))
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(6):
            case 0:
                data[at:at] = dice.choice(WORDS)
            case 1:
                del data[at : at + dice.randint(1, 80)]
            case 2:
                data[at:at] = data[dice.randrange(len(data) + 1) :][: dice.randint(1, 400)]
            case 3:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 4:
                other = dice.choice(SEEDS)
                data[at:at] = other[dice.randrange(len(other)) :][: dice.randint(1, 400)]
            case 5:
                data[at : at + 8] = dice.choice(WORDS)
    return bytes(data)


@pytest.mark.parametrize("part", range(10))
def test_five_thousand_mutants_are_survived(part: int) -> None:
    for number in range(part * MUTANTS // 10, (part + 1) * MUTANTS // 10):
        try:
            survives(mutant(number))
        except Exception as error:
            raise AssertionError(f"mutant {number}: {error!r}") from error


VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["yes", "no", "on", "0", "-1", "0x1f", "7", "ua-x", "virtio", "usb", "pci"]),
    st.integers(-(10**30), 10**30).map(str),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_of_any_attribute_and_text_is_survived(data: st.DataObject) -> None:
    root = read(data.draw(st.sampled_from(SEEDS)), "a.xml").root
    waiting, elements = [root], []
    while waiting:
        element = waiting.pop()
        elements.append(element)
        waiting += element.children
    for _ in range(data.draw(st.integers(1, 4))):
        element = data.draw(st.sampled_from(elements))
        if element.attributes:
            name = data.draw(st.sampled_from(sorted(element.attributes)))
            element.attributes[name] = data.draw(VALUES)
        elif not element.children:
            element.text = data.draw(VALUES)
    from qlaunch.libvirt.render import render

    survives(render(root).encode())


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_bytes_are_survived(data: bytes) -> None:
    survives(data)


@pytest.mark.parametrize(
    "data",
    [
        b"<domain>" + b"<a/>" * 99_000 + b"</domain>",
        b"<domain " + b" ".join(b"a%d='1'" % number for number in range(20_000)) + b"/>",
        b"<domain><name>" + b"x" * (3 << 20) + b"</name></domain>",
        b"<domain><description>" + b"\xe2\x80\x9c" * (1 << 20) + b"</description></domain>",
        b"<domain>" + "<a b=\u201cc\u201d/>".encode() * 20_000 + b"</domain>",
        b"<domain><devices>" + b"<disk><target dev='hda'/></disk>" * 5_000 + b"</devices></domain>",
        b"<domain><devices>" + b"<serial/>" * 20_000 + b"</devices></domain>",
        b"<" * (1 << 20),
        b"<a" + b" =" * (1 << 20),
    ],
    ids=range(9),
)
def test_large_files_do_not_take_long(data: bytes) -> None:
    survives(data)


def test_no_file_is_read_and_nothing_is_asked_of_the_computer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_words: object, **_more: object) -> None:
        raise AssertionError("a file was opened")

    export_domain(loads('schema = 1\nguest = "linux"\n', "/p/a.toml", name="a"), "/vm")
    for guest in ("xp", "win7", "win10", "win11", "debian", "bsd", "dos", "vm"):
        import_domain(read(f"<domain><name>{guest}</name></domain>".encode(), "a"), "a")
    monkeypatch.setattr("builtins.open", forbidden)
    for seed in SEEDS:
        import_any(read(seed, "a.xml"), "a.xml")
