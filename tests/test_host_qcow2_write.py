"""qcow2 files that we write ourselves, as QEMU sees them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qlaunch.errors import ConflictError, HostError, RefusedError
from qlaunch.host.qcow2_write import (
    STREAM_AT,
    create_overlay,
    empty_size,
    read_wrapped,
    wrap_stream,
)

pytestmark = pytest.mark.qemu


def tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def info(path: Path) -> dict[str, Any]:
    done = tool("qemu-img", "info", "--output=json", str(path))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


SIZES = [512, 1 << 20, (512 << 20) - 512, 512 << 20, (3 << 30) + 512, 1 << 40, 64 << 40]


@pytest.mark.parametrize("size", SIZES)
def test_an_overlay_is_what_qemu_img_would_make(tmp_path: Path, size: int) -> None:
    path = tmp_path / "new.qcow2"
    (tmp_path / "the base, ü.img").write_bytes(b"")
    create_overlay(str(path), size=size, backing="the base, ü.img", backing_format="raw")
    assert path.stat().st_size == empty_size(size)
    found = info(path)
    assert found["virtual-size"] == size
    assert found["backing-filename"] == "the base, ü.img"
    assert found["backing-filename-format"] == "raw"
    assert tool("qemu-img", "check", "-q", str(path)).returncode == 0


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sectors=st.integers(1, 1 << 36), at=st.floats(0, 1))
def test_what_is_written_into_it_is_read_back(tmp_path: Path, sectors: int, at: float) -> None:
    path = tmp_path / "new.qcow2"
    path.unlink(missing_ok=True)
    create_overlay(str(path), size=sectors * 512, backing=None, backing_format=None)
    where = int(at * (sectors - 1)) * 512
    done = tool(
        "qemu-io", "-f", "qcow2", "-c", f"write -P 7 {where} 512", "-c", f"read -P 7 {where} 512",
        str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
    assert tool("qemu-img", "check", "-q", str(path)).returncode == 0


def test_nothing_is_replaced_and_nothing_half_made_appears(tmp_path: Path) -> None:
    path = tmp_path / "there.qcow2"
    path.write_bytes(b"precious")
    with pytest.raises(ConflictError):
        create_overlay(str(path), size=1 << 20, backing=None, backing_format=None)
    assert path.read_bytes() == b"precious"
    with pytest.raises(HostError):
        create_overlay(str(tmp_path / "no" / "x"), size=512, backing=None, backing_format=None)
    with pytest.raises(RefusedError, match="too long"):
        create_overlay(str(tmp_path / "y"), size=512, backing="b" * 1024, backing_format="raw")
    assert os.listdir(tmp_path) == ["there.qcow2"]


@pytest.mark.parametrize("length", [1, 65536, 65537, 40 << 20, 1200 << 20])
def test_a_stream_becomes_the_vm_state_of_a_snapshot(tmp_path: Path, length: int) -> None:
    path = tmp_path / "memory"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, b"QEVM", STREAM_AT)
        os.ftruncate(fd, STREAM_AT + length)
        wrap_stream(fd, tag="qlaunch", length=length)
        assert read_wrapped(fd, "it").length == length
        assert os.pread(fd, 4, STREAM_AT) == b"QEVM"[: min(4, length)].ljust(4, b"\0")
    finally:
        os.close(fd)
    assert tool("qemu-img", "check", "-q", str(path)).returncode == 0
    (snapshot,) = info(path)["snapshots"]
    assert (snapshot["name"], snapshot["vm-state-size"]) == ("qlaunch", length)


@pytest.mark.parametrize("what", ["empty", "noise", "cut", "overlay"])
def test_what_is_no_memory_is_refused_with_words(tmp_path: Path, what: str) -> None:
    path = tmp_path / "memory"
    if what == "overlay":
        create_overlay(str(path), size=1 << 20, backing=None, backing_format=None)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        if what == "noise":
            os.pwrite(fd, os.urandom(4096), 0)
        if what == "cut":
            os.ftruncate(fd, STREAM_AT + 100_000)
            wrap_stream(fd, tag="qlaunch", length=100_000)
            os.ftruncate(fd, STREAM_AT + 50_000)
        with pytest.raises(RefusedError, match="the file"):
            read_wrapped(fd, "the file")
    finally:
        os.close(fd)
