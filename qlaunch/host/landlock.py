"""Landlock: the kernel keeps a program to the files and the network that it was promised.

Rights bind the thread that asks and its children, so they are put on a helper thread that starts
the program and ends: this process stays as free as it was. The numbers are those of
linux/landlock.h; see landlock(7).
"""

from __future__ import annotations

import os
import select
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from qlaunch.errors import HostError
from qlaunch.facts.confinement import Confinement

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_ABI_1 = (1 << 13) - 1
_MAKE_NODES = (1 << 6) | (1 << 11)  # character and block devices: nobody makes those
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
_WRITE = ((_OF_ABI_1 | _REFER | _TRUNCATE | _IOCTL_DEV) & ~_MAKE_NODES) & ~_EXECUTE
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1

FULL_FILES = 3
"""From this ABI on truncating counts as writing (Linux 6.2)."""
TCP = 4
"""From this ABI on TCP is a right too (Linux 6.7)."""

T = TypeVar("T")


def _call(name: str, *arguments: int | bytes | None) -> int:
    """Call libc. Numbers go over as longs: what is narrower there reads its part."""
    # Imported here: a supervisor without machines does without.
    import ctypes

    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    found: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*words)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


@cache
def abi() -> int:
    """The version of Landlock that this kernel has, 0 when it has none or it is switched off."""
    try:
        return _call("syscall", _CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def start_confined(confinement: Confinement, start: Callable[[], T], *, stay: bool) -> T:
    """What `start()`, which starts a program, gives; the program has no rights but those.

    The kernel tells a program with a death signal when the *thread* that started it ends: with
    `stay` that is the end of this process and not of the call. Without Landlock it starts as it is.

    Raises: HostError when the kernel refuses, and what `start` raises.
    """
    if not abi():
        return start()
    found: list[T] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        handle = None
        try:
            _restrict(confinement)
            found.append(start())
            pid = getattr(found[0], "pid", None)
            handle = os.pidfd_open(pid) if stay and isinstance(pid, int) else None
        except BaseException as error:  # noqa: BLE001  # it is raised again in the caller's thread
            failed.append(error)
        finally:
            done.set()
        if handle is not None:
            _wait_for_end(handle)

    threading.Thread(target=work, name="confined", daemon=True).start()
    done.wait()
    if failed:
        raise failed[0]
    return found[0]


def _wait_for_end(handle: int) -> None:
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
    finally:
        os.close(handle)


def _restrict(confinement: Confinement) -> None:
    """Take every other right from this thread, for good."""
    try:
        with _ruleset(confinement) as rules:
            _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            _call("syscall", _RESTRICT_SELF, rules, 0)
    except OSError as error:
        raise HostError(
            f"Landlock confines nothing: {error.strerror}",
            hint="`qlaunch doctor` shows what this kernel offers",
        ) from error


@contextmanager
def _ruleset(confinement: Confinement) -> Iterator[int]:
    version = abi()
    handled = _handled(version)
    net = _BIND_TCP | _CONNECT_TCP if version >= TCP and not confinement.tcp else 0
    scope = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if version >= 6 else 0
    attributes = struct.pack("QQQ", handled, net, scope)
    size = 8 if version < TCP else 16 if version < 6 else 24
    rules = _call("syscall", _CREATE_RULESET, attributes, size, 0)
    try:
        for paths, rights in (
            (confinement.read, _READ),
            (confinement.write, _WRITE),
            (confinement.devices, _DEVICE),
        ):
            for path in paths:
                _allow(rules, path, rights & handled)
        yield rules
    finally:
        os.close(rules)


def _handled(version: int) -> int:
    """All rights that this version knows: what is not allowed of them is refused."""
    more = ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV))
    return _OF_ABI_1 | sum(right for since, right in more if version >= since)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no right
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, handle)
        _call("syscall", _ADD_RULE, rules, _PATH_BENEATH, rule, 0)
    finally:
        os.close(handle)
