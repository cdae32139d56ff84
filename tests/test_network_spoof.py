"""What a guest may not claim: each kind of forged frame from a real card, and who sees it."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.netlab import Guest, Lab
from tests.netspace import Space

pytestmark = pytest.mark.netns

NAT = 'mode = "nat"\naddress = "192.168.150.1/24"\nipv6 = "fd00:150::1/64"\n'
ALL, OTHER = "ff:ff:ff:ff:ff:ff", "52:54:00:99:99:99"
ALL_NODES = "33:33:00:00:00:01"
ETH_P_ALL = 3
# What a card with the filter `mac` may do all the same.
ADDRESSES = {"IPv4", "ARP", "IPv6", "neighbour advertisement"}


@pytest.fixture
def lab(own_place: Path) -> Iterator[Lab]:
    with Lab.opened(own_place) as here:
        here.network("lab", NAT)
        here.start()
        yield here


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, kind: int, data: bytes, to: str = ALL) -> bytes:
    return octets(to) + octets(source) + struct.pack("!H", kind) + data


def four(source: str, sport: int, dport: int, mark: bytes) -> bytes:
    """A datagram to everybody."""
    udp = struct.pack("!HHHH", sport, dport, 8 + len(mark), 0) + mark
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    head += socket.inet_aton(source) + b"\xff" * 4
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + udp


def six(source: str, kind: int, body: bytes) -> bytes:
    """A packet to all nodes; `kind` is 17 for UDP, 58 for ICMPv6."""
    head = struct.pack("!IHBB", 6 << 28, len(body), kind, 255)
    return head + _packed(source) + _packed("ff02::1") + body


def _packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed


def icmp6(kind: int, rest: bytes) -> bytes:
    return struct.pack("!BBHI", kind, 0, 0, 0) + rest


def arp(sender: str, address: str, mark: bytes) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + octets(sender) + socket.inet_aton(address)
    return head + b"\xff" * 6 + socket.inet_aton("192.168.150.1") + mark


def forged(guest: Guest) -> Mapping[str, bytes]:
    """Frames by what they forge, with that word in them as a mark."""
    mac, own = guest.mac, guest.attached.ipv4 or ""
    own6, router = guest.attached.ipv6 or "", "fd00:150::1"

    def mark(word: str) -> bytes:
        return f"<{word}>".encode()

    return {
        "MAC": ethernet(OTHER, 0x800, four(own, 5, 5, mark("MAC"))),
        "IPv4": ethernet(mac, 0x800, four("192.168.150.1", 5, 5, mark("IPv4"))),
        "ARP": ethernet(mac, 0x806, arp(mac, "192.168.150.1", mark("ARP"))),
        "ARP hardware": ethernet(mac, 0x806, arp(OTHER, own, mark("ARP hardware"))),
        "IPv6": ethernet(mac, 0x86DD, six(router, 17, bytes(8) + mark("IPv6")), ALL_NODES),
        "neighbour advertisement": ethernet(
            mac,
            0x86DD,
            six(own6, 58, icmp6(136, _packed(router) + mark("neighbour advertisement"))),
            ALL_NODES,
        ),
        "router": ethernet(
            mac, 0x86DD, six(_link_local(mac), 58, icmp6(134, bytes(8) + mark("router"))), ALL_NODES
        ),
        "DHCP server": ethernet(mac, 0x800, four(own, 67, 68, mark("DHCP server"))),
        "DHCPv6 server": ethernet(
            mac,
            0x86DD,
            six(own6, 17, struct.pack("!HHHH", 547, 546, 23, 0) + mark("DHCPv6 server")),
            ALL_NODES,
        ),
        "other protocol": ethernet(mac, 0x8137, mark("other protocol")),
    }


def _link_local(mac: str) -> str:
    raw = octets(mac)
    return str(
        ipaddress.IPv6Address(
            _packed("fe80::")[:8] + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
        )
    )


def raw(space: Space, link: str) -> socket.socket:
    with space.inside():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((link, ETH_P_ALL))
    sock.settimeout(10)
    return sock


def seen(lab: Lab, sender: Guest, watcher: Guest) -> set[str]:
    """Which forged frames of `sender` come to `watcher` or to this computer."""
    frames = forged(sender)
    good = ethernet(sender.mac, 0x800, four(sender.attached.ipv4 or "", 5, 5, b"<good>"))
    found = set()
    with (
        raw(sender.space, "eth0") as out,
        raw(watcher.space, "eth0") as there,
        raw(lab.host, "ql-lab") as here,
    ):
        for frame in (*frames.values(), good):
            out.send(frame)
        for sock in (there, here):
            heard = b""
            while b"<good>" not in heard:  # the last one: the others have come before it, or never
                heard += sock.recv(2000)
            found |= {word for word in frames if f"<{word}>".encode() in heard}
    return found


def test_a_guest_forges_nothing(lab: Lab) -> None:
    watcher = lab.guest("watcher")
    clean, mac, free = (lab.guest(word, filter=word) for word in ("clean", "mac", "none"))
    assert seen(lab, clean, watcher) == set()
    assert seen(lab, mac, watcher) == ADDRESSES | {"other protocol", "ARP hardware"}
    # Without a filter all of them come: the frames are good ones.
    assert seen(lab, free, watcher) == set(forged(free))
    # A filter that is changed while the guest runs is another one from then on.
    lab.ask("change", machine="none", nic="net0", filter="clean")
    assert seen(lab, free, watcher) == set()


def test_a_guest_becomes_no_root_of_the_spanning_tree(lab: Lab) -> None:
    alpha = lab.guest("alpha")
    best = bytes(2) + octets("02:00:00:00:00:01")
    config = (
        bytes(5) + best + bytes(4) + best + struct.pack("!HHHHH", 1, 0, 20 << 8, 2 << 8, 4 << 8)
    )
    bpdu = b"\x42\x42\x03" + config
    frame = octets("01:80:c2:00:00:00") + octets(alpha.mac) + struct.pack("!H", len(bpdu)) + bpdu
    with raw(lab.host, alpha.attached.ifname) as there, raw(alpha.space, "eth0") as out:
        out.send(frame)
        while bpdu not in there.recv(2000):
            pass
    bridge = lab.host.link("ql-lab")
    assert bridge
    data = bridge["linkinfo"]["info_data"]
    assert data["root_id"] == data["bridge_id"]


def test_what_a_good_guest_does_goes_through(lab: Lab) -> None:
    alpha, beta = lab.guest("alpha"), lab.guest("beta")
    for guest in (alpha, beta):
        guest.lease()
        guest.address6()
    # Addresses that guests of today make up are theirs, too, but for those of others.
    alpha.space.ip("address add fd00:150::abcd/64 dev eth0 nodad")
    with lab.serving(beta.space), lab.serving(lab.outside):
        at6 = beta.attached.ipv6 or ""
        assert lab.fetch(alpha.space, at6, source="fd00:150::abcd") == "hello fd00:150::abcd"
        assert lab.fetch(alpha.space, lab.SERVER6, source="fd00:150::abcd").startswith("hello")
        assert lab.fetch(alpha.space, beta.attached.ipv4 or "").startswith("hello")
    alpha.space.ip("address add 192.168.150.200/24 dev eth0")
    with lab.serving(beta.space):
        alpha.space.ip(f"route replace {beta.attached.ipv4}/32 dev eth0 src 192.168.150.200")
        assert lab.unreached(alpha.space, beta.attached.ipv4 or "")
