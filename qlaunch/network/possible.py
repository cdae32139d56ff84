"""Whether this user can have networks without root."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys

_SBIN = ":/usr/sbin:/sbin"
TRIAL_TIMEOUT = 10.0


async def passt_works() -> bool:
    """Whether passt can lock itself in, which it insists on: not in a chroot, nor in containers
    without user namespaces. It is tried out."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return True
    trial = await asyncio.create_subprocess_exec(
        unshare, "--user", "true",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    return await trial.wait() == 0


async def rootless_problem() -> str | None:
    """What is in the way of networks of this user's own; None when nothing is. It is tried out."""
    if os.getuid() == 0:
        return "root's networks are made by netd: `qlaunch net setup`"
    path = os.environ.get("PATH", os.defpath) + _SBIN
    for program, package in (("pasta", "passt"), ("dnsmasq", "dnsmasq-base")):
        if shutil.which(program, path=path) is None:
            return f"{program} is not installed (apt install {package})"
    trial = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "qlaunch.network.spaces",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, cwd="/",
    )  # fmt: skip
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT):
            said, _ = await trial.communicate()
    except TimeoutError:
        trial.kill()
        await trial.wait()
        return "making namespaces takes for ever"
    return said.decode(errors="replace").strip() or None
