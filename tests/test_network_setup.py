"""`qlaunch net setup` and `net doctor` on a computer of their own, with systemd and without."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import PYTHON, USER, Lab
from tests.lab.person import Person, until
from tests.prerequisites import find_program, require
from tests.rig import TOP

pytestmark = pytest.mark.systemd

UNIT = "qlaunch-netd.service"
RULES = "/etc/qlaunch/netd.toml"


@pytest.fixture
def root(lab: Lab) -> Iterator[Person]:
    require("netns", find_program("dnsmasq") and find_program("nft"), "no dnsmasq or nft")
    for path in (str(TOP), sys.prefix):
        facts = os.stat(path)
        loose = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        require("root", not facts.st_uid and not loose, f"{path} is not root's alone")
    person = Person(lab, root=True)
    yield person
    person.qlaunch("net", "setup", "--remove", "--force", check=False)
    person.run("rm", "-rf", "/etc/qlaunch", "/etc/firewalld", "/var/lib/qlaunch-netd")
    person.run("nft", "flush", "ruleset")


def as_user(lab: Lab, *words: str, check: bool = True) -> Any:
    done = Person(lab, root=False).qlaunch(*words, "--json", check=check)
    return json.loads(done.stdout)


def state(root: Person, unit: str = UNIT) -> str:
    return root.run("systemctl", "is-active", unit, check=False).stdout.strip()


def main_pid(root: Person) -> str:
    return root.run("systemctl", "show", "--value", "--property=MainPID", UNIT).stdout.strip()


def test_systemd_starts_the_service_when_somebody_asks(lab: Lab, root: Person) -> None:
    assert "only root can set" in as_user(lab, "net", "setup", check=False)["error"]["message"]
    shown = root.ask("net", "setup", "--stdout", "--user", USER)["files"]
    assert root.run("ls", RULES, check=False).returncode
    done = root.ask("net", "setup", "--user", USER)
    assert (done["service"], sorted(done["wrote"])) == ("systemd", sorted(shown))
    assert root.run("cat", RULES).stdout == shown[RULES]
    verify = root.run("systemd-analyze", "--man=no", "verify", UNIT)
    assert (verify.stdout, verify.stderr) == ("", "")
    # It is asked by whom it is for, makes the network, and lives in its sandbox.
    root.run("systemctl", "stop", UNIT)
    assert as_user(lab, "net", "list")["networks"][0]["service"] == "netd"
    assert state(root) == "active"
    assert root.ask("net", "up", "default")["networks"][0]["network"]["address"]
    pid = int(root.run("sh", "-c", "cat /run/qlaunch-netd/dns/default/pid").stdout)
    # dnsmasq and the network outlive it, and a kill.
    root.run("systemctl", "restart", UNIT)
    root.run("kill", "-KILL", main_pid(root))
    until(lambda: state(root) == "active")
    assert root.ask("net", "plan")["steps"] == []
    assert int(root.run("sh", "-c", "cat /run/qlaunch-netd/dns/default/pid").stdout) == pid
    # Again: nothing new, and somebody more.
    assert RULES not in root.ask("net", "setup", "--user", USER)["wrote"]
    root.ask("net", "setup", "--group", "staff", "--network", "lab")
    assert 'groups = ["staff"]\nnetworks = ["lab"]\n' in root.run("cat", RULES).stdout
    refused = root.qlaunch("net", "setup", "--group", "staff", "--network", "dmz", check=False)
    assert refused.returncode == 5
    assert "staff says already what staff may use" in refused.stderr
    # And away with it.
    root.qlaunch("net", "setup", "--remove")
    assert root.run("ip", "-json", "link", "show", "type", "bridge").stdout.strip() == "[]"
    assert root.run("ls", f"/etc/systemd/system/{UNIT}", check=False).returncode
    assert state(root) == "inactive"
    until(lambda: lab.is_gone(pid))


def test_without_systemd_it_is_a_process(lab: Lab, root: Person) -> None:
    done = root.ask("net", "setup", "--no-systemd", "--user", USER)
    assert done["service"] == "direct"
    assert as_user(lab, "net", "list")["networks"][0]["service"] == "netd"
    root.ask("net", "setup", "--no-systemd")  # once more is no other one
    assert len(root.run("pgrep", "-f", "qlaunch.network.netd").stdout.split()) == 1
    root.ask("net", "up", "default")
    root.qlaunch("net", "setup", "--remove")
    until(lambda: not root.run("pgrep", "-f", "qlaunch.network.netd", check=False).stdout)
    assert root.run("nft", "list", "ruleset").stdout == ""


def test_root_runs_no_program_that_others_can_change(lab: Lab, root: Person) -> None:
    root.run("cp", "-r", "/srv/qlaunch/qlaunch", "/srv/root/qlaunch")
    root.run("chmod", "g+w", "/srv/root/qlaunch/network")
    root.run("chown", "-R", USER, "/srv/root/qlaunch")
    environ = {"PYTHONPATH": "/srv/root"}
    done = root.run(PYTHON, "-P", "-m", "qlaunch", "net", "setup", environ=environ, check=False)
    assert done.returncode == 6
    assert "others than root can change /srv/root/qlaunch" in done.stderr
    assert root.run("ls", RULES, check=False).returncode


def warnings(root: Person, *words: str) -> dict[str, str]:
    """What is in the way, by its topic."""
    done = root.qlaunch("net", "doctor", "--json", *words, check=False)
    checks = json.loads(done.stdout)["checks"]
    return {check["topic"]: check["message"] for check in checks if check["level"] == "warn"}


def test_neighbours_are_found_and_the_doors_that_there_are_opened(lab: Lab, root: Person) -> None:
    root.ask("net", "setup", "--no-systemd", "--user", USER)
    root.ask("net", "up", "default")
    assert warnings(root) == {}
    assert "root's network service answers; you may use: default" in str(
        as_user(lab, "net", "doctor")
    )
    # As Docker leaves it where it has switched forwarding on.
    root.run(
        "nft",
        "add table ip filter; add chain ip filter DOCKER-USER;"
        " add chain ip filter FORWARD"
        " { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }",
    )
    assert "Docker drops what guests forward" in warnings(root)["docker"]
    assert "docker" not in warnings(root, "--mend")
    assert warnings(root) == {}
    assert 'iifname "ql-*" counter' in root.run("nft", "list", "table", "ip", "filter").stdout
    root.run("nft", "delete table ip filter")
    # As firewalld does, and somebody's own table.
    root.run("nft", "add table inet firewalld; add chain inet firewalld filter_INPUT"
             " { type filter hook input priority 10; policy accept; reject; }")  # fmt: skip
    assert "firewalld does not know our bridges" in warnings(root)["firewalld"]
    assert warnings(root, "--mend") == {}
    assert "ql-+" in root.run("cat", "/etc/firewalld/zones/qlaunch.xml").stdout
    root.run("nft", "add table inet mine; add chain inet mine in"
             " { type filter hook input priority 0; policy drop; }")  # fmt: skip
    assert "the chain inet mine in drops" in warnings(root)["firewall"]
    root.run("sh", "-c", "mkdir -p /etc/ufw; echo ENABLED=yes >/etc/ufw/ufw.conf")
    root.run("nft", "add table ip filter; add chain ip filter INPUT"
             " { type filter hook input priority 0; policy drop; }")  # fmt: skip
    assert "ufw drops" in warnings(root)["ufw"]
    root.run("rm", "-r", "/etc/ufw")
    root.run("nft", "flush ruleset")
    # A subnet that somebody else has too, and a resolver on all addresses.
    root.run(
        "sh",
        "-c",
        "ip link add virbr0 type bridge; ip link set virbr0 up;"
        " ip address add $(ip -o -4 address show ql-default | awk '{print $4}') dev virbr0",
    )
    assert "virbr0 have one subnet" in warnings(root)["subnet"]
    root.run("ip", "link", "delete", "virbr0")
