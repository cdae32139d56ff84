"""Asks a QEMU binary what it can do, once; later answers come from a cache on disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from qlaunch.errors import HostError
from qlaunch.facts import QemuFacts
from qlaunch.host.probe_session import ask_qemu
from qlaunch.records import RecordError, from_plain, to_plain

CACHE_VERSION = 1

_PACKAGES = {
    "x86_64": "qemu-system-x86",
    "i386": "qemu-system-x86",
    "aarch64": "qemu-system-arm",
    "arm": "qemu-system-arm",
    "ppc64": "qemu-system-ppc",
    "ppc": "qemu-system-ppc",
}
_FAMILY_BINARIES = ("/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm")

_known: dict[str, QemuFacts] = {}
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def find_qemu(arch: str, explicit: str | None) -> str:
    """The path of the QEMU for guests of `arch`, or of the `explicit` one that a profile names.

    Raises: HostError when it is missing or not executable.
    """
    hint = f"sudo apt install {_PACKAGES.get(arch, 'qemu-system-misc')}"
    if explicit is not None:
        found = shutil.which(explicit)
        if found is None:
            there = os.path.isfile(explicit)
            raise HostError(
                f"the QEMU {explicit} is {'not executable' if there else 'not there'}",
                hint=f"chmod +x {explicit}" if there else hint,
            )
        return os.path.abspath(found)
    found = shutil.which(f"qemu-system-{arch}")
    if found is None and arch == os.uname().machine:
        found = next((path for path in _FAMILY_BINARIES if os.access(path, os.X_OK)), None)
    if found is None:
        raise HostError(f"there is no qemu-system-{arch} on this computer", hint=hint)
    return os.path.abspath(found)


async def probe_qemu(path: str, cache_dir: str) -> QemuFacts:
    """What the QEMU at `path` can do. The first time it is run for a moment (0.1 s).

    The answer is kept in `cache_dir` until the binary or its modules change. A cache that is
    damaged or cannot be written costs only the time of asking again.

    Raises: HostError when the binary is missing, not executable, or not a QEMU.
    """
    key = _key(path)
    facts = _known.get(key)
    if facts is not None:
        return facts
    # Sixty machines may start at once: the first asks, the others wait for its answer.
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        facts = _known.get(key)
        if facts is None:
            file = os.path.join(cache_dir, f"qemu-{key}.json")
            facts = _load(file)
            if facts is None:
                facts = await ask_qemu(path)
                _save(file, facts)
            _known[key] = facts
        return facts


def forget() -> None:
    """Forget what this process knows of all binaries; the cache on disk stays."""
    _known.clear()


def _key(path: str) -> str:
    real = os.path.realpath(path)
    try:
        found = os.stat(real)
    except OSError as error:
        raise HostError(
            f"the QEMU {path}: {os.strerror(error.errno or 0)}",
            hint="sudo apt install qemu-system-x86",
        ) from error
    parts = [CACHE_VERSION, path, real, found.st_size, found.st_mtime_ns, *_module_times(real)]
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogateescape")).hexdigest()[
        :32
    ]


def _module_times(binary: str) -> Iterator[int]:
    """When the directories of QEMU's modules changed: a package with SPICE adds abilities."""
    prefix = os.path.dirname(os.path.dirname(binary))
    directories = [
        os.environ.get("QEMU_MODULE_DIR", ""),
        f"{prefix}/lib/qemu",
        f"{prefix}/lib64/qemu",
    ]
    directories.append(f"{prefix}/lib/{os.uname().machine}-linux-gnu/qemu")
    for directory in directories:
        with contextlib.suppress(OSError):
            yield os.stat(directory).st_mtime_ns


def _load(file: str) -> QemuFacts | None:
    try:
        with open(file, "rb") as stream:
            data = json.loads(stream.read())
        if data["version"] != CACHE_VERSION:
            return None
        return from_plain(QemuFacts, data["facts"])
    except (OSError, ValueError, KeyError, TypeError, RecordError, RecursionError):
        return None


def _save(file: str, facts: QemuFacts) -> None:
    """Write the cache; failing (a full disk, no rights) costs only the next one's time."""
    directory = os.path.dirname(file)
    with contextlib.suppress(OSError):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        import tempfile

        fd, part = tempfile.mkstemp(prefix=".qemu-", dir=directory)
        try:
            with open(fd, "w", encoding="utf-8") as stream:
                json.dump({"version": CACHE_VERSION, "facts": to_plain(facts)}, stream)
            os.replace(part, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
