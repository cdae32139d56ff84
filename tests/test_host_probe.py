"""What is learnt from real QEMU binaries, and from things that are none."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from qlaunch.errors import HostError
from qlaunch.host import probe, probe_session
from qlaunch.host.probe import find_qemu, probe_qemu
from tests.prerequisites import both_qemus


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    probe.forget()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.qemu
@both_qemus
async def test_a_qemu_tells_what_it_can_do(qemu_binary: str, own_place: Path) -> None:
    facts = await probe_qemu(qemu_binary, str(own_place / "cache"))
    assert facts.path == qemu_binary
    assert facts.version >= (7, 0, 0)
    assert {"pc", "q35"} <= {machine.alias for machine in facts.machines}
    pc = facts.machine("pc")
    assert pc is not None
    assert pc.name.startswith("pc-i440fx-")
    assert pc.cpu_max > 100
    assert {"max", "qemu64", "kvm64", "host"} <= facts.cpu_models
    useful = {"virtio-blk-pci", "rtl8139", "AC97", "memory-backend-memfd", "chardev-socket"}
    assert useful <= facts.devices
    assert "audio-none" in facts.devices
    assert "i440FX-pcihost" not in facts.devices  # exists, but is nobody's to create
    assert {"blockdev-add", "migrate", "query-status"} <= facts.commands
    assert {"machine", "chardev", "add-fd", "sandbox"} <= facts.options


@pytest.mark.qemu
@pytest.mark.spice
async def test_spice_is_seen_down_to_its_audio(qemu_binary: str, own_place: Path) -> None:
    facts = await probe_qemu(qemu_binary, str(own_place))
    assert facts.has_spice
    assert "audio-spice" in facts.devices


@pytest.mark.qemu
async def test_the_answer_comes_from_the_cache_until_it_is_damaged(
    qemu_binary: str, own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = await probe_qemu(qemu_binary, str(own_place))
    file = own_place / f"qemu-{probe._key(qemu_binary)}.json"
    probe.forget()
    monkeypatch.setattr(probe_session, "PROBE_TIMEOUT", 0.0)  # asking would fail
    assert await probe_qemu(qemu_binary, str(own_place)) == facts
    monkeypatch.undo()
    good = file.read_text()
    newer = json.dumps({**json.loads(good), "version": 99})
    for damage in ("", "{", "[]", "null", good[:-100], newer, '{"version": 1, "facts": {}}'):
        file.write_text(damage)
        probe.forget()
        if damage in ("", newer):  # each asking costs a QEMU; two show the way back
            assert await probe_qemu(qemu_binary, str(own_place)) == facts
            assert file.read_text() == good
        else:
            assert probe._load(str(file)) is None


@pytest.mark.qemu
async def test_many_at_once_ask_once(qemu_binary: str, own_place: Path) -> None:
    count = script(own_place / "counted", f'echo x >>{own_place}/count\nexec {qemu_binary} "$@"')
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(probe_qemu(count, str(own_place / "cache")))
    assert (own_place / "count").read_text() == "x\nx\n"  # QMP, and the list of audio backends


@pytest.mark.qemu
async def test_a_cache_that_cannot_be_written_is_no_error(
    qemu_binary: str, own_place: Path
) -> None:
    (own_place / "file").touch()
    facts = await probe_qemu(qemu_binary, str(own_place / "file/cache"))
    assert facts.machines


async def test_a_changed_binary_is_asked_again(own_place: Path) -> None:
    path = script(own_place / "qemu", "exit 1")
    before = probe._key(path)
    assert probe._key(path) == before
    os.utime(path, (1, 1))
    assert probe._key(path) != before


@pytest.mark.parametrize(
    "text,words",
    [
        ("echo first >&2; echo 'last words' >&2; exit 1", "last words"),
        ("exit 3", "it ended with status 3 and said nothing"),
        ("kill -11 $$", "it ended with status -11"),
    ],
)
async def test_what_is_no_qemu_is_told_with_its_last_words(
    own_place: Path, text: str, words: str
) -> None:
    path = script(own_place / "qemu", text)
    with pytest.raises(HostError, match=words) as error:
        await probe_qemu(path, str(own_place / "cache"))
    assert path in error.value.message
    assert not (own_place / "cache").exists()


@pytest.mark.parametrize("answer", ["nonsense", "[]", '{"QMP": {}}', "\\xff"])
async def test_nonsense_is_no_answer(own_place: Path, answer: str) -> None:
    path = own_place / "qemu"
    path.write_text(
        f"#!{sys.executable}\nimport os, re, sys\n"
        "fd = int(re.search('fd=([0-9]+)', ' '.join(sys.argv))[1])\n"
        f"os.write(fd, b'{answer}\\n')\n"
    )
    path.chmod(0o755)
    with pytest.raises(HostError, match="does not work as a QEMU: it ended with status 0"):
        await probe_qemu(str(path), str(own_place))


async def test_what_never_answers_is_ended(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_session, "PROBE_TIMEOUT", 0.1)
    with pytest.raises(HostError, match=r"did not answer in 0\.1 s"):
        await probe_qemu(script(own_place / "qemu", "exec sleep 1000"), str(own_place))


def test_a_missing_qemu_is_told_with_its_package(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(own_place))
    with pytest.raises(HostError, match="there is no qemu-system-aarch64") as error:
        find_qemu("aarch64", None)
    assert error.value.hint == "sudo apt install qemu-system-arm"
    found = script(own_place / "qemu-system-aarch64", "")
    assert find_qemu("aarch64", None) == found
    assert find_qemu("x86_64", found) == found


async def test_a_named_qemu_must_be_there_and_executable(own_place: Path) -> None:
    path = own_place / "qemu"
    with pytest.raises(HostError, match="is not there"):
        find_qemu("x86_64", str(path))
    with pytest.raises(HostError, match="No such file"):
        await probe_qemu(str(path), str(own_place))
    path.touch()
    with pytest.raises(HostError, match="is not executable") as error:
        find_qemu("x86_64", str(path))
    assert error.value.hint == f"chmod +x {path}"
