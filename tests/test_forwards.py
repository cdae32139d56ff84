"""Port forwards listed, added and removed, of machines that run and that do not."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from qlaunch.errors import ConflictError, NotFoundError, QlaunchError, RefusedError, UsageError
from qlaunch.host.ports import port_holder
from tests.prerequisites import both_qemus, require_passt
from tests.rig import Rig, until, write_profile
from tests.test_nic_cables import card, is_connected, nic, passt_of

pytestmark = pytest.mark.qemu


def forward(rig: Rig, *texts: str, **args: Any) -> dict[str, Any]:
    answer: dict[str, Any] = rig.ask("forward", name="demo", forwards=list(texts), **args)
    return answer


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["forward"] for row in rows]


@pytest.fixture
def ports() -> list[int]:
    """Three TCP ports of 127.0.0.1 that nobody has at the moment."""
    probes = [socket.socket() for _ in range(3)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found


@both_qemus
def test_of_a_running_machine_on_the_user_network(
    rig: Rig, qemu_binary: str, ports: list[int]
) -> None:
    path = Path(write_profile("demo", card(f'# mine\nforward = ["{ports[0]}:22"]')))
    before = path.read_text(encoding="utf-8")
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    assert names(forward(rig)["forwards"]) == [f"tcp:127.0.0.1:{ports[0]}:22"]
    done = forward(rig, f"{ports[1]}:80", f"udp:{ports[1]}:53")
    assert names(done["added"]) == [f"tcp:127.0.0.1:{ports[1]}:80", f"udp:127.0.0.1:{ports[1]}:53"]
    assert (done["added"][0]["by"], done["persistent"]) == ("qemu", False)
    with socket.create_connection(("127.0.0.1", ports[1])):
        pass
    assert "qemu" in (port_holder(ports[1], "127.0.0.1") or "")
    assert forward(rig, f"{ports[1]}:80")["added"] == []  # so already
    assert path.read_text(encoding="utf-8") == before
    # A port alone means whatever is there, and a protocol less than that.
    assert len(forward(rig, f"udp:{ports[1]}", remove=True)["removed"]) == 1
    assert names(forward(rig, str(ports[1]), remove=True)["removed"]) == [
        f"tcp:127.0.0.1:{ports[1]}:80"
    ]
    assert port_holder(ports[1], "127.0.0.1") is None
    assert forward(rig, f"{ports[2]}:80", persist=True)["persistent"]
    assert forward(rig, f"{ports[0]}:22", remove=True, persist=True)["persistent"]
    assert f'# mine\nforward = ["{ports[2]}:80"]' in path.read_text(encoding="utf-8")
    rig.kill()
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    assert nic(rig)["forward"] == [f"tcp:127.0.0.1:{ports[2]}:80"]


@both_qemus
def test_of_a_running_machine_on_passt(rig: Rig, qemu_binary: str, ports: list[int]) -> None:
    require_passt()
    write_profile("demo", card('backend = "passt"'))
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    done = forward(rig, f"{ports[0]}:22")
    assert done["added"][0]["by"] == "passt"
    assert "connections of the guest were cut" in done["warnings"][0]
    assert f"(pid {passt_of()})" in (port_holder(ports[0], "127.0.0.1") or "")
    until(lambda: is_connected(rig), "QEMU and the other passt to be connected")
    forward(rig, str(ports[0]), remove=True)
    assert port_holder(ports[0], "127.0.0.1") is None


def test_of_a_machine_that_does_not_run(rig: Rig, ports: list[int]) -> None:
    path = Path(write_profile("demo", card("# none yet")))
    before = path.read_text(encoding="utf-8")
    assert forward(rig)["forwards"] == []
    done = forward(rig, f"{ports[0]}:22", "9100-9102:80-82")
    assert (done["persistent"], done["state"], len(done["added"])) == (True, "stopped", 4)
    said = path.read_text(encoding="utf-8")
    assert "# none yet" in said
    assert len(forward(rig)["forwards"]) == 4
    assert len(forward(rig, "9101", str(ports[0]), remove=True)["removed"]) == 2
    forward(rig, "9100", "9102", remove=True)
    assert path.read_text(encoding="utf-8").split() == before.split()


def test_what_cannot_be_is_refused_in_words(rig: Rig, ports: list[int]) -> None:
    write_profile("demo", card(f'forward = ["{ports[0]}:22"]') + card('backend = "none"', "net1"))
    rig.up()
    cases: list[tuple[type[QlaunchError], str, tuple[str, ...], dict[str, Any]]] = [
        (UsageError, "remove which", (), {"remove": True}),
        (UsageError, "is not", ("80",), {}),
        (UsageError, "not of the same length", ("80-82:80-81",), {}),
        (NotFoundError, "has no forward '99'", ("99",), {"remove": True}),
        (NotFoundError, "no network card 'net7'", ("8080:80",), {"nic": "net7"}),
        (RefusedError, "no network card with a cable", ("8080:80",), {"nic": "net1"}),
        (RefusedError, "IPv4 only", ("[::1]:8080:80",), {}),
        (ConflictError, "ask for the same port", (f"0.0.0.0:{ports[0]}:80",), {}),
    ]
    for kind, words, texts, args in cases:
        with pytest.raises(kind, match=words):
            forward(rig, *texts, **args)
    with socket.create_server(("127.0.0.1", ports[1])):
        with pytest.raises(ConflictError, match=f"port {ports[1]} is taken by python"):
            forward(rig, f"{ports[2]}:1", f"{ports[1]}:80")
    assert port_holder(ports[2], "127.0.0.1") is None
    assert names(forward(rig)["forwards"]) == [f"tcp:127.0.0.1:{ports[0]}:22"]
