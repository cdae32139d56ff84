"""Supervisor and QEMU killed at every step of every verb of network cards: QEMU, plan and what the
card is plugged into agree afterwards, and the same can be done again."""

from __future__ import annotations

from typing import Any

import pytest

from qlaunch.host.ports import port_holder
from tests.prerequisites import require_passt
from tests.rig import Rig, is_alive, nothing_left, until, write_profile
from tests.test_disk_faults import WHOM, cut
from tests.test_nic_cables import card, network_of, nic, passt_of
from tests.test_nic_plug import attach, devices, noted, saved, usernet

pytestmark = [pytest.mark.qemu, pytest.mark.fault]

ATTACH = ("nic: noted", "nic: cable", "nic: plugged", "nic: planned")
# Without it a QEMU that began without a user network may not have one later.
TCP = "security.tcp=true"
CHANGE = ("nic: begun", "nic: applied", "nic: changed")


@pytest.mark.parametrize("whom", WHOM)
@pytest.mark.parametrize("step", ATTACH)
@pytest.mark.parametrize("backend", ["user", "passt"])
def test_an_attach_that_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, free_port: int, backend: str, step: str, whom: str
) -> None:
    require_passt()
    rig.up("demo", TCP)
    before = devices(rig), network_of(rig)
    wish: dict[str, Any] = {"model": "e1000", "backend": backend, "forward": [f"{free_port}:22"]}
    cut(rig, monkeypatch, step + whom, "nic-attach", wish=wish)
    if whom:
        until(lambda: port_holder(free_port, "127.0.0.1") is None, "the port to be free")
        rig.up("demo", TCP)
    until(lambda: rig.row().get("state") == "running", "the machine")
    plugged = not whom and step in ("nic: plugged", "nic: planned")
    until(lambda: saved() == (["net0"] if plugged else []), "plan and QEMU to agree")
    assert not noted() or whom  # what names another QEMU counts for nobody
    if plugged:
        assert "net0-dev" in devices(rig)
        assert port_holder(free_port, "127.0.0.1")
    else:
        assert (devices(rig), network_of(rig)) == before
        until(lambda: port_holder(free_port, "127.0.0.1") is None, "the port to be free")
        assert attach(rig, **wish)["nic"] == "net0"
    passt = passt_of()
    rig.kill()
    until(lambda: not (passt and is_alive(passt)), "passt's end")
    assert nothing_left() == []


@pytest.mark.parametrize("step", CHANGE)
@pytest.mark.parametrize("backend", ["user", "passt"])
def test_a_change_that_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, free_port: int, backend: str, step: str
) -> None:
    require_passt()
    write_profile("demo", card(f'backend = "{backend}"\nforward = ["{free_port}:22"]'))
    rig.up()
    wish = {"link": "down", "forward": []}
    cut(rig, monkeypatch, step, "nic-set", nic="net0", **wish)
    until(lambda: rig.row().get("state") == "running", "the machine")
    until(lambda: not noted(), "the change to be settled")
    done = step == "nic: changed"
    assert nic(rig)["link"] == ("down" if done else "up")
    assert len(nic(rig)["forward"]) == (0 if done else 1)
    until(lambda: bool(port_holder(free_port, "127.0.0.1")) != done, "the port to be as it is said")
    if backend == "user":
        assert (str(free_port) in usernet(rig)) != done
    else:
        assert passt_of()
    assert rig.ask("nic-set", name="demo", nic="net0", **wish)["forward"] == []
    until(lambda: port_holder(free_port, "127.0.0.1") is None, "the port to be free")
    rig.kill()
    assert nothing_left() == []
