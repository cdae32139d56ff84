"""The header reader against headers that QEMU made, and against damaged ones."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from qlaunch.host.qcow2 import HEAD, ImageError, ImageHeader, parse_header, read_header

BACKING_FORMAT = 0xE2792ACA


def header(
    *,
    version: int = 3,
    backing: bytes = b"",
    backing_at: int | None = None,
    cluster_bits: int = 16,
    features: int = 0,
    extensions: bytes = struct.pack(">II", 0, 0),
) -> bytes:
    length = 104 if version == 3 else 72
    at = 0 if not backing else length + len(extensions) if backing_at is None else backing_at
    fixed = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", version, at, len(backing), cluster_bits, 1 << 30, 0, 2, 0, 0, 1, 0, 0),
    )
    rest = struct.pack(">QQQII", features, 0, 0, 4, length) if version == 3 else b""
    return (fixed + rest + extensions).ljust(at, b"\0") + backing


def qemu_img(*words: str) -> None:
    program = shutil.which("qemu-img")
    if program is None:
        pytest.skip("[qemu] qemu-img is not installed")
    subprocess.run([program, *words], check=True, stdout=subprocess.DEVNULL)


def read(path: Path) -> ImageHeader:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_header(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


@pytest.mark.parametrize("version", [2, 3])
def test_names_and_sizes_are_read_from_both_versions(version: int) -> None:
    format_name = struct.pack(">II", BACKING_FORMAT, 5) + b"qcow2\0\0\0" + bytes(8)
    data = header(version=version, backing=b"base.qcow2", extensions=format_name)
    found = parse_header(data, 1 << 20)
    assert found == ImageHeader(
        format="qcow2",
        virtual_size=1 << 30,
        version=version,
        cluster_size=65536,
        backing=b"base.qcow2",
        backing_format=b"qcow2",
    )


@pytest.mark.qemu
@pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "cluster_size=512"])
def test_what_qemu_img_wrote_is_read(own_place: Path, options: str) -> None:
    base, top = own_place / "base.raw", own_place / "top.qcow2"
    base.write_bytes(bytes(1 << 16))
    qemu_img("create", "-f", "qcow2", "-o", options, "-b", base.name, "-F", "raw", str(top), "7M")
    found = read(top)
    assert (found.format, found.virtual_size) == ("qcow2", 7 << 20)
    assert (found.backing, found.backing_format, found.data_file) == (b"base.raw", b"raw", None)


@pytest.mark.qemu
def test_an_external_data_file_is_named(own_place: Path) -> None:
    top, data = own_place / "top.qcow2", own_place / "secret.raw"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={data}", str(top), "1M")
    assert read(top).data_file == os.fsencode(data)


def test_a_backing_name_beyond_the_first_bytes_is_found(own_place: Path) -> None:
    path = own_place / "far.qcow2"
    path.write_bytes(header(backing=b"far.qcow2", backing_at=HEAD + 1000))
    assert read(path).backing == b"far.qcow2"


def test_flags_of_a_damaged_or_dirty_image_are_told() -> None:
    found = parse_header(header(features=0b111), 1 << 20)
    assert (found.dirty, found.corrupt, found.data_file) == (True, True, b"")


@pytest.mark.parametrize(
    "magic,name",
    [
        (b"KDMV", "vmdk"),
        (b"# Disk DescriptorFile", "vmdk"),
        (b"conectix", "vpc"),
        (b"vhdxfile", "vhdx"),
        (b"QED\0", "qed"),
        (b"LUKS\xba\xbe", "luks"),
        (bytes(64) + b"\x7f\x10\xda\xbe", "vdi"),
        (b"QFI\xfb\0\0\0\1", "qcow"),
    ],
)
def test_other_formats_are_named_and_not_read(magic: bytes, name: str) -> None:
    assert parse_header(magic.ljust(512, b"\0"), 4096) == ImageHeader(
        format=name, version=1 if name == "qcow" else None
    )


@pytest.mark.parametrize("data", [b"", b"x", bytes(4096)])
def test_whatever_has_no_magic_is_raw(data: bytes) -> None:
    assert parse_header(data, 12345) == ImageHeader(format="raw", virtual_size=12345)


@pytest.mark.parametrize(
    "data,words",
    [
        (b"QFI\xfb", "cut short"),
        (header()[:80], "cut short"),
        (header(version=9), "version 9"),
        (header(cluster_bits=40), "cluster size"),
        (header(features=1 << 40), "features"),
        (header(backing=b"x" * 1024), "backing file"),
        (header(backing=b"x", backing_at=1 << 17), "backing file"),
        (header(extensions=struct.pack(">II", 1, 1 << 30)), "extension"),
        (header(extensions=struct.pack(">II", 1, 0) * 200), "more extensions"),
    ],
)
def test_a_damaged_header_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        parse_header(data, 1 << 20)


def test_5000_damaged_headers_raise_nothing_but_image_error() -> None:
    chance = random.Random(20)
    format_name = struct.pack(">II", BACKING_FORMAT, 5) + b"qcow2\0\0\0" + bytes(8)
    valid = [header(version=v, backing=b"b", extensions=format_name) for v in (2, 3)]
    refused = 0
    for _ in range(5000):
        data = bytearray(chance.choice(valid))
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(4, len(data))] = chance.choice((0, 1, 8, 127, 255))
        try:
            parse_header(
                bytes(data[: chance.randint(0, len(data))]), chance.choice((0, 200, 1 << 30))
            )
        except ImageError:
            refused += 1
    assert 1000 < refused < 5000
