"""Builds the guest's initial RAM disk from what Debian installs; nothing is downloaded."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests import prerequisites

HERE = Path(__file__).parent
# Scripts of ours in /bin of the guest; the kernel starts /init.
SCRIPTS = ("ask", "net-up", "shutdown", "start-agent", "udhcpc-script")
# Drivers by folder, in the order in which they are loaded, each with what it depends on. `init`
# says when: a floppy driver without a controller looks for one for eight seconds.
DRIVERS = {
    "base": "virtio_pci virtio_blk virtio_console i6300esb pvpanic-mmio button evdev",
    "more": (
        "virtio_net virtio_scsi virtio-rng virtio_balloon ahci ata_piix sd_mod sr_mod nvme"
        " xhci_pci ehci_pci uhci_hcd usb-storage usbhid hid-generic 9p 9pnet_virtio isofs 8139cp"
    ),
    "floppy": "floppy",
}


@contextmanager
def built() -> Iterator[Path]:
    """The initial RAM disk, as a file that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ql-guest-", dir="/tmp") as folder:
        root, target = Path(folder, "root"), Path(folder, "initrd.img")
        _lay_out(root)
        _pack(root, target)
        shutil.rmtree(root)
        yield target


@contextmanager
def extended(
    base: Path,
    *programs: str,
    scripts: Iterable[str] = (),
    trees: Iterable[str] = (),
    drivers: str = "",
    files: Mapping[str, bytes] | None = None,
) -> Iterator[Path]:
    """The same with more in it: programs of this computer with their libraries and our `scripts`,
    all in /bin, whole folders of this computer, drivers (`load-more` loads them), and `files` by
    their path. A file that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ql-guest-", dir="/tmp") as folder:
        root, target, more = Path(folder, "root"), Path(folder, "initrd.img"), Path(folder, "more")
        (root / "bin").mkdir(parents=True)
        for name in programs:
            _install(root, _program(name))
        for name in scripts:
            _copy(name, root / "bin" / name)
        for tree in trees:
            shutil.copytree(tree, root / tree.lstrip("/"))
        if drivers:
            _place_drivers(root, "extra", drivers, set())
            _copy("load-more", root / "bin/load-more")
        for path, data in (files or {}).items():
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (root / path.lstrip("/")).write_bytes(data)
        _pack(root, more)
        # The kernel unpacks one archive after the other.
        target.write_bytes(base.read_bytes() + more.read_bytes())
        shutil.rmtree(root)
        more.unlink()
        yield target


def iso(path: Path, files: Mapping[str, str]) -> None:
    """Make an ISO image that holds `files`, text by name."""
    with tempfile.TemporaryDirectory(prefix="ql-iso-", dir="/tmp") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        subprocess.run(
            [_program("genisoimage"), "-quiet", "-rational-rock", "-output", str(path), folder],
            check=True,
        )


def _lay_out(root: Path) -> None:
    for name in ("bin", "dev", "etc/acpi/PWRF", "proc", "sys", "root"):
        (root / name).mkdir(parents=True)
    for link in ("sbin", "usr/bin", "usr/sbin"):
        (root / link).parent.mkdir(exist_ok=True)
        (root / link).symlink_to("/bin")
    _copy("init", root / "init")
    for script in SCRIPTS:
        _copy(script, root / "bin" / script)
    # What busybox's acpid runs when the power button is pressed.
    (root / "etc/acpi/PWRF/00000080").symlink_to("/bin/shutdown")
    _install_busybox(root)
    _install(root, _program("qemu-ga"))
    _install_drivers(root)


def _copy(name: str, target: Path) -> None:
    target.write_bytes((HERE / name).read_bytes())
    target.chmod(0o755)


def _install_busybox(root: Path) -> None:
    busybox = _program("busybox")
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.check_output([busybox, "--list"], text=True).split():
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")


def _install(root: Path, program: str) -> None:
    """A program of this computer, with the libraries that it needs."""
    shutil.copy(program, root / "bin" / os.path.basename(program))
    libraries = subprocess.check_output(["ldd", program], text=True, env={"LC_ALL": "C"})
    for path in re.findall(r"(?:=>\s+|^\s+)(/\S+) \(0x", libraries, re.MULTILINE):
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _install_drivers(root: Path) -> None:
    placed: set[str] = set()
    for group, names in DRIVERS.items():
        _place_drivers(root, group, names, placed)


def _place_drivers(root: Path, group: str, names: str, placed: set[str]) -> None:
    """Copy the drivers, unpacked, as /modules/FOLDER/00-NAME.ko and on: `insmod` in that order
    works."""
    kernel = prerequisites.kernel()
    assert kernel
    folder = Path("/lib/modules", os.path.basename(kernel).removeprefix("vmlinuz-"))
    needs = _dependencies(folder / "modules.dep")
    paths = {_module(path): path for path in needs}
    (root / "modules" / group).mkdir(parents=True)
    for name in names.split():
        path = paths.get(_module(name))  # none: built into this kernel
        for each in (*reversed(needs[path]), path) if path else ():
            if each not in placed:
                target = f"modules/{group}/{len(placed):02}-{_module(each)}.ko"
                (root / target).write_bytes(_unpacked(folder / each))
                placed.add(each)


def _dependencies(file: Path) -> dict[str, list[str]]:
    lines = (line.split(":") for line in file.read_text(encoding="utf-8").splitlines())
    return {path: needs.split() for path, needs in lines}


def _module(path: str) -> str:
    return os.path.basename(path).partition(".")[0].replace("-", "_")


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc"], input=data, check=True, capture_output=True).stdout
    return data


def _pack(root: Path, target: Path) -> None:
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    with target.open("wb") as file:
        # Not compressed: an emulated processor would need longer for that than QEMU for reading.
        subprocess.run(
            ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet"],
            cwd=root,
            input="\n".join(names).encode(),
            stdout=file,
            check=True,
        )


def _program(name: str) -> str:
    path = prerequisites.find_program(name)
    assert path, f"{name} is not installed"
    return path
