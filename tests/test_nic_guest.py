"""Networks as a Linux guest has them: addresses, names, ways out and in, cards that come and go."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qlaunch.network import client
from tests.guest import image
from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, Home, free_port
from tests.netlab import Lab
from tests.prerequisites import find_program, require

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

USER = """\
[ssh]
user = "root"

[[nic]]
id = "net0"
model = "virtio"
"""
LAB = """\
[[nic]]
id = "net0"
model = "virtio"
network = "lab"
forward = ["0.0.0.0:8080:80", "{port}:80"]
"""
NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "none"\n'
OTHER = 'mode = "isolated"\naddress = "192.168.151.1/24"\nipv6 = "none"\n'
WAIT = "for i in $(seq 200); do {0} && break; sleep 0.1; done; {0}"
# One that says a line to everybody, in the guest.
SERVER = "nc -ll -p 80 -e echo hello from the guest >/dev/null 2>&1 &"
LISTENS = "netstat -ltn | grep -q :80"
ASK = "udhcpc -q -n -t 10 -i {} -s /bin/udhcpc-script >/dev/null 2>&1"


def run(home: Home, *words: str) -> str:
    done = home.qlaunch(*words)
    assert done.status == 0, done.err
    return done.out + done.err


@contextmanager
def saying(text: bytes) -> Iterator[int]:
    """A server on loopback that says `text` to the first who comes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(text)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(LIMIT)


def heard(port: int) -> bytes:
    """What is said to who connects to the port of loopback."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
        sock.settimeout(LIMIT)
        found = b""
        while data := sock.recv(100):
            found += data
        return found


@pytest.fixture(scope="module")
def ssh_initrd(guest_initrd: Path) -> Iterator[Path]:
    """The Linux guest's initial RAM disk with an ssh server in it."""
    for word in ("dropbear", "ssh", "ssh-keygen"):
        require("guest", find_program(word), f"not installed: {word}")
    with image.extended(guest_initrd, "dropbear", "dropbearkey") as path:
        yield path


def start_sshd(guest: Guest, place: Path) -> Path:
    """Have the guest let in who has the key that is returned."""
    key = place / "key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=LIMIT
    )
    public = Path(f"{key}.pub").read_text(encoding="utf-8").strip()
    guest.run("echo root:x:0:0:root:/root:/bin/sh >/etc/passwd; echo /bin/sh >/etc/shells")
    guest.run(f"mkdir -p /root/.ssh; echo '{public}' >/root/.ssh/authorized_keys")
    guest.run("dropbearkey -t ed25519 -f /root/hostkey >/dev/null 2>&1; chmod 700 /root /root/.ssh")
    guest.run("dropbear -r /root/hostkey -p 22", LIMIT * 2)
    return key


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_user_network(guest_home: Home, ssh_initrd: Path, machine: str) -> None:
    said = f'type = "{machine}"'
    with Guest(guest_home, ssh_initrd, USER, words="net=1", machine=said) as guest:
        guest.boot()
        assert "10.0.2.15" in guest.run("ip -4 addr show dev eth0")
        with saying(b"hello from outside\n") as port:
            assert guest.run(f"nc 10.0.2.2 {port}") == "hello from outside"
        # A forward, made while it runs.
        port = free_port()
        guest.run(SERVER)
        guest.run(WAIT.format(LISTENS))
        run(guest_home, "forward", "guest", f"{port}:80")
        assert heard(port) == b"hello from the guest\n"
        # The cable out and in again.
        run(guest_home, "nic", "set", "guest", "net0", "link=down")
        guest.run(WAIT.format("[ $(cat /sys/class/net/eth0/carrier) = 0 ]"))
        run(guest_home, "nic", "set", "guest", "net0", "link=up")
        guest.run(WAIT.format("[ $(cat /sys/class/net/eth0/carrier) = 1 ]"))
        # Another card, which goes again.
        run(guest_home, "nic", "attach", "guest", "--mac", "52:54:00:00:00:77")
        guest.run(WAIT.format("[ -d /sys/class/net/eth1 ]"))
        assert guest.run("cat /sys/class/net/eth1/address") == "52:54:00:00:00:77"
        assert "net1" in run(guest_home, "ip", "guest")
        run(guest_home, "nic", "detach", "guest", "net1", "--timeout", "50s")
        guest.run(WAIT.format("[ ! -d /sys/class/net/eth1 ]"))
        assert "net1" not in run(guest_home, "nic", "list", "guest")
        check_ssh(guest_home, guest)


def check_ssh(home: Home, guest: Guest) -> None:
    """By a door and by a forward, to the same guest with the same key."""
    key = start_sshd(guest, home.place)
    known = home.place / "known_hosts"
    options = ["--", "-i", str(key), "-o", f"UserKnownHostsFile={known}"]
    options += ["-o", "BatchMode=yes", "-o", "HashKnownHosts=no"]
    by_door = home.qlaunch("ssh", "guest", *options, "echo", "I am $(id -u)", limit=LIMIT * 2)
    assert by_door.out == "I am 0\n", by_door.err
    assert home.qlaunch("hmp", "guest", "info usernet").out.count("HOST_FORWARD") == 1
    port = free_port()
    run(home, "forward", "guest", f"{port}:22")
    text = run(home, "ssh", "guest", "--print")
    assert f"-p {port}" in text
    assert "-l root 127.0.0.1" in text
    by_forward = home.qlaunch("ssh", "guest", *options, "cat", "/proc/sys/kernel/ostype",
                              limit=LIMIT * 2)  # fmt: skip
    assert by_forward.out == "Linux\n", by_forward.err
    # One key, known by the machine's name.
    assert known.read_text(encoding="utf-8").split()[0] == "qlaunch-guest"
    assert len(known.read_text(encoding="utf-8").splitlines()) == 1


@pytest.fixture
def lab(guest_home: Home) -> Iterator[Lab]:
    with Lab.opened(guest_home.place) as here:
        here.network("lab", NAT + '[dns]\nservers = ["203.0.113.2"]')
        here.network("apart", OTHER)
        guest_home.environment[client.SOCKET_VARIABLE] = here.socket
        here.start()
        yield here


@pytest.mark.netns
def test_a_network_of_ours(guest_home: Home, guest_initrd: Path, lab: Lab) -> None:
    port = free_port()
    said = LAB.format(port=port)
    with Guest(guest_home, guest_initrd, said, words="net=1", machine='type = "pc"') as guest:
        guest.boot()
        address = run(guest_home, "ip", "guest", "--one").strip()
        assert address in guest.run("ip -4 addr show dev eth0")
        assert "reservation, lease" in run(guest_home, "ip", "guest")
        # Names, an echo, and TCP to the outside.
        assert "192.168.150.1" in guest.run("nslookup host.vm 192.168.150.1")
        guest.run(f"ping -c 1 -W 10 {lab.SERVER}")
        with lab.serving(lab.outside):
            assert guest.run(f"nc {lab.SERVER} 80 </dev/null") == f"hello {lab.HOST}"
        # In from outside, from the host, and by the door on loopback.
        guest.run(SERVER)
        guest.run(WAIT.format(LISTENS))
        assert "hello" in lab.fetch(lab.outside, lab.HOST, 8080, seconds=LIMIT)
        assert "hello" in lab.fetch(lab.host, address, 80, seconds=LIMIT)
        assert heard(port) == b"hello from the guest\n"
        # To another network: the guest sees its cable go, and has another address there.
        before = int(guest.run("cat /sys/class/net/eth0/carrier_changes"))
        run(guest_home, "nic", "set", "guest", "net0", "network=apart")
        assert int(guest.run("cat /sys/class/net/eth0/carrier_changes")) >= before + 2
        guest.run("ip addr flush dev eth0")
        guest.run(ASK.format("eth0"))
        assert "192.168.151." in guest.run("ip -4 addr show dev eth0")
        # A second card, on the first network.
        run(guest_home, "nic", "attach", "guest", "--network", "lab", "--model", "rtl8139")
        guest.run(WAIT.format("[ -d /sys/class/net/eth1 ]"))
        guest.run("ip link set eth1 up")
        guest.run(WAIT.format("[ $(cat /sys/class/net/eth1/carrier) = 1 ]"))
        guest.run(ASK.format("eth1"))
        assert "192.168.150." in guest.run("ip -4 addr show dev eth1")
        run(guest_home, "nic", "detach", "guest", "net1", "--timeout", "50s")
        guest.run(WAIT.format("[ ! -d /sys/class/net/eth1 ]"))
        assert [each["nic"] for each in lab.ask("nics")["nics"]] == ["net0"]


def test_cables_stay_as_they_are_over_a_revert(guest_home: Home, guest_initrd: Path) -> None:
    carrier = "[ $(cat /sys/class/net/eth0/carrier) = {} ]"
    disk = '\n[[disk]]\nid = "disk0"\nsize = "16MiB"\n'
    with Guest(
        guest_home, guest_initrd, USER + disk, words="net=1", machine='type = "pc"'
    ) as guest:
        guest.boot()
        run(guest_home, "nic", "set", "guest", "net0", "link=down")
        guest.run(WAIT.format(carrier.format(0)))
        run(guest_home, "snapshot", "create", "guest", "out")
        run(guest_home, "nic", "set", "guest", "net0", "link=up")
        guest.run(WAIT.format(carrier.format(1)))
        run(guest_home, "revert", "guest", "out")
        guest.hang_up()
        guest.run(WAIT.format(carrier.format(1)))
