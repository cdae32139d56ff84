"""What `nic`, `forward` and the others print for people, of real machines."""

from __future__ import annotations

import json
import re

import pytest

from qlaunch.cli.main import main
from qlaunch.errors import RefusedError
from tests.rig import Rig, write_profile
from tests.test_nic_cables import card

pytestmark = pytest.mark.qemu


class Terminal:
    """The program, run in this process."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    def __call__(self, *words: str, status: int = 0) -> str:
        """Run it; what it printed, on both ways."""
        self._captured.readouterr()
        assert main([*words]) == status
        out, err = self._captured.readouterr()
        return out + err


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def test_cards(rig: Rig, say: Terminal, free_port: int) -> None:
    write_profile("demo", card())
    assert re.search(r"net0 +e1000 +52:54:00:\S+ +user +up +- +pci.0 03.0 +-", say(
        "nic", "list", "demo"))  # fmt: skip
    rig.up()
    text = say("nic", "attach", "demo", "--model", "pcnet", "--forward", f"{free_port}:22")
    assert re.match(
        r"demo: net1 is plugged in \(pcnet on user, 52:54:\S+\), until it is stop", text
    )
    assert f"tcp:127.0.0.1:{free_port}:22" in say("nic", "list", "demo")
    assert say("nic", "set", "demo", "net1", "link=down") == "demo: net1 has link=down now\n"
    listed = json.loads(say("nic", "list", "demo", "--json"))
    assert [each["link"] for each in listed["nics"]] == ["up", "down"]
    text = say("nic", "detach", "demo", "net1", "--timeout", "0s", status=7)
    assert "has not let go of net1" in text
    assert "nothing that can be set" in say("nic", "set", "demo", "net1", "mac=1", status=2)
    assert "no network card" in say("nic", "set", "demo", "net9", "link=up", status=4)


def test_forwards(rig: Rig, say: Terminal, free_port: int) -> None:
    write_profile("demo", card())
    assert "has no forward" in say("forward", "demo")
    rig.up()
    said = say("forward", "demo", f"{free_port}:80")
    assert said == f"demo: 127.0.0.1:{free_port} leads to port 80 of the guest now\n"
    assert re.search(rf"127.0.0.1:{free_port} +tcp +80 +net0 +qemu", say("forward", "demo"))
    answer = json.loads(say("forward", "demo", str(free_port), "--remove", "--json"))
    assert [each["port"] for each in answer["removed"]] == [free_port]
    assert "no such" not in say("forward", "demo")
    assert "has no forward" in say("forward", "demo", "1", "--remove", status=4)


def test_addresses(rig: Rig, say: Terminal) -> None:
    assert "nobody" in say("ip", "nobody", status=4)
    write_profile("demo", card())
    assert "is not running" in say("ip", "demo", status=5)
    rig.up()
    text = say("ip", "demo")
    assert re.search(r"net0 +10.0.2.15 +user network +user +52:54", text)
    assert "reached by forwards only" in text
    assert say("ip", "demo", "--one") == "10.0.2.15\n"
    assert json.loads(say("ip", "demo", "--json"))["nics"][0]["direct"] is False
    say("nic", "attach", "demo", "--backend", "none", "--model", "e1000")
    assert "net1" not in say("ip", "demo")


def test_the_way_to_log_in(rig: Rig, say: Terminal, free_port: int) -> None:
    write_profile("demo", '[ssh]\nuser = "root"\nport = 2022\n' + card())
    rig.up()
    answer = json.loads(say("ssh", "demo", "--json", "--", "-A", "uptime"))
    assert (answer["way"], answer["argv"][-3:]) == ("door", ["demo", "-A", "uptime"])
    assert "HostKeyAlias=qlaunch-demo" in answer["argv"]
    say("forward", "demo", f"{free_port}:2022")
    text = say("ssh", "demo", "--print", "--user", "me", "echo", "a b")
    assert text.startswith(f"ssh -p {free_port} -o HostKeyAlias=qlaunch-demo ")
    assert text.endswith("-l me 127.0.0.1 echo 'a b'\n")
    assert "door" in say("ssh", "demo", "--json", "--way", "door")
    assert "no way to its port 2022 by address" in say("ssh", "demo", "--way", "address", status=4)
    assert "no port" in say("ssh", "demo", "--port", "70000", status=2)
    rig.kill()
    write_profile("demo", card('backend = "none"'))
    rig.up()
    assert "nothing leads to port 22" in say("ssh", "demo", status=6)
    with pytest.raises(RefusedError, match="no card of it can be connected to"):
        rig.ask("dial", name="demo", port=22)
