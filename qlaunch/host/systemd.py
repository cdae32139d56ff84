"""What systemd says of itself and of us; `manager` is `user` or `system` throughout."""

from __future__ import annotations

import os

from qlaunch.errors import QlaunchError
from qlaunch.host.computer import runtime_directory
from qlaunch.host.tool import Output, run_tool

TOOL_TIMEOUT = 10.0
# `systemctl is-system-running`, as long as nobody shuts the computer (or the session) down.
_GOES_ON = frozenset(("initializing", "starting", "running", "degraded", "maintenance"))


async def systemctl(manager: str, *words: str, timeout: float = TOOL_TIMEOUT) -> Output:
    """Run systemctl. Raises: HostError, TimedOutError; its own failure is in the output."""
    # cron and sudo do not say where the user's systemd is.
    where = ("env", f"XDG_RUNTIME_DIR={runtime_directory(os.geteuid())}")
    argv = (*(where if manager == "user" else ()), "systemctl", f"--{manager}", *words)
    return await run_tool(argv, timeout=timeout)


async def is_stopping(manager: str) -> bool:
    """Whether this systemd is shutting everything down; one that answers nothing sensible is."""
    try:
        said = await systemctl(manager, "is-system-running")
    except QlaunchError:
        return True
    return said.stdout.strip() not in _GOES_ON


async def properties(manager: str, unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit; empty when systemd does not answer."""
    try:
        said = await systemctl(manager, "show", unit, "-p", ",".join(names))
    except QlaunchError:
        return {}
    lines = (line.partition("=") for line in said.stdout.splitlines())
    return {name: value for name, _, value in lines}
