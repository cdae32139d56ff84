"""New images: sparse, whole or not there, and never in place of another file."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from qlaunch.errors import BusyError, ConflictError, HostError, NotFoundError, RefusedError
from qlaunch.host.images import create_image, image_facts
from qlaunch.host.process import Process
from tests import prerequisites

pytestmark = pytest.mark.qemu

MIB = 1 << 20
Format = Literal["raw", "qcow2"]
IMAGE_FORMATS: tuple[Format, ...] = ("raw", "qcow2")


def noise(path: Path, size: int) -> Path:
    path.write_bytes(random.Random(1).randbytes(size))
    return path


def run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def info(path: Path) -> dict[str, object]:
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", str(path)], check=True, capture_output=True
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def names(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.is_file())


async def test_a_raw_image_is_sparse_and_private(own_place: Path) -> None:
    path = own_place / "a.raw"
    await create_image(str(path), image_format="raw", size=10 << 30)
    found = path.stat()
    assert (found.st_size, found.st_blocks, found.st_mode & 0o777) == (10 << 30, 0, 0o600)
    assert names(own_place) == ["a.raw"]


async def test_a_qcow2_image_is_sparse_and_private(own_place: Path) -> None:
    path = own_place / "a.qcow2"
    await create_image(str(path), image_format="qcow2", size=10 << 30)
    assert image_facts(str(path), want_write=True).virtual_size == 10 << 30
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("name", ["-rf.qcow2", "a,b=c.qcow2", "a b\n.qcow2", "nbd:x.qcow2"])
async def test_odd_names_are_only_names(own_place: Path, name: str) -> None:
    for image_format in IMAGE_FORMATS:
        (own_place / image_format).mkdir()
        path = own_place / image_format / name
        await create_image(str(path), image_format=image_format, size=MIB)
        assert image_facts(str(path), want_write=True).format == image_format


async def test_a_base_in_the_same_directory_is_named_relatively(own_place: Path) -> None:
    base, other = own_place / "base.raw", own_place / "home/other.raw"
    await create_image(str(base), image_format="raw", size=3 * MIB)
    await create_image(str(other), image_format="raw", size=3 * MIB)
    for number, below in enumerate((base, other)):
        top = str(own_place / f"{number}.qcow2")
        await create_image(top, image_format="qcow2", backing=str(below), backing_format="raw")
    first, second = info(own_place / "0.qcow2"), info(own_place / "1.qcow2")
    assert (first["backing-filename"], first["virtual-size"]) == ("base.raw", 3 * MIB)
    assert second["backing-filename"] == str(other)
    assert first["backing-filename-format"] == "raw"


@pytest.mark.parametrize("source", ["raw", "qcow2"])
@pytest.mark.parametrize("target", ["raw", "qcow2"])
async def test_a_template_is_copied_and_may_grow(
    own_place: Path, source: str, target: Format
) -> None:
    raw = noise(own_place / "t.raw", MIB)
    template, path = own_place / f"t.{source}", own_place / "a.img"
    if source == "qcow2":
        await create_image(str(template), image_format="qcow2", template=str(raw))
    heard: list[float] = []
    await create_image(
        str(path),
        image_format=target,
        size=4 * MIB,
        template=str(template),
        progress=heard.append,
    )
    assert image_facts(str(path), want_write=True).virtual_size == 4 * MIB
    assert heard[-1] == 100.0
    back = own_place / "back.raw"
    run("qemu-img", "convert", "-O", "raw", str(path), str(back))
    assert back.read_bytes() == raw.read_bytes() + bytes(3 * MIB)


async def test_an_existing_file_is_never_replaced(own_place: Path) -> None:
    path = own_place / "a.qcow2"
    path.write_text("precious")
    with pytest.raises(ConflictError, match="exists already"):
        await create_image(str(path), image_format="qcow2", size=MIB)
    path.unlink()

    def somebody_else(_percent: float) -> None:
        path.write_text("precious")

    template = noise(own_place / "t.raw", MIB)
    with pytest.raises(ConflictError, match="exists already"):
        await create_image(
            str(path),
            image_format="qcow2",
            template=str(template),
            progress=somebody_else,
        )
    assert path.read_text() == "precious"
    assert names(own_place) == ["a.qcow2", "t.raw"]


@pytest.mark.parametrize("exists", [False, True])
async def test_a_file_system_without_hard_links_will_do(
    own_place: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    path = own_place / "a.raw"

    def no_links(_old: str, new: str) -> None:
        if exists:
            Path(new).write_text("precious")
        raise PermissionError(errno.EPERM, "")

    monkeypatch.setattr(os, "link", no_links)
    if exists:
        with pytest.raises(ConflictError):
            await create_image(str(path), image_format="raw", size=MIB)
        assert path.read_text() == "precious"
    else:
        await create_image(str(path), image_format="raw", size=MIB)
        assert path.stat().st_size == MIB
    assert names(own_place) == ["a.raw"]


async def test_templates_that_lead_to_other_files_are_refused(own_place: Path) -> None:
    base, top = noise(own_place / "base.raw", MIB), own_place / "top.qcow2"
    await create_image(str(top), image_format="qcow2", backing=str(base), backing_format="raw")
    new = str(own_place / "new.raw")
    with pytest.raises(RefusedError, match=r"stands on another file, 'base\.raw'"):
        await create_image(new, image_format="raw", template=str(top))
    with pytest.raises(RefusedError, match="is raw, not qcow2"):
        await create_image(new, image_format="raw", template=str(base), template_format="qcow2")
    with pytest.raises(RefusedError, match="more than the 512 KiB"):
        await create_image(new, image_format="raw", template=str(base), size=MIB // 2)
    with pytest.raises(NotFoundError, match="template"):
        await create_image(new, image_format="raw", template=str(own_place / "gone"))
    assert names(own_place) == ["base.raw", "top.qcow2"]


async def test_the_same_image_is_not_made_twice_at_once(own_place: Path) -> None:
    template, path = noise(own_place / "t.raw", MIB), str(own_place / "a.raw")
    started = asyncio.Event()

    async def make() -> None:
        await create_image(
            path, image_format="raw", template=str(template), progress=lambda _: started.set()
        )

    async with asyncio.TaskGroup() as group:
        group.create_task(make())
        await started.wait()
        with pytest.raises(BusyError, match="is being made"):
            await create_image(path, image_format="raw", size=MIB)
    assert names(own_place) == ["a.raw", "t.raw"]


@pytest.mark.fault
async def test_a_cancelled_copy_leaves_nothing_and_no_qemu_img(own_place: Path) -> None:
    template = noise(own_place / "t.raw", 32 * MIB)
    started = asyncio.Event()
    task = asyncio.ensure_future(
        create_image(
            str(own_place / "a.qcow2"),
            image_format="qcow2",
            template=str(template),
            progress=lambda _: started.set(),
        )
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(own_place) == ["t.raw"]


def killed_when_started(code: str, *argv: str) -> int:
    """The pid of a Python that was killed as soon as it had printed something."""
    house = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, *argv], stdout=subprocess.PIPE, cwd=house
    ) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"started\n"
        maker.send_signal(signal.SIGKILL)
    return maker.pid


@pytest.mark.fault
async def test_what_a_killed_maker_left_is_removed_by_the_next(own_place: Path) -> None:
    template, path = noise(own_place / "t.raw", 32 * MIB), own_place / "a.qcow2"
    code = (
        "import asyncio, sys; from qlaunch.host.images import create_image\n"
        "asyncio.run(create_image(sys.argv[1], image_format='qcow2', template=sys.argv[2],"
        " progress=lambda _: print('started', flush=True)))"
    )
    left = f".a.qcow2.part-{killed_when_started(code, str(path), str(template))}"
    assert names(own_place) == [left, "t.raw"]
    await create_image(str(path), image_format="qcow2", size=MIB)
    assert names(own_place) == ["a.qcow2", "t.raw"]


async def test_a_part_file_of_somebody_at_work_stays(own_place: Path) -> None:
    mine = own_place / f".a.raw.part-{os.getpid()}"
    async with Process.spawn(["sleep", "1000"]) as other:
        # It lives, but has no such file open: its number is a reused one.
        (own_place / f".a.raw.part-{other.pid}").touch()
        with mine.open("wb"), pytest.raises(BusyError):
            await create_image(str(own_place / "a.raw"), image_format="raw", size=MIB)
        other.send_signal(signal.SIGKILL)
        await other.wait(5)
    assert names(own_place) == [mine.name]


@pytest.mark.fault
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
async def test_a_full_disk_is_named_and_nothing_stays(
    own_place: Path, image_format: Format
) -> None:
    prerequisites.require("fault", os.geteuid() == 0, "only root can mount a small file system")
    template, small = noise(own_place / "t.raw", MIB), own_place / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small))
    try:
        with pytest.raises(HostError, match=f"the file system {small}: is full") as error:
            await create_image(
                str(small / "a.img"),
                image_format=image_format,
                template=str(template),
            )
        assert "free some space" in (error.value.hint or "")
        assert names(small) == []
    finally:
        run("umount", str(small))


async def test_a_size_that_no_file_can_have_is_an_error_in_words(own_place: Path) -> None:
    with pytest.raises(HostError, match="cannot be made"):
        await create_image(str(own_place / "a.raw"), image_format="raw", size=1 << 62)
    assert names(own_place) == []


async def test_a_missing_qemu_img_is_named(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(own_place))
    assert shutil.which("qemu-img") is None
    with pytest.raises(HostError, match="qemu-img is missing") as error:
        await create_image(str(own_place / "a.qcow2"), image_format="qcow2", size=MIB)
    assert error.value.hint == "sudo apt install qemu-utils"
    await create_image(str(own_place / "a.raw"), image_format="raw", size=MIB)
