"""Namespaces of the user's own: a user and a network namespace, made, held, entered.

In it the user keeps its number and has every capability; outside it has none. Its number stays the
same because dnsmasq, as root, insists on changing groups, which such a namespace forbids.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import struct
import sys

from qlaunch.errors import HostError
from qlaunch.host.pidfd import ProcessId
from qlaunch.network import nft

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_CAP_AMBIENT, _AMBIENT_RAISE = 1, 47, 2
_CAP_VERSION = 0x20080522
# What dnsmasq and nft need: CAP_NET_BIND_SERVICE, CAP_NET_BROADCAST, CAP_NET_ADMIN, CAP_NET_RAW.
_KEPT = (10, 11, 12, 13)
_TUNSETIFF, _TAP = 0x400454CA, 0x1002
_libc = ctypes.CDLL(None, use_errno=True)


def make() -> ProcessId:
    """Make the two namespaces and a process that holds them, also when we are gone.

    Raises: HostError with what forbids it.
    """
    sleep = shutil.which("sleep")
    if sleep is None:
        raise HostError("the program sleep is not installed", hint="apt install coreutils")
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become_holder(sleep, theirs)
    os.close(theirs)
    with open(ours, "rb") as said:
        words = said.read().decode(errors="replace")
    if words:
        os.waitpid(pid, 0)
        raise HostError(f"no network without root: {words}", hint=_hint())
    return ProcessId.of(pid)


def _become_holder(sleep: str, tell: int) -> None:
    """The new process: says what went wrong, or nothing and becomes `sleep`."""
    try:
        os.setsid()
        unshare()
        _check_tap()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.execv(sleep, ["sleep", "infinity"])
    except OSError as error:
        os.write(tell, (error.strerror or str(error)).encode())
    finally:
        os._exit(1)


def unshare() -> None:
    """Put this process, which must have one thread, into namespaces of its own. Raises: OSError."""
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        handle = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)


def _check_tap() -> None:
    """See that a TAP can be made: an AppArmor profile may let a namespace be made and then allow
    nothing in it. Raises: OSError."""
    import fcntl

    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", b"ql-probe", _TAP))
    finally:
        os.close(handle)


def problem() -> str:
    """Why this user can have no networks of its own, nothing when it can; this process is in
    namespaces of its own then."""
    if not nft.is_there():
        return "nftables is not installed (apt install nftables)"
    try:
        unshare()
        _check_tap()
    except OSError as error:
        hint = _hint()
        return f"{error.strerror} ({hint})" if hint else str(error.strerror)
    return ""


def _hint() -> str | None:
    """Which switch of this kernel forbids it, and how it is set."""
    for name, bad in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
    ):
        try:
            with open(f"/proc/sys/{name}", encoding="ascii") as file:
                if file.read().strip() == bad:
                    value = {"0": "1", "1": "0"}[bad] if "max" not in name else "10000"
                    return f"sudo sysctl {name.replace('/', '.')}={value}"
        except OSError:
            continue
    return None


def enter(pid: int) -> None:
    """Put this process, which must have one thread, into the namespaces of `pid`; programs that it
    starts have what it takes to make networks, too. Raises: OSError."""
    handles = [
        os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("user", "net")
    ]
    try:
        for handle, kind in zip(handles, (_CLONE_NEWUSER, _CLONE_NEWNET), strict=True):
            _check(_libc.setns(handle, kind))
    finally:
        for handle in handles:
            os.close(handle)
    _pass_on()


def _pass_on() -> None:
    """Have the capabilities survive an exec. Raises: OSError."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAP_VERSION, 0))
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data))
    low = list(struct.unpack("=6I", data.raw[:24]))
    low[2] |= sum(1 << each for each in _KEPT)  # inheritable, of the first 32
    _check(_libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *low))))
    for each in _KEPT:
        _check(_libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, each, 0, 0))


def end_with_parent() -> None:
    """Have this process end when the one that started it does. Raises: OSError."""
    parent = os.getppid()
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.stdout.write(problem())
