"""What a test needs from this computer, and what happens when it is not there.

`QLAUNCH_REQUIRE` names markers, with commas between, whose prerequisites must be there: a missing
one is a failure instead of a skip. `all` stands for everything that an installation can bring, and
then no other skip is let through either. `hugepages`, `kvm`, `root` (the tests run as root),
`systemd`, `userns` (not in a chroot) and `users` (not only root may enter /) are properties of the
computer and count only when they are named.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache

import pytest

from qlaunch.cli.web import pages

ORIGINAL_ENVIRON: Mapping[str, str] = dict(os.environ)
OF_THE_COMPUTER = frozenset({"hugepages", "kvm", "root", "systemd", "userns", "users"})

_KVM_CREATE_VM = 0xAE01
_PROBE_TIMEOUT = 20.0

both_qemus = pytest.mark.parametrize("qemu_binary", ["qemu", "qemu10"], indirect=True)


def required(marker: str) -> bool:
    words = {word.strip() for word in ORIGINAL_ENVIRON.get("QLAUNCH_REQUIRE", "").split(",")}
    return marker in words or ("all" in words and marker not in OF_THE_COMPUTER)


def require(marker: str, condition: object, reason: str) -> None:
    """Skip the test unless `condition` holds, or fail it where the marker's needs are required."""
    if condition:
        return
    text = f"[{marker}] {reason}"
    if required(marker):
        pytest.fail(f"{text} (QLAUNCH_REQUIRE asks for it; `make test` installs it)", pytrace=False)
    pytest.skip(text)


def require_users() -> None:
    """Skip where nobody but root may enter `/`: there another user reaches no file at all."""
    require("users", os.stat("/").st_mode & 0o001, "only root may enter / here")


def require_passt() -> None:
    """Skip where there is no passt, or where it cannot lock itself in: in a chroot."""
    require("netns", find_program("passt"), "passt is not installed")
    require_userns()


def require_userns() -> None:
    """Skip where no user namespace can be made: in a chroot, in some containers."""
    require("userns", _makes_userns(), "no user namespace can be made here, as in a chroot")


@cache
def _makes_userns() -> bool:
    return _succeeds("unshare", "--user", "true")


def may_skip(reason: str) -> bool:
    """Whether a skip for this reason stands where `QLAUNCH_REQUIRE=all`."""
    return any(f"[{marker}]" in reason for marker in OF_THE_COMPUTER if not required(marker))


def find_program(name: str) -> str | None:
    """The path of a program, also for users whose PATH has no sbin."""
    path = ORIGINAL_ENVIRON.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return shutil.which(name, path=path)


@cache
def kernel() -> str | None:
    """The newest Linux kernel in /boot that this user may read."""
    images = [path for path in glob.glob("/boot/vmlinuz-*") if os.access(path, os.R_OK)]
    return max(images, key=os.path.getmtime, default=None)


@cache
def qemu() -> str | None:
    return find_program("qemu-system-x86_64")


@cache
def qemu10() -> str | None:
    """QEMU 10 beside the installed one: see tools/fetch-qemu10."""
    home = ORIGINAL_ENVIRON.get("HOME", "/")
    cache_home = ORIGINAL_ENVIRON.get("XDG_CACHE_HOME") or f"{home}/.cache"
    default = f"{cache_home}/qlaunch-test/qemu10/qemu-system-x86_64"
    path = ORIGINAL_ENVIRON.get("QLAUNCH_QEMU10") or default
    return path if os.access(path, os.X_OK) else None


def _succeeds(*command: str) -> bool:
    if find_program(command[0]) is None:
        return False
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, timeout=_PROBE_TIMEOUT, env=ORIGINAL_ENVIRON
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _no_qemu() -> str:
    return "" if qemu() else "qemu-system-x86_64 is not installed"


def _no_kvm() -> str:
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    try:
        os.close(fcntl.ioctl(device, _KVM_CREATE_VM, 0))
    except OSError as error:
        return f"/dev/kvm makes no machine: {error.strerror}"
    finally:
        os.close(device)
    return ""


def _no_guest() -> str:
    if kernel() is None:
        return "no readable kernel in /boot"
    words = ("busybox", "cpio", "genisoimage", "ldd", "qemu-ga")
    missing = [word for word in words if not find_program(word)]
    return f"not installed: {', '.join(missing)}" if missing else _no_qemu()


def _no_netns() -> str:
    private = ("unshare", "--net", "--map-root-user") if os.getuid() else ("unshare", "--net")
    if find_program("ip") is None:
        return "ip (iproute2) is not installed"
    made = _succeeds(*private, "ip", "link", "add", "name", "ql-probe", "type", "bridge")
    return "" if made else "no bridge can be made in a network namespace of our own"


def _no_spice() -> str:
    folders = ("/usr/lib/*/qemu", "/usr/lib/qemu", "/usr/lib64/qemu", "/usr/lib64/qemu-kvm")
    if not any(glob.glob(f"{folder}/ui-spice-core.so") for folder in folders):
        return "QEMU's SPICE module (ui-spice-core.so) is not installed"
    words = (
        "Xvfb", "aplay", "openbox", "remote-viewer", "spice-vdagentd", "usbredirect", "xclip",
        "xkbcomp", "xrandr",
    )  # fmt: skip
    missing = [word for word in words if not find_program(word)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    client = "import gi; gi.require_version('SpiceClientGLib', '2.0')"
    if not _succeeds("/usr/bin/python3", "-c", client):
        return "not installed: gir1.2-spiceclientglib-2.0, python3-gi"
    return ""


def _no_web() -> str:
    if not find_program("chromium") and not find_program("chromium-browser"):
        return "chromium is not installed"
    there = any(os.path.isfile(f"{folder}/core/rfb.js") for folder in pages.NOVNC)
    return "" if there else "noVNC is not there (tools/fetch-novnc)"


def _no_systemd() -> str:
    if os.getuid():
        return "only root can boot a systemd of its own"
    programs = ("systemd-run", "systemctl", "unshare", "nsenter", "setpriv", "pivot_root", "ip")
    missing = [word for word in programs if not find_program(word)]
    if not find_program("dbus-daemon") and not find_program("dbus-broker"):
        missing.append("dbus-daemon")
    return f"not installed: {', '.join(missing)}" if missing else _no_qemu()


_PROBES: Mapping[str, Callable[[], str]] = {
    "qemu": _no_qemu,
    "kvm": _no_kvm,
    "guest": _no_guest,
    "netns": _no_netns,
    "spice": _no_spice,
    "systemd": _no_systemd,
    "web": _no_web,
}


@cache
def missing(marker: str) -> str:
    """What this computer lacks for tests with `marker`: a reason, or nothing."""
    probe = _PROBES.get(marker)
    return probe() if probe else ""


def require_markers(item: pytest.Item) -> None:
    for marker in item.iter_markers():
        require(marker.name, not missing(marker.name), missing(marker.name))
