"""What systemd does for machines, and what keeps it from that: for `doctor`, `service status`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from qlaunch.cli import service
from qlaunch.cli.check_lines import OK, WARN, Check
from qlaunch.facts import HostFacts
from qlaunch.host.systemd import properties, systemctl
from qlaunch.host.usage import oom_score_adjust
from qlaunch.plan.model import Lifecycle
from qlaunch.store import files, machines, paths

# What a guest that did not power off in its time still takes: QEMU's quit, and what is written.
RESERVE = 15.0
_CONTROLLERS = {
    "memory": ("memory", "MemoryMax"),
    "cpu": ("cpu_quota", "CPUQuota"),
    "cpuset": ("cpus", "AllowedCPUs"),
    "io": ("io_weight", "IOWeight"),
    "pids": ("tasks", "TasksMax"),
}
_SECONDS = {
    "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0,
    "month": 2629800.0, "y": 31557600.0,
}  # fmt: skip
_DROP_IN = "/etc/systemd/system/user@.service.d/qlaunch.conf"


async def systemd_checks(host: HostFacts) -> list[Check]:
    """Whether systemd is there for machines, and for how much of what it can do."""
    if host.systemd_scope is None:
        message = "no systemd answers: [limits] have no effect"
        hint = "log in by a session of its own (ssh, not su)" if shutil.which("systemctl") else None
        return [Check(level=WARN, topic="systemd", message=message, hint=hint)]
    message = f"systemd: machines get scopes of their own ({host.systemd_scope})"
    found = [Check(level=OK, topic="systemd", message=message)]
    return [*found, *await service_checks(host.systemd_scope)]


async def service_checks(manager: str) -> list[Check]:
    """What makes the machines start and stop with the computer, a line each."""
    found = [_installed(manager)]
    if manager == "user":
        found.append(_linger())
    found += await _patience(manager)
    found += await _controllers(manager)
    found += await _first_to_be_killed(manager)
    return found


async def service_status(manager: str) -> dict[str, Any]:
    """The units as plain data."""
    names = ("ActiveState", "UnitFileState", "MainPID", "StatusText", "NRestarts")
    said = await properties(manager, "qlaunch.service", *names)
    return {
        "manager": manager,
        "units": service.installed(manager),
        "supervisor": {
            "state": said.get("ActiveState", "unknown"),
            "enabled": said.get("UnitFileState") == "enabled",
            "pid": int(said.get("MainPID", "0")) or None,
            "says": said.get("StatusText") or None,
            "restarts": int(said.get("NRestarts", "0")),
        },
        "machines": await _machines(manager),
    }


async def _machines(manager: str) -> list[dict[str, Any]]:
    words = ("list-units", "--all", "--plain", "--no-legend", "qlaunch@*.service")
    lines = (await systemctl(manager, *words)).stdout.splitlines()
    active = {line.split()[0]: line.split()[2] for line in lines if len(line.split()) > 2}
    enabled = set(service.enabled(manager))
    return [
        {
            "name": unit.removeprefix("qlaunch@").removesuffix(".service"),
            "state": active.get(unit, "inactive"),
            "enabled": unit in enabled,
        }
        for unit in sorted(enabled | set(active))
    ]


def _installed(manager: str) -> Check:
    units, topic = service.units(manager), "service"
    there = service.installed(manager)
    if not there:
        message = "no service is installed: guests are cut when the computer goes down"
        return Check(level=WARN, topic=topic, message=message, hint="qlaunch service install")
    if any(_text(path) != text for path, text in units.items()):
        message = "the service's units are not those of this qlaunch"
        return Check(level=WARN, topic=topic, message=message, hint="qlaunch service install")
    return Check(level=OK, topic=topic, message=f"service: {os.path.dirname(there[0])}")


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _linger() -> Check:
    from qlaunch.host.users import user_name

    user = user_name(os.geteuid())
    if os.path.exists(f"/var/lib/systemd/linger/{user}"):
        return Check(level=OK, topic="linger", message="linger: machines go on after logout")
    message = "linger is off: machines end when you log out, and none starts with the computer"
    hint = f"loginctl enable-linger {user}"
    return Check(level=WARN, topic="linger", message=message, hint=hint)


# ---- how long systemd waits ----------------------------------------------------------------------


async def _patience(manager: str) -> list[Check]:
    """Whether systemd waits as long as guests may take to power off."""
    name, needed = _slowest()
    found = []
    whose = [(manager, "qlaunch.service")]
    whose += [("system", f"user@{os.geteuid()}.service")] if manager == "user" else []
    for asked, unit in whose:
        said = (await properties(asked, unit, "TimeoutStopUSec")).get("TimeoutStopUSec", "")
        limit = seconds_of(said)
        if limit is not None and limit < needed:
            found.append(_too_short(unit, said, name, needed))
    if found:
        return found
    message = f"shutdown: systemd waits for guests, {needed:.0f} s if need be"
    return [Check(level=OK, topic="shutdown", message=message)]


def _too_short(unit: str, said: str, name: str, needed: float) -> Check:
    lines = f"[Service] TimeoutStopSec={needed:.0f}s"
    where = _DROP_IN if unit.startswith("user@") else f"the drop-in of {unit}"
    return Check(
        level=WARN,
        topic="shutdown",
        message=f"at shutdown {unit} is cut after {said}, and {name} may take {needed:.0f} s",
        hint=f"in {where}: {lines}; then sudo systemctl daemon-reload",
    )


def _slowest() -> tuple[str, float]:
    """The machine whose guest may take longest to power off, and how long that is with all."""
    found = [("a guest", Lifecycle().stop_timeout)]
    for plan in _plans():
        life = plan.get("lifecycle")
        if isinstance(life, dict) and isinstance(life.get("stop_timeout"), int | float):
            found.append((str(plan.get("name")), float(life["stop_timeout"])))
    name, seconds = max(found, key=lambda each: each[1])
    return name, seconds + RESERVE


def _plans() -> Iterator[dict[str, Any]]:
    """What was saved of each machine's last start, as it lies there."""
    for name in machines.names():
        plan = files.read_json(os.path.join(paths.machine_state(name), "plan.json"))
        if isinstance(plan, dict):
            yield plan


def seconds_of(span: str) -> float | None:
    """A time span as systemd prints it, such as `1min 30s`; None for one without an end."""
    parts = re.findall(r"([0-9.]+)([a-z]+)", span)
    if not parts or any(unit not in _SECONDS for _, unit in parts):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


# ---- limits and memory ---------------------------------------------------------------------------


async def _controllers(manager: str) -> list[Check]:
    """Which limits have an effect: the kernel's controllers that this systemd was given."""
    group = ""
    if manager == "user":
        said = await properties("system", f"user@{os.geteuid()}.service", "ControlGroup")
        group = said.get("ControlGroup", "")
    words = _text(f"/sys/fs/cgroup{group}/cgroup.controllers")
    if words is None:
        message = (
            "limits: this computer has no unified control groups (cgroup2), so none has effect"
        )
        return [Check(level=WARN, topic="limits", message=message)]
    there = set(words.split())
    missing = [name for name in _CONTROLLERS if name not in there]
    if not missing:
        return [Check(level=OK, topic="limits", message="limits: all have an effect")]
    keys = ", ".join(_CONTROLLERS[name][0] for name in missing)
    asked = {key for plan in _plans() for key in plan.get("limits") or ()}
    wanted = any(_CONTROLLERS[name][1] in asked for name in missing)
    whose = "you were not given" if manager == "user" else "this computer lacks"
    return [
        Check(
            level=WARN if wanted else OK,
            topic="limits",
            message=f"limits: {keys} have no effect: {whose} the controllers {', '.join(missing)}",
            hint=f"in {_DROP_IN}: [Service] Delegate={' '.join(_CONTROLLERS)}; then log in anew"
            if manager == "user"
            else None,
        )
    ]


async def _first_to_be_killed(manager: str) -> list[Check]:
    """Whether the kernel, when memory runs short, takes machines before other programs."""
    said = await properties(manager, "qlaunch.service", "MainPID")
    pid = int(said.get("MainPID", "0") or "0")
    score = oom_score_adjust(pid or os.getpid())
    if not score or score <= 0:
        return [Check(level=OK, topic="oom", message="memory: machines are not the first to go")]
    message = f"when memory runs short the kernel ends machines first (oom_score_adj {score})"
    hint = (
        f"in {_DROP_IN}: [Service] OOMScoreAdjust=0; then log in anew"
        if pid
        else "`qlaunch service install` runs them in the service"
    )
    return [Check(level=WARN, topic="oom", message=message, hint=hint)]
