"""A QEMU that is started stopped, from a command line of anybody's, and says what it is."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

PATIENCE = 30.0
# A place whose time is no whole number of hours from UTC: local time shows.
_ZONE = "Asia/Kathmandu"
# What of a device the guest can see. Ids, backends and threads are the host's affair.
_SEEN = (
    "addr", "port", "unit", "scsi-id", "lun", "channel", "nr", "name", "serial", "mac",
    "bootindex", "firstport", "lost_tick_policy", "index", "chassis", "max_outputs", "ram_size",
    "vram_size", "vgamem_mb", "vram64_size_mb", "cad", "fallback", "physical_block_size",
    "logical_block_size", "write-cache", "p2", "p3", "guid", "disable_s3", "disable_s4",
    "isa_bootindex", "bootindexA", "bootindexB", "tag", "mount_tag", "multifunction",
)  # fmt: skip


_OF_KVM = re.compile(r"[+-]?(hv[-_]|kvm[-_]|kvm(=|$)|migratable)")
_FLASH = re.compile(r'(?=.*"driver": ?"file")(?=.*"node-name": ?"([^"]*pflash|firmware|nvram))')
_MONITORS = re.compile(r"(^|,)id=(charmonitor|qmp|monitor),")


def runnable(argv: Iterable[str], folder: Path) -> list[str]:
    """The command line without what ties it to a host: ports, descriptors, secrets, KVM."""
    return [word for option in _options(argv) for word in _tame(option, folder)]


def _options(argv: Iterable[str]) -> Iterator[list[str]]:
    option: list[str] = []
    for word in argv:
        if option and word.startswith("-"):
            yield option
            option = []
        option.append(word)
    yield option


def _tame(option: list[str], folder: Path) -> list[str]:
    name, value = option[0], option[1] if len(option) > 1 else ""
    match name:
        case "-enable-kvm" | "-accel":
            return ["-accel", "tcg"]
        case "-cpu":
            model, *rest = value.split(",")
            kept = [word for word in rest if not _OF_KVM.match(word)]
            return ["-cpu", ",".join([{"host": "max"}.get(model, model), *kept])]
        case "-mon" | "-add-fd" | "-qmp" | "-kernel" | "-initrd" | "-append":
            return []
        case "-display":
            return ["-display", "none"]
        case "-device" if '"virtio-vga-gl"' in value:
            return ["-device", value.replace("virtio-vga-gl", "virtio-vga")]
        case "-blockdev" if _FLASH.search(value):
            # The firmware and its variables need not be here.
            plain = json.loads(value)
            flash = folder / plain["node-name"]
            flash.parent.mkdir(exist_ok=True)
            flash.write_bytes(bytes(1 << 20))
            return ["-blockdev", json.dumps({**plain, "filename": str(flash)})]
        case "-object" if '"secret"' in value:
            return []
        case "-netdev":
            plain = json.loads(value)
            return ["-netdev", f"user,id={plain['id']}"]
        case "-spice":
            return ["-spice", f"unix=on,addr={folder}/spice,disable-ticketing=on"]
        case "-vnc":
            return ["-vnc", "none"]
        case "-chardev":
            return [] if _MONITORS.search(value) else ["-chardev", _chardev(value)]
        case "-fsdev":
            return ["-fsdev", re.sub(r"path=[^,]*", f"path={folder}", value)]
    return option


def _chardev(value: str) -> str:
    """A backend with nobody at its other end; only SPICE's are the guest's business."""
    kind, _, rest = value.partition(",")
    ident = re.search(r"(?:^|,)id=([^,]+)", rest)
    if kind in ("spicevmc", "spiceport") or ident is None:
        return value
    return f"null,id={ident[1]}"


def of_kvm(argv: Iterable[str]) -> tuple[str, ...]:
    """What the processor has of KVM and Hyper-V, which QEMU takes with KVM only."""
    words = [option[1] for option in _options(argv) if option[0] == "-cpu"]
    found = set()
    for word in words[-1].split(",")[1:] if words else ():
        if _OF_KVM.match(word) and not word.startswith("migratable"):
            name, _, value = word.lstrip("+-").partition("=")
            value = value or ("off" if word.startswith("-") else "on")
            found.add(f"{name.replace('_', '-')}={value}")
    return tuple(sorted(found))


@frozen
class Machine:
    """What a QEMU says of itself."""

    devices: tuple[str, ...]
    pci: tuple[str, ...]
    block: tuple[str, ...]
    memory: int
    cpus: tuple[str, ...]
    cpu: dict[str, str]
    chardevs: tuple[str, ...]
    uuid: str
    clock: int

    def facts(self) -> dict[str, Any]:
        return {
            "devices": self.devices,
            "query-pci": self.pci,
            "block": self.block,
            "memory": self.memory,
            "cpus": self.cpus,
            "cpu": tuple(f"{name}: {value}" for name, value in sorted(self.cpu.items())),
            "chardevs": self.chardevs,
            "uuid": self.uuid,
        }


def ask(argv: list[str], folder: Path) -> Machine:
    """Start QEMU with `argv`, ask it everything, and end it.

    Raises: RuntimeError with QEMU's words when it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "qmp"))
    listener.listen(1)
    listener.setblocking(False)
    words = [*argv, "-chardev", f"socket,id=asked,fd={listener.fileno()},server=on,wait=off"]
    process = subprocess.Popen(
        [*words, "-mon", "chardev=asked,mode=control"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[listener.fileno()],
        env={"PATH": os.environ["PATH"], "TZ": _ZONE, "HOME": str(folder)},
        cwd=folder,
    )
    listener.close()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(folder / "qmp"))
            return _Asker(client).machine()
    except (OSError, EOFError) as error:
        process.kill()
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace").strip()
        raise RuntimeError(f"QEMU: {said[-2000:] or error}") from error
    finally:
        process.kill()
        process.communicate()


class _Asker:
    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._stream = client.makefile("rb")
        self._answer()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        plain = {"execute": command, "arguments": arguments}
        self._client.sendall(json.dumps(plain).encode() + b"\n")
        reply = self._answer()
        if "error" in reply:
            raise RuntimeError(f"{command}: {reply['error']['desc']}")
        return reply["return"]

    def _answer(self) -> Any:
        while line := self._stream.readline():
            plain = json.loads(line)
            if "event" not in plain:
                return plain
        raise EOFError("QEMU has ended")

    def machine(self) -> Machine:
        tree = self.ask("human-monitor-command", **{"command-line": "info qtree"})
        memory = self.ask("query-memory-size-summary")
        return Machine(
            devices=tuple(sorted(_devices(tree))),
            pci=tuple(sorted(_pci(self.ask("query-pci")))),
            block=tuple(sorted(_blocks(self.ask("query-block")))),
            memory=memory["base-memory"],
            cpus=tuple(f"{cpu['props']}" for cpu in self.ask("query-cpus-fast")),
            cpu=self._cpu(),
            chardevs=tuple(sorted(_chardevs(self.ask("query-chardev")))),
            uuid=self.ask("query-uuid")["UUID"],
            clock=self._clock(),
        )

    def _cpu(self) -> dict[str, str]:
        path = self.ask("query-cpus-fast")[0]["qom-path"]
        found = {"type": str(self.ask("qom-get", path=path, property="type"))}
        words = self.ask("qom-get", path=path, property="feature-words")
        for word in words:
            number = word.get("cpuid-input-ecx", 0)
            key = f"{word['cpuid-input-eax']:#x}.{number}.{word['cpuid-register']}"
            found[key] = hex(word["features"])
        for name in ("vendor", "family", "model", "stepping", "model-id"):
            found[name] = str(self.ask("qom-get", path=path, property=name))
        return found

    def _clock(self) -> int:
        """How far the guest's clock is from UTC, in seconds."""
        when = self.ask("qom-get", path="/machine", property="rtc-time")
        now = (
            when["tm_year"] + 1900, when["tm_mon"] + 1, when["tm_mday"],
            when["tm_hour"], when["tm_min"], when["tm_sec"], 0, 0, 0,
        )  # fmt: skip
        import calendar

        return round((calendar.timegm(now) - time.time()) / 60) * 60


# ---- reading the answers ------------------------------------------------------------------------


def _devices(tree: str) -> Iterator[str]:
    """Every device of `info qtree` with the bus it sits on and what the guest sees of it."""
    stack: list[tuple[int, str]] = []
    device: list[str] | None = None
    where = ""
    for line in tree.splitlines():
        indent, text = len(line) - len(line.lstrip()), line.strip()
        if text.startswith(("dev:", "bus:")):
            if device is not None:
                yield f"{where}: {' '.join(device)}"
            device = None
            while stack and stack[-1][0] >= indent:
                stack.pop()
            if text.startswith("dev:"):
                where = "/".join(name for _indent, name in stack)
                device = [text[5:].split(",")[0]]
                stack.append((indent, device[0]))
            else:
                stack.append((indent, ""))
        elif text.startswith("type ") and stack:
            stack[-1] = (stack[-1][0], text[5:])
        elif device is not None:
            device += _property(text)
    if device is not None:
        yield f"{where}: {' '.join(device)}"


def _property(text: str) -> list[str]:
    name, equals, value = text.partition(" = ")
    if equals and name in _SEEN and value not in ('""', "<null>"):
        value = value.split(" (")[0]
        # Write-back is what `auto` comes to, unless the block node says otherwise.
        if name == "write-cache" and value == '"auto"':
            value = '"on"'
        return [f"{name}={value}"]
    if text.startswith("class "):
        found = re.search(r"pci id (\S+) \(sub (\S+)\)", text)
        return [f"pci={found[1]}/{found[2]}"] if found else []
    return []


def _pci(buses: list[dict[str, Any]]) -> Iterator[str]:
    for bus in buses:
        for device in bus["devices"]:
            ident = device["id"]
            address = f"{device['bus']:02x}:{device['slot']:02x}.{device['function']}"
            yield f"{address} {ident['vendor']:04x}:{ident['device']:04x}"


def _blocks(found: list[dict[str, Any]]) -> Iterator[str]:
    for each in found:
        if not each.get("qdev") and not each.get("inserted"):
            continue
        inserted = each.get("inserted")
        what = "empty"
        if inserted:
            what = f"{'ro' if inserted['ro'] else 'rw'} {inserted['image']['virtual-size']}"
        yield f"removable={each['removable']} {what}"


def _chardevs(found: list[dict[str, Any]]) -> Iterator[str]:
    for each in found:
        kind = each["filename"].partition(":")[0]
        if each["label"] not in ("asked", "compat_monitor0", "parallel0"):
            yield f"{kind} {'open' if each['frontend-open'] else ''}".strip()
