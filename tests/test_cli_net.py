"""`qlaunch net`: the networks of a real service in namespaces, their files, and what is printed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qlaunch.network.client import SOCKET_VARIABLE
from tests.definitions import at_terminal, qlaunch
from tests.netlab import Lab
from tests.rig import TOP

pytestmark = pytest.mark.netns

NAT = 'mode = "nat"\ntitle = "The lab"\naddress = "192.168.150.1/24"\nipv6 = "fd00:150::1/64"\n'


@pytest.fixture
def lab(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with Lab.opened(own_place) as here:
        monkeypatch.setenv(SOCKET_VARIABLE, here.socket)
        here.start()
        yield here


def test_networks_are_made_looked_at_and_taken_down(lab: Lab) -> None:
    lab.network("lab", NAT)
    assert qlaunch("net", "list").out.split("\n")[1].split()[:3] == ["lab", "down", "nat"]
    planned = qlaunch("net", "plan", "lab").out.splitlines()
    assert planned[0] == "make the bridge ql-lab"
    assert lab.host.link("ql-lab") is None
    done = qlaunch("net", "up", "lab", "-v")
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines()[:-1] == [f"  {line}" for line in planned]
    assert done.err.splitlines()[-1] == f"lab is up on 192.168.150.1/24 ({len(planned)} steps)"
    assert qlaunch("net", "up", "lab").err == "lab is up on 192.168.150.1/24 (nothing to do)\n"
    assert qlaunch("net", "plan").err == "there is nothing to do\n"
    alpha = lab.guest("alpha")
    alpha.lease()
    header, row = qlaunch("net", "list").out.splitlines()
    assert " ".join(header.split()) == "NETWORK STATE MODE BRIDGE ADDRESS NICS SERVICE TITLE"
    assert row.split()[:7] == ["lab", "up", "nat", "ql-lab", "192.168.150.1/24", "1", "netd"]
    lease = qlaunch("net", "leases", "lab").out.splitlines()[1].split()
    assert lease[:6] == ["lab", alpha.attached.ipv4, alpha.mac, "alpha", "alpha", "net0"]
    assert qlaunch("net", "leases", "--json").json["leases"][0]["machine"] == "alpha"
    shown = qlaunch("net", "show", "lab").out
    assert "192.168.150.1/24" in shown
    assert alpha.mac in shown
    found = qlaunch("net", "show", "lab", "--json").json
    assert (found["service"], found["state"]["nics"]) == ("netd", 1)
    done = qlaunch("net", "down", "lab")
    assert (done.status, done.err.splitlines()[1]) == (5, "  hint: --force takes it away from them")
    done = qlaunch("net", "down", "lab", "--force", "--json")
    assert done.json["networks"][0]["steps"][-1].endswith("as it was before")
    assert lab.host.link("ql-lab") is None


def test_a_network_is_written_changed_and_removed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("--address", "10.3.0.1/24", "--range", "10.3.0.50-10.3.0.99", "--domain", "test")
    done = qlaunch("net", "create", "lab", "--ipv6", "none", *words, "--up")
    assert done.status == 0, done.err
    path = lab.place / "networks" / "lab.toml"
    assert path.read_text(encoding="utf-8") == (
        "schema = 1\n"
        'mode = "nat"              # guests reach the outside behind this computer\'s address\n'
        'address = "10.3.0.1/24"   # this computer\'s own in it\n'
        'ipv6 = "none"\n\n'
        '[dhcp]\nrange = "10.3.0.50-10.3.0.99" # what guests may get\n\n'
        '[dns]\ndomain = "test"           # what follows the names of guests\n'
    )
    alpha = lab.guest("alpha")
    assert alpha.lease().startswith("10.3.0.")
    assert alpha.resolve("alpha.test", "10.3.0.1") == alpha.attached.ipv4
    again = qlaunch("net", "create", "lab")
    assert (again.status, "exists already; it is not replaced" in again.err) == (5, True)
    wrong = qlaunch("net", "create", "Lab")
    assert (wrong.status, "is no name for a network" in wrong.err) == (2, True)
    wrong = qlaunch("net", "create", "other", "--address", "10.3.0.1")
    assert (wrong.status, "address" in wrong.err) == (2, True)
    # Edited, well and badly.
    monkeypatch.setenv("EDITOR", "sed -i s/10.3.0.99/10.3.0.60/")
    assert qlaunch("net", "edit", "lab").status == 0
    assert "10.3.0.50-10.3.0.60" in path.read_text(encoding="utf-8")
    assert qlaunch("net", "plan", "lab").out == "restart dnsmasq for lab\n"
    monkeypatch.setenv("EDITOR", "sed -i s/nat/nut/")
    done = qlaunch("net", "edit", "lab")
    assert (done.status, "'nut'" in done.err) == (2, True)
    assert "nut" not in path.read_text(encoding="utf-8")
    # Removed, with its machines asked for, and the person.
    assert qlaunch("net", "rm", "lab").status == 6
    assert qlaunch("net", "rm", "lab", "--yes").status == 5
    assert path.exists()
    done = at_terminal("y\n", "net", "rm", "lab", "--force")
    assert (done.status, path.exists()) == (0, False)
    assert lab.host.link("ql-lab") is None


def test_names_that_are_none_and_a_file_that_is_wrong(lab: Lab) -> None:
    lab.network("lab", NAT)
    lab.network("wrong", 'mode = "nut"')
    done = qlaunch("net", "up", "lob")
    assert (done.status, "did you mean 'lab'?" in done.err) == (4, True)
    done = qlaunch("net", "up", "wrong", "lab")
    assert (done.status, lab.host.link("ql-lab") is not None) == (2, True)
    done = qlaunch("net", "list")
    assert "wrong    broken" in done.out
    assert "'nut'" in done.err
    assert qlaunch("net", "show", "lob").status == 4
    assert qlaunch("net", "show", "wrong", "--json").json["state"]["state"] == "broken"


def test_without_a_service_it_is_said_how_there_is_one(lab: Lab) -> None:
    lab.stop()
    done = qlaunch("net", "up", "default")
    assert done.status == 1
    assert "the network service does not run" in done.err
    assert "qlaunch net setup" in done.err
    assert qlaunch("net", "list").out.splitlines()[1].split()[:2] == ["default", "down"]
    assert qlaunch("__networks").out.split() == ["default"]
    # A shipped network is not removed.
    done = qlaunch("net", "rm", "default", "--yes")
    assert (done.status, "came with qlaunch" in done.err) == (6, True)
    assert os.path.exists(TOP / "networks" / "default.toml")
