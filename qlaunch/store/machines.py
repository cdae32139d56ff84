"""What is kept of a machine between its starts and while it runs.

In `<state>/machines/NAME/`: `leases.json` (for good), `plan.json` (the last start), `run.json`
(there exactly while a QEMU may be alive), `last.json` (how it ended), `log`, `console-*.log`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from qlaunch import records
from qlaunch.plan.model import PLAN_VERSION, Leases, Places, Plan
from qlaunch.store import files, paths

LEASES_VERSION = 1
RUN_VERSION = 1
LOG_LIMIT = 1 << 20


@frozen(kw_only=True)
class RunRecord:
    """The QEMU of a machine: written before it is spawned (`process` still None), completed after.

    `process`, `helpers` (swtpm) and `passts` (by the network card's id) are the plain data of a
    `host.process.ProcessId`; `started` is in seconds since the epoch. `begun` is said of a start
    with `--paused` that is complete: any other machine that has not executed an instruction was cut
    off in the middle of its start. `landlock` is the version of Landlock that confines QEMU, 0
    where nothing does; `tcp` is whether it may speak TCP.
    """

    version: int = RUN_VERSION
    started: float = 0.0
    process: Mapping[str, Any] | None = None
    helpers: tuple[Mapping[str, Any], ...] = ()
    passts: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    begun: bool = False
    landlock: int = 0
    tcp: bool = True
    warnings: tuple[Mapping[str, Any], ...] = ()


def places(name: str) -> Places:
    """The folders of the machine `name`."""
    return Places(
        data=paths.machine_data(name),
        state=paths.machine_state(name),
        runtime=paths.machine_runtime(name),
    )


def names() -> list[str]:
    """Every machine that has state."""
    try:
        return sorted(os.listdir(os.path.join(paths.state_dir(), "machines")))
    except OSError:
        return []


def running_names() -> list[str]:
    """Every machine whose QEMU may be alive."""
    # Asked before every start: of sixty machines the sixty names are looked up sixty times.
    folder = os.path.join(paths.state_dir(), "machines")
    return [name for name in names() if os.path.exists(f"{folder}/{name}/run.json")]


def lock(name: str) -> int:
    """The machine's lock as a descriptor; whoever starts, hosts or changes it holds it.

    Raises: BusyError, HostError.
    """
    handle = files.take_lock(_file(name, "lock"), what=f"machine {name}")
    files.sweep(paths.machine_state(name))
    return handle


def damaged(name: str) -> list[str]:
    """The machine's files that could not be understood and were set aside."""
    folder = paths.machine_state(name)
    try:
        listed = sorted(os.listdir(folder))
    except OSError:
        return []
    return [os.path.join(folder, entry) for entry in listed if entry.endswith(files.DAMAGED)]


def load_leases(name: str) -> Leases:
    return files.load_record(Leases, _file(name, "leases.json"), LEASES_VERSION) or Leases()


def save_leases(name: str, leases: Leases) -> None:
    if load_leases(name) != leases:
        files.write_json(_file(name, "leases.json"), records.to_plain(leases))


def load_plan(name: str) -> Plan | None:
    """The plan of the machine's last start; None when there was none or it is damaged."""
    return files.load_record(Plan, _file(name, "plan.json"), PLAN_VERSION)


def save_plan(plan: Plan, *, lasting: bool = True) -> None:
    """Keep the plan; one that need not be `lasting` may be the one before after a power cut."""
    files.write_json(_file(plan.name, "plan.json"), records.to_plain(plan), lasting=lasting)


def load_run(name: str) -> RunRecord | None:
    """The record of a QEMU that may be alive; None when there is none or it is damaged."""
    return files.load_record(RunRecord, _file(name, "run.json"), RUN_VERSION)


def save_run(name: str, record: RunRecord) -> None:
    # After a power cut no QEMU is alive, and it does not matter what this file says.
    files.write_json(_file(name, "run.json"), records.to_plain(record), lasting=False)


def end_run(name: str, reason: str, when: float, *, failed: bool = False) -> None:
    """Note how the machine ended; from then on it counts as stopped, or as failed.

    The reason is a courtesy, the end is not: without space for it the machine still ends.
    """
    try:
        end = {"version": 1, "reason": reason, "when": when, **({"failed": True} if failed else {})}
        files.write_json(_file(name, "last.json"), end)
    finally:
        files.remove(_file(name, "run.json"))


def drop_run(name: str) -> None:
    """Forget a start that failed."""
    files.remove(_file(name, "run.json"), lasting=False)


def last_end(name: str) -> Mapping[str, Any] | None:
    """`{"reason", "when"}` of the machine's last end."""
    found = files.read_json(_file(name, "last.json"))
    return found if isinstance(found, dict) else None


def log_path(name: str) -> str:
    return _file(name, "log")


def console_log_path(name: str, serial: str) -> str:
    return _file(name, f"console-{serial}.log")


def open_log(path: str) -> int:
    """The log at `path` for appending; one that has grown large becomes `PATH.1` first.

    Raises: HostError.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if os.path.getsize(path) > LOG_LIMIT:
                os.replace(path, f"{path}.1")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise files.no_write(path, error) from error


def _file(name: str, file: str) -> str:
    return os.path.join(paths.machine_state(name), file)
