"""Puts together all facts that a plan is made from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from qlaunch.errors import HostError
from qlaunch.facts import Facts, HostFacts, ImageFacts
from qlaunch.host.computer import host_facts
from qlaunch.host.image_facts import chain_facts
from qlaunch.host.ports import ports_in_use
from qlaunch.host.probe import find_qemu, probe_qemu

HOST_FACTS_AGE = 2.0
"""Seconds for which one look at the computer is good: sixty machines may start at once."""

IMAGES_TIMEOUT = 20.0

_host: tuple[float, HostFacts] | None = None


async def gather(
    paths: Iterable[tuple[str, bool]],
    emulator: str | None,
    arch: str,
    cache_dir: str,
    *,
    ports: Iterable[tuple[str, int]] = (),
) -> Facts:
    """The facts for a machine whose images are `paths` (absolute path, whether it will be written).

    Images are looked at anew each time, with all that they stand on; QEMU's abilities come from
    `cache_dir`. `ports` are (host, port) that the machine wants.

    Raises: HostError when there is no usable QEMU, or a file system does not answer.
    """
    wanted = tuple(paths)
    qemu = await probe_qemu(find_qemu(arch, emulator), cache_dir)
    return Facts(
        qemu=qemu,
        host=recent_host_facts(),
        images=await _images(wanted) if wanted else {},
        ports_in_use=ports_in_use(list(ports)),
    )


def recent_host_facts() -> HostFacts:
    """This computer as it was at most two seconds ago."""
    global _host
    now = time.monotonic()
    if _host is None or now - _host[0] > HOST_FACTS_AGE:
        _host = (now, host_facts())
    return _host[1]


async def _images(paths: tuple[tuple[str, bool], ...]) -> dict[str, ImageFacts]:
    # In a thread: a dead network file system must stop this one start, not all machines.
    try:
        async with asyncio.timeout(IMAGES_TIMEOUT):
            return await asyncio.to_thread(_look_at, paths)
    except TimeoutError as error:
        names = ", ".join(path for path, _write in paths)
        raise HostError(
            f"looking at the images takes longer than {IMAGES_TIMEOUT:g} s: {names}",
            hint="does a network file system there no longer answer?",
        ) from error


def _look_at(paths: tuple[tuple[str, bool], ...]) -> dict[str, ImageFacts]:
    images: dict[str, ImageFacts] = {}
    # What is written comes last, so that its facts win over those of the same file as a base.
    for path, want_write in sorted(paths, key=lambda entry: entry[1]):
        for name, facts in chain_facts(path, want_write=want_write).items():
            if name == path or name not in images:
                images[name] = facts
    return images
