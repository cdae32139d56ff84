"""Whatever is in the file: an answer, and soon."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import jsonschema
import pytest

from qlaunch.errors import ProfileError
from qlaunch.profile.dump import dumps
from qlaunch.profile.load import loads
from qlaunch.profile.schema import json_schema
from qlaunch.profile.toml import parse_toml

ROOT = Path(__file__).parent.parent
PROFILES = sorted((ROOT / "profiles").glob("*.toml"))
FULL = b"""schema = 1
name = "full"
extends = ["@linux"]
[cpu]
flags = ["+nx", "-pni"]
[lifecycle]
stop_timeout = "3min"
[display]
password = { env = "PW" }
[usb]
redirect_ports = [4, 5]
[qemu]
args = ["-global", "a=b,c"]
[[disk]]
id = "hda"
path = "~/a b.img"
bps = "10MiB"
[[channel]]
id = "agent0"
remove = true
[[nic]]
id = "net0"
mac = "52:54:00:12:34:56"
forward = ["tcp:127.0.0.1:2222:22"]
[[share]]
id = "s"
path = "/srv"
"""
VALUES = [
    b"1", b"-1", b"0", b"true", b"inf", b"nan", b"1e400", b"[]", b"{}", b"[[]]", b"[{}]",
    b"{ a = 1 }", b"1979-05-27", b"07:32:00", b"0x" + b"f" * 5000, b"9" * 30, b'""', b"'@x'",
    b"'~nobody/x'", b"'-'", b"'='", b"','", b'"\\u0000"', b'"\\n"', b'"\\u001b[2J"',
    b'"\\u202e"', b'"\\U0010ffff"', b"'" + b"x" * 5000 + b"'", b"'1.5.5GiB'",
    b"'" + b"9" * 400 + b".5GiB'",
    b"'.'", b"[" * 500 + b"]" * 500, b"{a=" * 50 + b"1" + b"}" * 50, b"['@windows', '@x', '']",
    b"'..'", b"[1, 'a', true]", b"'\xc3\xa9'", b"{ file = 'a', env = 'B' }", b"{ remove = true }",
]  # fmt: skip
KEYS = [b"id", b"remove", b"a.b.c", b'"a b"', b'"\\u0000"', b"schema", b"extends", b"guest",
        b"disk", b"cpu.count", b"-", b"''"]  # fmt: skip


Mutate = Callable[[bytes, Random], bytes]


def flip(data: bytes, chance: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def cut(data: bytes, chance: Random) -> bytes:
    start, end = sorted((chance.randrange(len(data)), chance.randrange(len(data))))
    return data[:start] + data[end:] if chance.random() < 0.5 else data[:end]


def rename(data: bytes, chance: Random) -> bytes:
    found = list(re.finditer(rb"(?m)^(#?) *\[*([a-z_]+)(?: =|\]+)", data))
    match = chance.choice(found)
    name = chance.choice([*KEYS, match[2] + b"s", match[2][1:] or b"x", match[2].upper()])
    return data[: match.start(2)] + name + data[match.end(2) :]


def replace(data: bytes, chance: Random) -> bytes:
    found = list(re.finditer(rb"(?m)^[a-z_]+ = (.*?)(?:$| +#)", data))
    match = chance.choice(found)
    return data[: match.start(1)] + chance.choice(VALUES) + data[match.end(1) :]


def shuffle(data: bytes, chance: Random) -> bytes:
    rows = data.split(b"\n")
    chance.shuffle(rows)
    return b"\n".join(rows)


def insert(data: bytes, chance: Random) -> bytes:
    at = chance.choice([match.end() for match in re.finditer(b"\n", data)])
    row = chance.choice(KEYS) + b" = " + chance.choice(VALUES) + b"\n"
    return data[:at] + row + data[at:]


@pytest.mark.parametrize(
    "mutate", [flip, cut, rename, replace, shuffle, insert], ids=lambda mutate: mutate.__name__
)
def test_a_mutated_profile_is_read_or_refused_with_its_places(mutate: Mutate) -> None:
    chance = Random(mutate.__name__)
    validator = jsonschema.Draft202012Validator(json_schema())
    originals = [FULL, *(file.read_bytes() for file in PROFILES)]
    refused = 0
    for _ in range(500):
        data = mutate(chance.choice(originals), chance)
        before = time.monotonic()
        refused += is_refused(data, validator)
        assert time.monotonic() - before < 2, data
    assert refused > 20


def is_refused(data: bytes, validator: jsonschema.Draft202012Validator) -> bool:
    """Whether `data` is refused. If so, with places; if not, it can be written and read again."""
    try:
        profile = loads(data, "/p/xp.toml")
    except ProfileError as error:
        for one in (error, *error.more):
            assert re.match(r"(/p/xp\.toml|@[a-z0-9-]+)(:\d+)?(: \S|$)", one.where), one.where
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", f"{one}{one.hint}"), str(one)
            assert len(str(one)) < 1000
        return True
    assert loads(dumps(profile), "/q/other.toml") == profile, data
    validator.validate(parse_toml(data.decode()))
    return False


def test_a_mutated_override_is_read_or_refused() -> None:
    chance = Random("overrides")
    keys = [
        "cpu.count", "disk.hda.path", "title", "guest", "extends", "display.password", "schema",
        "boot.order", "name", "nic.net0.remove", "display.password.env", "memory.size",
    ]  # fmt: skip
    for _ in range(1000):
        value = chance.choice(VALUES).decode(errors="surrogateescape")
        override = f"{chance.choice(keys)}={value}"
        if chance.random() < 0.3:
            override = flip(override.encode(errors="surrogateescape"), chance).decode(
                errors="surrogateescape"
            )
        try:
            loads(FULL, "/p/xp.toml", overrides=[override])
        except ProfileError as error:
            text = f"{error}{error.hint}"
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), override
            text.encode()
