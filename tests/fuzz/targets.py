"""The parsers, each with good input to begin with and what it may raise."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import frozen

from qlaunch import records, units
from qlaunch.control import words
from qlaunch.errors import QlaunchError
from qlaunch.facts import ImageFacts
from qlaunch.host.qcow2 import ImageError, parse_header, read_header
from qlaunch.host.qcow2_snapshots import read_internal
from qlaunch.host.qcow2_write import create_overlay
from qlaunch.libvirt.domain import import_domain
from qlaunch.libvirt.xml import read as read_xml
from qlaunch.network.dnsmasq import parse_leases
from qlaunch.plan.forwards import Forward
from qlaunch.plan.model import Leases, Plan
from qlaunch.plan.usb_filter import Rule, for_client, for_qemu
from qlaunch.profile.load import loads
from qlaunch.profile.network_load import loads_network
from qlaunch.qmp.hostile import read_object
from qlaunch.store import files
from qlaunch.store.machines import RunRecord
from qlaunch.tree.model import TIMELINE_VERSION, Merge, Saved, Snapshot, Timeline

TOP = Path(__file__).parents[2]
REFUSED = (QlaunchError, ValueError)


@frozen
class Target:
    """`run` gets the input; it may raise what is in `refused`."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    refused: tuple[type[Exception], ...] = (QlaunchError,)


def _files(pattern: str) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(TOP.glob(pattern))]


def _profile(data: bytes) -> None:
    loads(data, "/nowhere/a.toml")


def _overrides(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    loads(b'schema = 1\nguest = "other"\n', "/nowhere/a.toml", overrides=text.split("\n"))


def _network(data: bytes) -> None:
    loads_network(data, "/nowhere/a.toml")


def _xml(data: bytes) -> None:
    import_domain(read_xml(data, "a.xml"), "a.xml")


def _qcow2(data: bytes) -> ImageFacts | object:
    return parse_header(data, len(data))


def _snapshots(data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        read_header(file.fileno(), len(data))
        read_internal(file.fileno())


def _image_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.qcow2")
        create_overlay(path, size=1 << 30, backing="b.qcow2", backing_format="qcow2")
        plain = Path(path).read_bytes()[:4096]
    with_table = bytearray(plain.ljust(8192, b"\0"))
    struct.pack_into(">IQ", with_table, 60, 1, 4096)  # one snapshot, its table at 4096
    entry = struct.pack(">QIHHIIQII", 65536, 1, 1, 4, 1, 2, 3, 0, 16) + bytes(16) + b"1" + b"name"
    with_table[4096 : 4096 + len(entry)] = entry
    return [plain, bytes(with_table)]


def _state(data: bytes) -> None:
    """A state file: it is read, or set aside."""
    with tempfile.TemporaryDirectory(prefix="ql-fuzz-") as folder:
        path = os.path.join(folder, "a.json")
        Path(path).write_bytes(data)
        for cls in (Timeline, Leases, RunRecord, Plan):
            files.load_record(cls, path, TIMELINE_VERSION)
            if not os.path.exists(path):
                Path(path).write_bytes(data)


def _state_seeds() -> list[bytes]:
    timeline = Timeline(
        heads={"disk0": "a.snap1.qcow2"},
        snapshots=(Snapshot(id=1, name="one", layers={"disk0": "a.qcow2"}, marks={"d": (1, 2)}),),
        owned={"disk0": ("a.snap1.qcow2",)},
        merges=(Merge(disk="disk0", ghost="a", child="b", way="push"),),
        saved=Saved(when=1.5, heads={"disk0": "a"}),
    )
    found = (timeline, Leases(), RunRecord(started=1.0))
    return [json.dumps(records.to_plain(each)).encode() for each in found]


def _requests(data: bytes) -> None:
    for line in io.BytesIO(data):
        words.decode_request(line)


def _agent(data: bytes) -> None:
    read_object(data)


def _units(data: bytes) -> None:
    text = data.decode("latin-1")
    for parse in (units.parse_size, units.parse_duration, Forward.parse):
        try:
            parse(text)
        except REFUSED:
            continue


# As dnsmasq 2.89 writes them, IPv6 below its own line.
LEASES = (
    b"1790000000 52:54:00:12:34:56 192.0.2.17 xp 01:52:54:00:12:34:56\n"
    b"1790000001 52:54:00:12:34:57 192.0.2.18 * *\n"
    b"duid 00:01:00:01:2a:3b:4c:5d:52:54:00:12:34:56\n"
    b"1790000002 1234567 2001:db8::5 xp 00:01:00:01:2a:3b\n"
)


def _leases(data: bytes) -> None:
    for lease in parse_leases("lab", data):
        assert lease.address.isprintable()
        assert lease.hostname.isprintable()
        assert lease.expires >= 0


def _usb(data: bytes) -> None:
    text = data.decode("latin-1")
    Rule.parse(text)
    # One rule stays one rule, for the viewer and for QEMU.
    assert for_client([text]).count("|") == 0
    assert for_qemu([text]).count("|") == 0


TARGETS: Mapping[str, Target] = {
    "profile": Target(_profile, _files("profiles/*.toml")),
    "override": Target(_overrides, lambda: [b"cpu.count=2\ndisk.a.size=1GiB"]),
    "network": Target(_network, _files("networks/*.toml")),
    "xml": Target(_xml, _files("tests/domains/*.xml")),
    "qcow2": Target(_qcow2, _image_seeds, (QlaunchError, ImageError)),
    "snapshots": Target(_snapshots, _image_seeds, (QlaunchError, ImageError)),
    "state": Target(_state, _state_seeds),
    "request": Target(_requests, lambda: [words.request("up", {"profile": "/a.toml", "set": []})]),
    "agent": Target(_agent, lambda: [b'{"return": {"a": [1, {"b": "c"}], "d": null}}'], REFUSED),
    "units": Target(_units, lambda: [b"1.5GiB", b"2min", b"tcp:127.0.0.1:80:80", b"udp:[::1]:5:5"]),
    "leases": Target(_leases, lambda: [LEASES]),
    "usb": Target(_usb, lambda: [b"allow 1234:5678", b"deny storage", b"allow *"], REFUSED),
}  # fmt: skip
