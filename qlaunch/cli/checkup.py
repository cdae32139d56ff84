"""What `qlaunch doctor` looks at: one function a topic, each answer with what mends it."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Iterator

from qlaunch import __version__, units
from qlaunch.cli import definitions
from qlaunch.cli.check_lines import FAIL, OK, WARN, Check
from qlaunch.cli.checkup_systemd import systemd_checks
from qlaunch.cli.packages import install
from qlaunch.control import client
from qlaunch.errors import QlaunchError
from qlaunch.facts import HostFacts, QemuFacts
from qlaunch.host import landlock
from qlaunch.host.access import free_space, mount_point
from qlaunch.host.computer import host_facts
from qlaunch.host.probe import find_qemu, probe_qemu
from qlaunch.host.userfault import DEVICE, by_device, by_syscall
from qlaunch.machine.names import interrupted_renames
from qlaunch.store import paths

ASK_TIMEOUT = 2.0
OLDEST_QEMU = (7, 2, 0)
LITTLE_SPACE = 1 << 30
# What each is good for, and the device that shows that this QEMU has it.
_DEVICES = (
    ("virtio", "virtio-blk-pci", "fast disks and network cards", "qemu"),
    ("qxl", "qxl-vga", "the SPICE graphics card", "spice"),
    ("usb-redir", "usb-redir", "USB sticks of a SPICE client", "spice"),
)


def checks() -> Iterator[Check]:
    """Look at everything, in the order in which a machine needs it."""
    host = host_facts()
    yield from _qemu()
    yield _qemu_img(host)
    yield from _kvm(host)
    yield _landlock()
    yield _live_memory()
    yield from _firmware(host)
    yield _program(host.swtpm, "swtpm", "swtpm", "guests with a TPM (Windows 11)")
    yield _viewer()
    yield from _folders()
    yield from definitions.wait_for(systemd_checks(host))
    yield Check(
        level=OK,
        topic="python",
        message=f"qlaunch {__version__}, Python {sys.version.split(maxsplit=1)[0]}",
    )
    yield _supervisor()
    yield from _unfinished()


def _qemu() -> Iterator[Check]:
    try:
        path = find_qemu("x86_64", None)
        qemu = definitions.wait_for(probe_qemu(path, paths.cache_dir()))
    except QlaunchError as error:
        yield Check(level=FAIL, topic="qemu", message=error.message, hint=install("qemu"))
        return
    old = qemu.version < OLDEST_QEMU
    yield Check(
        level=WARN if old else OK,
        topic="qemu",
        message=f"QEMU {qemu.version_text}: {path}"
        + ("; qlaunch is made for 7.2 and newer" if old else ""),
        hint="upgrade QEMU" if old else None,
    )
    yield from _abilities(qemu)


def _abilities(qemu: QemuFacts) -> Iterator[Check]:
    has = {"spice": (qemu.has_spice, "a screen with clipboard, sound and USB", "spice")}
    has |= {name: (dev in qemu.devices, use, pack) for name, dev, use, pack in _DEVICES}
    there = [name for name, (good, _use, _package) in has.items() if good]
    if there:
        yield Check(level=OK, topic="qemu", message=f"this QEMU has {', '.join(there)}")
    for name, (good, use, package) in has.items():
        if not good:
            yield Check(
                level=WARN,
                topic=name,
                message=f"this QEMU has no {name}: {use}",
                hint=install(package),
            )


def _landlock() -> Check:
    version = landlock.abi()
    level = OK if version >= landlock.TCP else WARN
    hint = None
    if not version:
        message = (
            "this kernel has no Landlock: QEMU is confined by seccomp alone, and may open every"
        )
        message += " file that you may"
        hint = (
            "add landlock to the kernel's lsm= parameter (`cat /sys/kernel/security/lsm` shows it)"
        )
    else:
        message = f"Landlock (ABI {version}) keeps QEMU to its machine's files"
        if version < landlock.FULL_FILES:
            message += "; it does not see to truncating (Linux 6.2) nor to TCP (Linux 6.7)"
        elif version < landlock.TCP:
            message += "; it does not see to TCP (Linux 6.7)"
        else:
            message += " and off TCP"
    return Check(level=level, topic="sandbox", message=message, hint=hint)


def _live_memory() -> Check:
    if by_syscall():
        message, level, hint = "snapshots take the memory while the guest runs", OK, None
    elif by_device():
        message = "snapshots take the memory while the guest runs, with QEMU 8.0 or newer"
        level, hint = OK, None
    else:
        message = "snapshots stop the guest while its memory is saved: no userfaultfd for you"
        level = WARN
        hint = (
            "sudo sysctl -w vm.unprivileged_userfaultfd=1 (in /etc/sysctl.d/ for good); QEMU 8.0"
            f' and newer need only a udev rule: KERNEL=="userfaultfd", MODE="0666" ({DEVICE})'
        )
    return Check(level=level, topic="memory", message=message, hint=hint)


def _qemu_img(host: HostFacts) -> Check:
    if host.qemu_img:
        return Check(level=OK, topic="qemu-img", message=f"qemu-img: {host.qemu_img}")
    message = "there is no qemu-img: disks cannot be made"
    return Check(level=FAIL, topic="qemu-img", message=message, hint=install("qemu-img"))


def _kvm(host: HostFacts) -> Iterator[Check]:
    kvm = host.kvm
    if not kvm.usable:
        message = f"KVM: {kvm.problem}; guests are emulated, which is slow"
        yield Check(level=WARN, topic="kvm", message=message, hint=kvm.hint)
        return
    message = f"KVM: /dev/kvm opens, up to {kvm.max_vcpus} virtual processors"
    yield Check(level=OK, topic="kvm", message=message)
    if not kvm.smm:
        yield Check(
            level=WARN,
            topic="smm",
            message="this KVM has no system management mode: Secure Boot needs it",
            hint='for such guests: secure_boot = false, or accel = "tcg" (slow)',
        )


def _firmware(host: HostFacts) -> Iterator[Check]:
    usable = [each for each in host.firmware if "x86_64" in each.architectures]
    secure = [each for each in usable if {"secure-boot", "enrolled-keys"} <= each.features]
    if not usable:
        message = "no UEFI firmware is installed; guests with a BIOS do not need it"
        yield Check(level=WARN, topic="uefi", message=message, hint=install("uefi"))
        return
    count = definitions.counted(len(usable), "UEFI firmware")
    yield Check(level=OK, topic="uefi", message=f"{count} for x86_64, {len(secure)} with keys")
    if not secure:
        yield Check(
            level=WARN,
            topic="secure-boot",
            message="none of them has Secure Boot with enrolled keys (Windows 11)",
            hint=install("uefi"),
        )


def _program(path: str | None, name: str, package: str, use: str) -> Check:
    if path:
        return Check(level=OK, topic=name, message=f"{name}: {path}")
    message = f"there is no {name}: {use} cannot start"
    return Check(level=WARN, topic=name, message=message, hint=install(package))


def _viewer() -> Check:
    for name in ("remote-viewer", "spicy"):
        if path := shutil.which(name):
            return Check(level=OK, topic="viewer", message=f"viewer: {path}")
    message = "there is no viewer: `qlaunch view` has nothing to show a screen with"
    return Check(level=WARN, topic="viewer", message=message, hint=install("viewer"))


def _folders() -> Iterator[Check]:
    yield from _runtime()
    for what, path in (
        ("profiles", paths.config_dir()),
        ("disks", paths.data_dir()),
        ("state", paths.state_dir()),
        ("cache", paths.cache_dir()),
    ):
        yield _folder(what, path)


def _runtime() -> Iterator[Check]:
    path = paths.runtime_dir()
    if not os.path.lexists(path):
        yield _folder("sockets", path)
        return
    facts = os.lstat(path)
    if facts.st_uid != os.getuid() or not os.path.isdir(path) or os.path.islink(path):
        yield Check(
            level=FAIL,
            topic="sockets",
            message=f"sockets: {path} is no folder of yours",
            hint="export XDG_RUNTIME_DIR=a folder of yours, such as /run/user/$(id -u)",
        )
        return
    yield _folder("sockets", path)


def _folder(what: str, path: str) -> Check:
    """Whether `path`, or where it would be made, takes files."""
    there = path
    while not os.path.lexists(there) and there != "/":
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        user = pwd.getpwuid(os.geteuid()).pw_name if _has_name() else str(os.geteuid())
        return Check(
            level=FAIL,
            topic=what,
            message=f"{what}: {user} may not write in {there}",
            hint=f"sudo chown {user} {there}",
        )
    space = free_space(there) or 0
    message = f"{what}: {path}, {units.short_size(space)} free"
    if what in ("disks", "state") and space < LITTLE_SPACE:
        hint = f"free some space on {mount_point(there)}"
        return Check(level=WARN, topic=what, message=message, hint=hint)
    return Check(level=OK, topic=what, message=message)


def _has_name() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _supervisor() -> Check:
    def line(level: str, message: str, hint: str | None = None) -> Check:
        return Check(level=level, topic="supervisor", message=f"supervisor: {message}", hint=hint)

    try:
        connection = client.connect()
        if connection is None:
            return line(OK, "none runs; `qlaunch up` starts one")
        with connection:
            connection.socket.settimeout(ASK_TIMEOUT)
            status = connection.ask("supervisor", {"action": "status"})
    except TimeoutError:
        return line(FAIL, f"does not answer within {ASK_TIMEOUT:g} s", _RESTART)
    except (QlaunchError, OSError, ValueError, KeyError) as error:
        return line(FAIL, str(error), _RESTART)
    version = status.get("version") if isinstance(status, dict) else None
    if version != __version__:
        told = f"is qlaunch {version}, this is {__version__}"
        return line(WARN, told, "qlaunch supervisor restart (machines run on)")
    return line(OK, f"qlaunch {version}, pid {status.get('pid')}")


_RESTART = "end its process; machines run on, and the next command finds them"


def _unfinished() -> Iterator[Check]:
    for old, new in interrupted_renames().items():
        yield Check(
            level=WARN,
            topic="rename",
            message=f"renaming {old} to {new} was interrupted",
            hint=f"qlaunch rename {old} {new}",
        )
