"""Every kind of machine starts on real QEMUs, and QEMU reports what the plan says."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from qlaunch.argv import Handles, build
from qlaunch.argv.cables import Cable, needs_cable
from qlaunch.facts import Facts, ImageFacts
from qlaunch.host.computer import host_facts
from qlaunch.host.images import create_image
from qlaunch.host.probe import probe_qemu
from qlaunch.plan import Leases, Places, Plan, resolve
from qlaunch.plan.model import Nic
from tests import plans, prerequisites
from tests.machines import CASES, Case
from tests.prerequisites import both_qemus
from tests.taps import tap

TIMEOUT = 20.0


# ---- what a case needs on disk ------------------------------------------------------------------


async def make_files(case: Case, folder: Path) -> dict[str, ImageFacts]:
    """Make the images of `case` in `folder`, lowest first; returned is what is known of them."""
    found = {}
    for name, words in case.files.items():
        what, _, backing = words.partition(" < ")
        path = str(folder / name)
        if what == "kernel":
            shutil.copy(prerequisites.kernel() or "", path)
        image = evolve(plans.RAW, path=path)
        if what == "qcow2":
            below = case.files[backing].split()[0] if backing else None
            base = str(folder / backing) if backing else None
            size = None if backing else 1 << 20
            await create_image(
                path, image_format="qcow2", size=size, backing=base, backing_format=below
            )
            image = evolve(
                image, format="qcow2", backing=base, backing_path=base, backing_format=below
            )
        elif what == "raw":
            Path(path).touch()
            os.truncate(path, 1440 << 10)
        found[path] = image
    for name in case.folders:
        (folder / name).mkdir()
        found[str(folder / name)] = evolve(plans.FOLDER, path=str(folder / name))
    return found


def _own_port(found: re.Match[str]) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f'"{found[1]}{port}-{port + 2}:' if "-" in found[2] else f'"{found[1]}{port}:'


async def plan_for(name: str, binary: str, folder: Path, cache: Path) -> Plan:
    """The plan of a case on this computer and `binary`, with all that it needs on disk."""
    case = CASES[name]
    text = case.text(str(folder))
    # Tests run side by side: no two may ask for one port of this computer.
    text = re.sub(r'"((?:udp:)?[0-9.:]*?)(8010-8012|5353):', _own_port, text)
    images = await make_files(case, folder)
    if "i386" in text and (other := binary.replace("x86_64", "i386")) and os.path.exists(other):
        binary = other
    host = evolve(host_facts(), memory_total=plans.HOST.memory_total, systemd_scope=None)
    facts = Facts(
        qemu=await probe_qemu(binary, str(cache)), host=host, images=images, network=case.network
    )
    places = Places(data=str(folder), state=str(folder), runtime=str(folder / "run"))
    (folder / "run").mkdir()
    wish = plans.profile(text, name=name)
    if "7.2" in (wish.machine.type or "") and facts.qemu.machine(wish.machine.type or "") is None:
        wish = evolve(wish, machine=evolve(wish.machine, type="pc"))
    resolution = resolve(wish, facts, Leases(), places)
    assert resolution.errors == (), plans.findings(resolution)
    for creation in resolution.plan.creations():
        await create_image(
            creation.path,
            image_format=creation.format,
            size=creation.size,
            backing=creation.backing,
            backing_format=creation.backing_format,
            template=creation.template,
            template_format=creation.template_format,
        )
    return resolution.plan


# ---- a conversation with QEMU -------------------------------------------------------------------


class Talk:
    """QMP on one end of a socket pair."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[str]) -> None:
        self._lines = connection.makefile("rw", encoding="utf-8")
        self._process = process

    def read(self) -> Any:
        line = self._lines.readline()
        if not line:
            _, words = self._process.communicate(timeout=TIMEOUT)
            pytest.fail(f"QEMU ended: {words}", pytrace=False)
        return json.loads(line)

    def ask(self, command: str, **arguments: object) -> Any:
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._lines.write(json.dumps({"execute": command, "arguments": named}) + "\n")
        self._lines.flush()
        while True:
            message = self.read()
            if "event" not in message:
                assert "return" in message, (command, named, message)
                return message["return"]

    def get(self, device: str, name: str) -> Any:
        return self.ask("qom-get", path=f"/machine/peripheral/{device}", property=name)


@contextmanager
def started(plan: Plan) -> Iterator[Talk]:
    """QEMU with the command line of `plan` by path, and one more monitor for us."""
    with ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        undo.callback(theirs.close)
        ours.settimeout(TIMEOUT)
        sockets = dict[str, int]()
        if plan.tpm:
            sockets["tpm-chr"] = undo.enter_context(swtpm(plan))
        taken = {nic.id: undo.enter_context(cable(nic)) for nic in plan.nics if needs_cable(nic)}
        handles = Handles(sockets=sockets, cables=taken)
        words = [word for option in build(plan, handles) for word in option]
        words += ["-chardev", f"socket,id=test,fd={theirs.fileno()}"]
        words += ["-mon", "chardev=test,mode=control", "-compat", "deprecated-input=reject"]
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(
                theirs.fileno(),
                *sockets.values(),
                *(int(fd) for each in taken.values() for fd in each.fds),
            ),
            text=True,
        )
        undo.enter_context(process)
        undo.callback(process.kill)
        theirs.close()
        talk = Talk(ours, process)
        talk.read()
        talk.ask("qmp_capabilities")
        yield talk
        talk.ask("quit")
        assert process.wait(TIMEOUT) == 0


@contextmanager
def cable(nic: Nic) -> Iterator[Cable]:
    """A TAP that leads nowhere, or a socket at which no passt comes."""
    if nic.attachment is not None:
        with tap(nic.attachment.queues) as fds:
            yield Cable(fds=tuple(map(str, fds)))
        return
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        yield Cable(fds=(str(listener.fileno()),))


@contextmanager
def swtpm(plan: Plan) -> Iterator[int]:
    """An swtpm; yielded is QEMU's end of the line to it."""
    program = prerequisites.find_program("swtpm")
    prerequisites.require("qemu", program, "swtpm is not installed")
    folder = plan.tpm or ""
    os.mkdir(folder)
    ours, theirs = socket.socketpair()
    number = theirs.fileno()
    argv = [program or "", "socket", "--tpm2", "--tpmstate", f"dir={folder}"]
    argv += ["--ctrl", f"type=unixio,clientfd={number}", "--flags", "startup-none"]
    with ours, subprocess.Popen(argv, pass_fds=[number]) as helper:
        theirs.close()
        try:
            yield ours.fileno()
        finally:
            helper.kill()


# ---- the matrix ---------------------------------------------------------------------------------


@pytest.mark.qemu
@both_qemus
@pytest.mark.parametrize("name", CASES)
async def test_a_real_qemu_starts_and_has_what_the_plan_says(
    name: str, qemu_binary: str, own_place: Path, shared_cache: Path
) -> None:
    folder = own_place / "vm"
    folder.mkdir()
    if CASES[name].spice:
        reason = prerequisites.missing("spice")
        prerequisites.require("spice", not reason, reason)
    plan = await plan_for(name, qemu_binary, folder, shared_cache)
    with started(plan) as talk:
        check_devices(plan, talk)
        check_board(plan, talk)
        check_blocks(plan, talk)
        check_boot_order(plan, talk)


def check_devices(plan: Plan, talk: Talk) -> None:
    """Every device is there by its id, and each with a PCI address is where the plan puts it."""
    listed = talk.ask("qom-list", path="/machine/peripheral")
    there = {entry["name"] for entry in listed} - {"type"}
    assert there == {device.id for device in plan.all_devices()}
    on_root = {
        device["qdev_id"]: (device["slot"], device["function"])
        for bus in talk.ask("query-pci")
        for device in bus["devices"]
        if device["qdev_id"]
    }
    for device in plan.all_devices():
        if "addr" in device.props:
            slot, _, function = str(device.props["addr"]).partition(".")
            numbers = int(slot, 16), int(function or "0", 16)
            assert talk.get(device.id, "addr") == numbers[0] * 8 + numbers[1]
            assert talk.get(device.id, "parent_bus").endswith(f"/{device.props['bus']}")
            if device.id in on_root:
                assert on_root[device.id] == numbers


def check_board(plan: Plan, talk: Talk) -> None:
    assert len(talk.ask("query-cpus-fast")) == plan.board.cpus
    assert talk.ask("query-memory-size-summary")["base-memory"] == plan.board.memory
    labels = {entry["label"] for entry in talk.ask("query-chardev")}
    assert {chardev.id for chardev in plan.chardevs} <= labels
    assert talk.ask("query-uuid")["UUID"] == plan.uuid
    assert talk.ask("query-name")["name"] == plan.name
    assert talk.ask("query-status")["status"] == "prelaunch"
    assert talk.ask("query-kvm")["enabled"] is (plan.board.accel == "kvm")


def check_blocks(plan: Plan, talk: Talk) -> None:
    """The whole node graph is the plan's, and each drive has its own part of it."""
    nodes = {layer.node for layer in plan.layers()} | {layer.file_node for layer in plan.layers()}
    nodes |= {disk.id for disk in plan.disks}
    there = talk.ask("query-named-block-nodes", flat=True)
    assert {node["node-name"] for node in there} == nodes
    assert {node["node-name"] for node in there if node["ro"]} == {
        name for layer in plan.layers() for name in (layer.node, layer.file_node) if layer.read_only
    } | {disk.id for disk in plan.disks if disk.layers[0].read_only}
    inserted = {
        block["inserted"]["node-name"] for block in talk.ask("query-block") if block.get("inserted")
    }
    assert {disk.id for disk in plan.disks} <= inserted
    assert {drive.medium.node for drive in plan.drives if drive.medium} <= inserted


def check_boot_order(plan: Plan, talk: Talk) -> None:
    """The boot indexes are the plan's, and can be changed to those after the first reset."""
    for device in plan.all_devices():
        if "bootindex" in device.props:
            assert talk.get(device.id, "bootindex") == device.props["bootindex"]
    changes = [*((device, -1) for device in plan.boot.later), *plan.boot.later.items()]
    for device_id, index in changes:
        path = f"/machine/peripheral/{device_id}"
        talk.ask("qom-set", path=path, property="bootindex", value=index)
