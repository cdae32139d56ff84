"""QEMU in a systemd scope of its own; and without one where systemd gives none after all.

A scope is there so that a machine outlives its supervisor's session or service, and to carry the
profile's limits. Neither is worth a machine that does not start: it then runs without, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from attrs import evolve

from qlaunch.argv import scope_unit
from qlaunch.errors import HostError, QlaunchError
from qlaunch.host.computer import runtime_directory
from qlaunch.host.tool import run_tool
from qlaunch.machine.log import MachineLog, last_words
from qlaunch.plan import Plan

# The scope of a QEMU that has just ended goes a moment after it: the kernel tells systemd of an
# empty control group at most every 10 ms, and systemd may be busy.
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
TOOL_TIMEOUT = 5.0

T = TypeVar("T")
Tell = Callable[[Mapping[str, Any], float], None]


class ScopeError(HostError):
    """systemd did not let QEMU into a scope; the message is what it said."""


async def with_scope(plan: Plan, attempt: Callable[[Plan], Awaitable[T]], tell: Tell) -> T:
    """What `attempt(plan)` gives; when there is no scope to be had, what it gives without one.

    `tell(finding, seconds)` is told of that. Raises: what `attempt` raises but ScopeError.
    """
    begun = time.monotonic()
    for pause in (*PAUSES, None):
        try:
            return await attempt(plan)
        except ScopeError as error:
            if pause is None or "already" not in error.message:
                tell(_finding(plan, error.message), time.monotonic() - begun)
                break
            await _clear(plan, pause)
    return await attempt(evolve(plan, scope=None))


def check_program(plan: Plan) -> None:
    """Raises: ScopeError when what starts scopes is not installed (any more)."""
    if plan.scope is not None and shutil.which("systemd-run") is None:
        raise ScopeError("systemd-run is not installed")


def check_entered(plan: Plan, log: MachineLog, since: int) -> None:
    """Of a process that ended or hung: was it QEMU at all? Raises: ScopeError when it was not."""
    if plan.scope is None or any(scope_unit(plan) in line for line in log.scope_words(since)):
        return
    lines = log.qemu_words(since)
    raise ScopeError(last_words(lines) if lines else "systemd does not answer")


def environment(plan: Plan, plain: Mapping[str, str]) -> dict[str, str]:
    """`plain`, and where systemd-run finds the user's systemd: cron and sudo do not say it."""
    if plan.scope != "user":
        return dict(plain)
    return {"XDG_RUNTIME_DIR": runtime_directory(os.geteuid()), **plain}


async def _clear(plan: Plan, pause: float) -> None:
    """A scope of that name is there: a failed one is cleared away, an ending one waited for. One
    in use (by a machine of the same name with other XDG folders) is left alone."""
    with contextlib.suppress(QlaunchError):
        words = ("systemctl", f"--{plan.scope}", "--quiet", "reset-failed", scope_unit(plan))
        await run_tool(words, timeout=TOOL_TIMEOUT)
    await asyncio.sleep(pause)


def _finding(plan: Plan, words: str) -> dict[str, Any]:
    lost = "its limits have no effect" if plan.limits else "it may end with your session"
    return {
        "level": "warning",
        "where": "limits" if plan.limits else "",
        "message": f"systemd gives it no scope of its own, {lost}: {words}",
        "hint": f"`systemctl --{plan.scope} status {scope_unit(plan)}` shows who has it"
        if "already" in words
        else "`qlaunch doctor` shows what is amiss",
        "cause": "host",
    }
