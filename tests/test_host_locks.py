"""Who holds an image, with real QEMUs that hold it."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qlaunch.host.images import create_image, image_facts
from qlaunch.host.process import Process
from qlaunch.host.procfs import machine_name

pytestmark = pytest.mark.qemu


@asynccontextmanager
async def holding(qemu: str, path: Path, *, read_only: bool = False) -> AsyncIterator[Process]:
    """A QEMU, called `x,y` by its guest's name, that uses the image; killed at the end."""
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    node = f"driver=raw,node-name=disk0,read-only={'on' if read_only else 'off'}"
    argv = [qemu, "-name", "guest=x,,y,debug-threads=on", "-machine", "pc,accel=tcg", "-S"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-m", "16"]
    argv += ["-blockdev", f"{node},file.driver=file,file.filename={path}"]
    argv += ["-device", "virtio-blk-pci,drive=disk0"]
    argv += ["-chardev", f"socket,id=m,fd={fd}", "-mon", "chardev=m,mode=control"]
    process = Process.spawn(argv, pass_fds=[fd])
    theirs.close()
    with ours, ours.makefile("rb") as answers:
        # The greeting may come before the disks are open; a command is carried out after that.
        ours.sendall(b'{"execute": "qmp_capabilities"} {"execute": "query-status"}')
        kinds = [next(iter(json.loads(answers.readline()))) for _ in range(3)]
        assert kinds == ["QMP", "return", "return"]
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
            process.close()


async def test_a_writer_is_named_to_readers_and_writers(qemu_binary: str, own_place: Path) -> None:
    path = own_place / "a.raw"
    await create_image(str(path), image_format="raw", size=1 << 20)
    async with holding(qemu_binary, path) as process:
        words = f"qemu-system-x86_64, pid {process.pid}, machine x,y"
        assert image_facts(str(path), want_write=True).holder == words
        assert image_facts(str(path), want_write=False).holder == words
    assert image_facts(str(path), want_write=True).holder is None


async def test_a_reader_is_in_the_way_of_writers_only(qemu_binary: str, own_place: Path) -> None:
    path = own_place / "a.raw"
    await create_image(str(path), image_format="raw", size=1 << 20)
    async with holding(qemu_binary, path, read_only=True) as process:
        assert image_facts(str(path), want_write=False).holder is None
        assert f"pid {process.pid}" in (image_facts(str(path), want_write=True).holder or "")


@pytest.mark.parametrize(
    "words,name",
    [
        (["-name", "xp"], "xp"),
        (["-name", "guest=xp,debug-threads=on"], "xp"),
        (["-name", "debug-threads=on,guest=a,,b"], "a,b"),
        (["-name", "debug-threads=on"], None),
        (["-name"], None),
        (["-S", "xp"], None),
    ],
)
def test_a_machine_name_is_found_on_a_command_line(words: list[str], name: str | None) -> None:
    assert machine_name([word.encode() for word in ["qemu", *words]]) == name
