"""What this computer offers to the user who asks."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Literal

from qlaunch.facts import HostFacts
from qlaunch.host.firmware import installed_firmware
from qlaunch.host.kvm import kvm_facts
from qlaunch.host.users import user_name


def host_facts() -> HostFacts:
    """This computer as data, in about a millisecond; what cannot be found out is left empty."""
    memory = _meminfo()
    uid = os.geteuid()
    return HostFacts(
        machine_id=_machine_id(),
        user=user_name(uid),
        uid=uid,
        cpus=len(os.sched_getaffinity(0)),
        memory_total=memory.get("MemTotal", 0),
        memory_available=memory.get("MemAvailable", 0),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        kvm=kvm_facts(),
        firmware=installed_firmware(),
        swtpm=shutil.which("swtpm"),
        qemu_img=shutil.which("qemu-img"),
        systemd_scope=systemd_scope(uid),
        bridges=bridges(),
    )


def runtime_directory(uid: int) -> str:
    """Where `uid`'s sockets live, whether it exists or not."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"


def systemd_scope(uid: int) -> Literal["user", "system"] | None:
    """Which systemd can give a machine a scope of its own, None when neither can.

    Root gets the system's: the user manager of root ends with root's last session.
    """
    if shutil.which("systemd-run") is None:
        return None
    if uid == 0 and os.path.isdir("/run/systemd/system"):
        return "system"
    runtime = runtime_directory(uid)
    if _answers(os.path.join(runtime, "systemd/private")):
        return "user"
    # A bus alone does not prove a systemd behind it.
    behind_bus = os.path.isdir(os.path.join(runtime, "systemd"))
    return "user" if behind_bus and _answers(_user_bus(runtime)) else None


def bridges() -> frozenset[str]:
    """The names of this computer's bridges."""
    try:
        names = os.listdir("/sys/class/net")
    except OSError:
        return frozenset()
    return frozenset(name for name in names if os.path.isdir(f"/sys/class/net/{name}/bridge"))


def _user_bus(runtime: str) -> str:
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if address.startswith("unix:path="):
        return address.removeprefix("unix:path=").split(",")[0].split(";")[0]
    return os.path.join(runtime, "bus")


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:  # somebody listens, with a full queue
            return True
        except (OSError, ValueError):
            return False
        return True


def _machine_id() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(path, encoding="ascii") as file:
                return file.read().strip()
        except (OSError, UnicodeDecodeError):
            continue
    return ""


def _meminfo() -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                name, _colon, rest = line.partition(":")
                words = rest.split()
                if len(words) == 2 and words[1] == "kB":
                    found[name] = int(words[0]) * 1024
                if name == "MemAvailable":
                    break
    except (OSError, ValueError):
        pass
    return found
