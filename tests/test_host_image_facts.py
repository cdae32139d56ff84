"""What is told of the things that may lie where an image should be."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from qlaunch.facts import ImageFacts
from qlaunch.host.images import MAX_CHAIN, chain_facts, image_facts
from qlaunch.records import from_plain, to_plain
from tests.prerequisites import require_users

NOBODY = 65534


def qcow2(path: Path, backing: bytes = b"", backing_format: bytes = b"") -> Path:
    extension = b""
    if backing_format:
        extension = struct.pack(">II", 0xE2792ACA, len(backing_format)) + backing_format.ljust(
            8, b"\0"
        )
    extension += bytes(8)
    at = 104 + len(extension) if backing else 0
    fixed = (b"QFI\xfb", 3, at, len(backing), 16, 1 << 30, 0, 2, 0, 0, 1, 0, 0)
    data = struct.pack(">4sIQIIQIIQQIIQ", *fixed) + struct.pack(">QQQII", 0, 0, 0, 4, 104)
    path.write_bytes((data + extension + backing).ljust(1 << 16, b"\0"))
    return path


def as_nobody(look: Callable[[], ImageFacts]) -> ImageFacts:
    """`look` as somebody whom permissions bind: in a forked child when root runs the tests."""
    if os.geteuid():
        return look()
    require_users()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads
        pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.write(writing, json.dumps(to_plain(look())).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        data = answer.read()
    os.waitpid(pid, 0)
    return from_plain(ImageFacts, json.loads(data))


def test_a_raw_image_has_its_size_and_is_free(own_place: Path) -> None:
    path = own_place / "a.raw"
    path.write_bytes(bytes(12345))
    facts = image_facts(str(path), want_write=True)
    assert (facts.exists, facts.readable, facts.writable) == (True, True, True)
    assert (facts.format, facts.virtual_size, facts.file_size) == ("raw", 12345, 12345)
    assert (facts.problem, facts.holder) == (None, None)
    assert facts.free_space


def test_a_file_that_is_not_there_is_no_problem(own_place: Path) -> None:
    facts = image_facts(str(own_place / "new.qcow2"), want_write=True)
    assert (facts.exists, facts.problem) == (False, None)
    assert facts.free_space


def test_a_missing_directory_is_a_problem_for_readers_and_where_it_cannot_be_made(
    own_place: Path,
) -> None:
    path = str(own_place / "no/such/new.qcow2")
    new = image_facts(path, want_write=True)
    assert (new.missing_directory, new.problem) == (str(own_place / "no/such"), None)
    assert new.free_space
    read = image_facts(path, want_write=False)
    assert read.problem == f"the directory {own_place}/no/such does not exist"
    own_place.chmod(0o555)
    closed = as_nobody(lambda: image_facts(path, want_write=True))
    own_place.chmod(0o755)
    assert f"may not write the directory {own_place}, which belongs" in (closed.problem or "")


def test_what_is_no_file_is_refused_in_words_and_never_waited_for(own_place: Path) -> None:
    os.mkfifo(own_place / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own_place / "socket"))
    found = {
        name: image_facts(str(path), want_write=True).problem
        for name, path in (
            ("fifo", own_place / "fifo"),
            ("socket", own_place / "socket"),
            ("directory", own_place),
            ("device", Path("/dev/null")),
        )
    }
    assert found == {
        "fifo": "it is a FIFO, not an image",
        "socket": "it is a socket, not an image",
        "directory": "it is a directory, not an image",
        "device": "it is a character device, not an image",
    }


def test_odd_paths_are_told_in_words(own_place: Path) -> None:
    (own_place / "file").touch()
    (own_place / "dangling").symlink_to("gone.raw")
    (own_place / "round").symlink_to("round")
    words = [
        image_facts(str(own_place / name), want_write=False).problem
        for name in ("a\0b", "file/x", "dangling", "round", "x" * 300)
    ]
    assert words == [
        "the name holds a NUL character",
        f"{own_place}/file is a file, not a directory",
        f"it is a link to {own_place}/gone.raw, which is not there",
        "its symbolic links lead in a circle",
        "file name too long",
    ]


def test_the_directory_that_forbids_access_is_named(own_place: Path) -> None:
    own_place.chmod(0o755)
    closed = own_place / "closed"
    (closed / "deep").mkdir(parents=True)
    (closed / "deep/a.raw").touch()
    closed.chmod(0o600)
    facts = as_nobody(lambda: image_facts(str(closed / "deep/a.raw"), want_write=False))
    closed.chmod(0o700)
    assert facts.problem is not None
    assert f"may not enter the directory {closed}, which belongs to" in facts.problem
    assert "(mode 0600)" in facts.problem
    assert f":x {closed}" in (facts.hint or "")


def test_a_file_without_rights_says_whose_it_is(own_place: Path) -> None:
    own_place.chmod(0o755)
    path = own_place / "a.raw"
    path.touch()
    path.chmod(0o444)
    readable = as_nobody(lambda: image_facts(str(path), want_write=True))
    assert (readable.exists, readable.readable, readable.writable) == (True, True, False)
    assert "may not write" in (readable.problem or "")
    path.chmod(0)
    closed = as_nobody(lambda: image_facts(str(path), want_write=False))
    assert (closed.exists, closed.readable) == (True, False)
    assert f"may not read {path}, which belongs to" in (closed.problem or "")


def test_a_directory_in_which_nothing_can_be_made_is_a_problem_of_the_writer_only(
    own_place: Path,
) -> None:
    own_place.chmod(0o555)
    path = str(own_place / "new.raw")
    assert "may not write the directory" in (
        as_nobody(lambda: image_facts(path, want_write=True)).problem or ""
    )
    assert as_nobody(lambda: image_facts(path, want_write=False)).problem is None
    own_place.chmod(0o755)


def test_a_damaged_header_is_a_problem(own_place: Path) -> None:
    path = own_place / "a.qcow2"
    path.write_bytes(b"QFI\xfb\0\0\0\3")
    facts = image_facts(str(path), want_write=False)
    assert (facts.format, facts.problem) == (
        "qcow2",
        "it is damaged: the qcow2 header is cut short",
    )


@pytest.mark.parametrize(
    "name,below",
    [
        (b"base.raw", "base.raw"),
        (b"./sub/../base.raw", "base.raw"),
        (b"file:base.raw", "base.raw"),
        (b"/dev/null", "/dev/null"),
    ],
)
def test_a_backing_name_is_relative_to_the_image(own_place: Path, name: bytes, below: str) -> None:
    facts = image_facts(str(qcow2(own_place / "top.qcow2", name, b"raw")), want_write=False)
    assert (facts.backing, facts.backing_format) == (name.decode(), "raw")
    assert facts.backing_path == str(own_place / below)
    assert facts.problem is None


@pytest.mark.parametrize("name", [b'json:{"driver":"raw"}', b"nbd://x/y", b"\xff", b"a\nb"])
def test_a_backing_name_that_is_no_file_is_a_problem(own_place: Path, name: bytes) -> None:
    facts = image_facts(str(qcow2(own_place / "top.qcow2", name)), want_write=False)
    assert facts.backing_path is None
    assert "its backing file" in (facts.problem or "")


def test_a_chain_is_followed_to_its_base(own_place: Path) -> None:
    (own_place / "base.raw").write_bytes(bytes(512))
    qcow2(own_place / "middle.qcow2", b"base.raw", b"raw")
    top = qcow2(own_place / "top.qcow2", b"middle.qcow2", b"qcow2")
    chain = chain_facts(str(top), want_write=True)
    assert [os.path.basename(path) for path in chain] == ["top.qcow2", "middle.qcow2", "base.raw"]
    assert all(facts.problem is None for facts in chain.values())


def test_a_missing_base_is_an_entry_that_does_not_exist(own_place: Path) -> None:
    chain = chain_facts(str(qcow2(own_place / "top.qcow2", b"gone.raw")), want_write=False)
    assert not chain[str(own_place / "gone.raw")].exists


def test_a_chain_that_comes_back_to_itself_ends_with_a_problem(own_place: Path) -> None:
    a, b = qcow2(own_place / "a.qcow2", b"b.qcow2"), qcow2(own_place / "b.qcow2", b"link.qcow2")
    (own_place / "link.qcow2").symlink_to("a.qcow2")
    chain = chain_facts(str(a), want_write=False)
    assert list(chain) == [str(a), str(b)]
    assert "leads back" in (chain[str(b)].problem or "")


def test_a_chain_that_is_too_deep_ends_with_a_problem(own_place: Path) -> None:
    for number in range(MAX_CHAIN + 1):
        qcow2(own_place / f"{number}", f"{number + 1}".encode())
    chain = chain_facts(str(own_place / "0"), want_write=False)
    assert len(chain) == MAX_CHAIN
    assert "deeper than 256" in (chain[str(own_place / f"{MAX_CHAIN - 1}")].problem or "")


def test_what_a_guest_wrote_into_its_raw_base_is_not_followed(own_place: Path) -> None:
    qcow2(own_place / "base.raw", b"/etc/passwd")
    top = qcow2(own_place / "top.qcow2", b"base.raw", b"raw")
    assert list(chain_facts(str(top), want_write=False)) == [str(top), str(own_place / "base.raw")]


def test_looking_changes_nothing(own_place: Path) -> None:
    path = qcow2(own_place / "a.qcow2")
    os.utime(path, (1, 1))
    image_facts(str(path), want_write=True)
    found = path.stat()
    assert found.st_mtime == 1
    assert stat.S_ISREG(found.st_mode)
