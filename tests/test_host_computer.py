"""What is told of this computer: KVM, firmware, memory, systemd."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest

from qlaunch.facts import HostFacts
from qlaunch.host import kvm
from qlaunch.host.computer import host_facts, systemd_scope
from qlaunch.host.firmware import installed_firmware
from qlaunch.host.gather import gather, recent_host_facts
from qlaunch.host.images import create_image
from qlaunch.records import from_plain, to_plain


def descriptor(place: Path, name: str, **changes: object) -> None:
    place.mkdir(exist_ok=True)
    for file in ("code.fd", "vars.fd"):
        (place.parent / file).touch()
    flash: dict[str, object] = {
        "device": "flash",
        "executable": {"filename": str(place.parent / "code.fd"), "format": "raw"},
        "nvram-template": {"filename": str(place.parent / "vars.fd"), "format": "raw"},
    }
    data: dict[str, object] = {
        "description": f"{name} in {place.name}",
        "interface-types": ["uefi"],
        "mapping": flash,
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
        "features": ["secure-boot", "requires-smm"],
    }
    (place / name).write_text(json.dumps({**data, **changes}))


def test_facts_of_this_computer_can_be_saved_and_read() -> None:
    facts = host_facts()
    assert from_plain(HostFacts, json.loads(json.dumps(to_plain(facts)))) == facts
    assert (facts.uid, facts.cpus) == (os.geteuid(), len(os.sched_getaffinity(0)))
    assert 0 < facts.memory_available < facts.memory_total
    assert facts.page_size >= 4096
    assert facts.user


@pytest.mark.kvm
def test_kvm_that_works_is_usable() -> None:
    facts = kvm.kvm_facts()
    assert (facts.usable, facts.problem, facts.hint) == (True, None, None)
    assert facts.max_vcpus >= os.cpu_count()  # type: ignore[operator]


def test_a_missing_kvm_says_what_mends_it(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "DEVICE", str(own_place / "kvm"))
    facts = kvm.kvm_facts()
    assert not facts.usable
    assert facts.problem == f"there is no {own_place}/kvm on this computer"
    assert "modprobe" in (facts.hint or "")


def test_what_is_no_kvm_is_a_problem_and_no_error(
    own_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_place / "kvm").touch()
    monkeypatch.setattr(kvm, "DEVICE", str(own_place / "kvm"))
    facts = kvm.kvm_facts()
    assert not facts.usable
    assert "nappropriate ioctl" in (facts.problem or "")


@pytest.mark.parametrize(
    "mode,problem,hint",
    [
        (0o660, "is not in group", "sudo usermod -aG"),
        (0o600, "and you are", "sudo setfacl -m u:"),
    ],
)
def test_a_forbidden_kvm_names_group_and_command(
    own_place: Path, monkeypatch: pytest.MonkeyPatch, mode: int, problem: str, hint: str
) -> None:
    (own_place / "kvm").touch()
    (own_place / "kvm").chmod(mode)
    monkeypatch.setattr(kvm, "DEVICE", str(own_place / "kvm"))
    facts = kvm._refused(PermissionError(errno.EACCES, ""))
    assert problem in (facts.problem or "")
    assert f"(mode {mode:04o})" in (facts.problem or "")
    assert (facts.hint or "").startswith(hint)


def test_a_busy_or_absent_kvm_module_is_told() -> None:
    assert "another hypervisor" in (kvm._refused(OSError(errno.EBUSY, "")).problem or "")
    assert "no KVM module" in (kvm._refused(OSError(errno.ENODEV, "")).problem or "")


def test_firmware_is_tried_in_the_order_of_its_names(own_place: Path) -> None:
    shipped, local = own_place / "shipped", own_place / "local"
    descriptor(shipped, "60-plain.json", features=[])
    descriptor(shipped, "40-secure.json")
    descriptor(shipped, "50-hidden.json")
    descriptor(local, "50-hidden.json")
    (local / "50-hidden.json").write_bytes(b"")
    descriptor(local, "60-plain.json", description="mine")
    found = installed_firmware([str(shipped), str(local), str(own_place / "none")])
    assert [entry.description for entry in found] == ["40-secure.json in shipped", "mine"]
    assert found[0].code == str(own_place / "code.fd")
    assert found[0].vars_template == str(own_place / "vars.fd")
    assert (found[0].machines, found[0].architectures) == (("pc-q35-*",), frozenset({"x86_64"}))
    assert found[0].features == frozenset({"secure-boot", "requires-smm"})


@pytest.mark.parametrize(
    "changes",
    [
        {"interface-types": ["bios"]},
        {"mapping": {"device": "memory", "filename": "/etc/passwd"}},
        {"mapping": {"device": "flash", "executable": {"filename": "/no/such/file"}}},
        {"mapping": None},
        {"targets": 7},
        {"features": 7},
        {"interface-types": None},
    ],
)
def test_firmware_that_is_useless_here_is_passed_over(
    own_place: Path, changes: dict[str, object]
) -> None:
    descriptor(own_place / "d", "10.json", **changes)
    (own_place / "d/20.json").write_bytes(b"\xff{")
    assert installed_firmware([str(own_place / "d")]) == ()


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="[systemd] it really runs here")
def test_a_user_manager_counts_when_it_answers(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = runtime_dir / "systemd-run"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(runtime_dir), prepend=os.pathsep)
    (runtime_dir / "systemd").mkdir()
    assert systemd_scope(1000) is None
    with socket.socket(socket.AF_UNIX) as manager:
        manager.bind(str(runtime_dir / "systemd/private"))
        assert systemd_scope(1000) is None
        manager.listen()
        assert systemd_scope(1000) == "user"


@pytest.mark.qemu
async def test_facts_are_gathered_for_all_images_and_ports(
    qemu_binary: str, own_place: Path, shared_cache: Path
) -> None:
    base, top = str(own_place / "base.raw"), str(own_place / "top.qcow2")
    await create_image(base, image_format="raw", size=1 << 20)
    await create_image(top, image_format="qcow2", backing=base, backing_format="raw")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        facts = await gather(
            [(top, True), (str(own_place / "cd.iso"), False)],
            qemu_binary,
            "x86_64",
            str(shared_cache),
            ports=[("127.0.0.1", port)],
        )
    assert sorted(facts.images) == [base, str(own_place / "cd.iso"), top]
    assert facts.image(top).backing_path == base
    assert not facts.image(str(own_place / "cd.iso")).exists
    assert list(facts.ports_in_use) == [f"tcp/{port}"]
    assert facts.qemu.path == qemu_binary
    assert facts.host is recent_host_facts()


@pytest.mark.qemu
async def test_an_image_that_is_written_is_looked_at_as_a_writer(
    qemu_binary: str, own_place: Path, shared_cache: Path
) -> None:
    base, top = own_place / "base.raw", str(own_place / "top.qcow2")
    await create_image(str(base), image_format="raw", size=1 << 20)
    await create_image(top, image_format="qcow2", backing=str(base), backing_format="raw")
    base.unlink()
    base.mkdir()
    facts = await gather([(str(base), True), (top, True)], qemu_binary, "x86_64", str(shared_cache))
    assert facts.image(str(base)).problem == "it is a directory, not an image"
