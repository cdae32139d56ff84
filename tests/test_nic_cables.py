"""Cables of network cards in real machines: QEMU's user network, passt, none; link up and down."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from qlaunch.errors import ConflictError
from qlaunch.host.ports import port_holder
from qlaunch.store import machines
from tests.prerequisites import both_qemus, require_passt
from tests.rig import Rig, end, is_alive, nothing_left, until, write_profile

pytestmark = pytest.mark.qemu


def card(words: str = "", ident: str = "net0") -> str:
    return f'[[nic]]\nid = "{ident}"\nmodel = "e1000"\n{words}\n'


def passt_card(port: int) -> str:
    require_passt()
    return card(f'backend = "passt"\nforward = ["{port}:22"]')


def passt_of(name: str = "demo", ident: str = "net0") -> int:
    """The process of the card's passt, as it is noted; 0 when there is none."""
    record = machines.load_run(name)
    return int(record.passts[ident]["pid"]) if record and ident in record.passts else 0


def network_of(rig: Rig, name: str = "demo") -> str:
    """What QEMU says of its cables."""
    return str(rig.ask("hmp", name=name, line="info network")["text"])


def is_connected(rig: Rig) -> bool:
    """Whether QEMU has a passt (7.2 says `unix:`, 10.0 `fd:` or `unix:`)."""
    line = next(line for line in network_of(rig).splitlines() if "type=stream" in line)
    return not line.endswith("stream,") and "listening" not in line


def nic(rig: Rig, ident: str = "net0") -> Any:
    return next(each for each in rig.ask("status", name="demo")["nics"] if each["id"] == ident)


@both_qemus
def test_a_card_on_passt(rig: Rig, qemu_binary: str, free_port: int) -> None:
    write_profile("demo", passt_card(free_port))
    rig.up("demo", f"machine.emulator={qemu_binary}")
    assert rig.row()["network"] == ["passt"]
    assert nic(rig)["forward"] == [f"tcp:127.0.0.1:{free_port}:22"]
    passt = passt_of()
    assert f"(pid {passt})" in (port_holder(free_port, "127.0.0.1") or "")
    until(lambda: is_connected(rig), "QEMU and passt to be connected")
    # Killed, it is replaced, and has the same port.
    end(passt)
    until(lambda: passt_of() not in (0, passt), "another passt")
    until(lambda: is_connected(rig), "QEMU and the other passt to be connected")
    assert f"(pid {passt_of()})" in (port_holder(free_port, "127.0.0.1") or "")
    # A supervisor that comes later knows it, and brings one where it has ended meanwhile.
    passt = passt_of()
    rig.kill_supervisor()
    assert rig.row()["state"] == "running"
    assert passt_of() == passt
    rig.kill_supervisor()
    end(passt)
    assert rig.row()["state"] == "running"
    assert passt_of() not in (0, passt)
    passt = passt_of()
    rig.ask("kill", name="demo")
    until(lambda: not is_alive(passt), "passt's end")
    assert nothing_left("demo") == []


def test_a_port_that_passt_cannot_have(rig: Rig, free_port: int) -> None:
    write_profile("demo", passt_card(free_port))
    with socket.create_server(("127.0.0.1", free_port)), pytest.raises(ConflictError) as caught:
        rig.up("demo")
    assert f"port {free_port} is taken by" in caught.value.message
    assert nothing_left("demo") == []


@both_qemus
def test_a_cable_that_is_out_at_the_start(rig: Rig, qemu_binary: str) -> None:
    write_profile("demo", card('link = "down"') + card(ident="net1"))
    rig.up("demo", f"machine.emulator={qemu_binary}")
    assert (nic(rig)["link"], nic(rig, "net1")["link"]) == ("down", "up")
    plan = machines.load_plan("demo")
    assert plan is not None
    assert [each.link for each in plan.nics] == ["down", "up"]
