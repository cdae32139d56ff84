"""Keeps a machine from being started while its files are worked on."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from qlaunch.errors import ConflictError, PhaseError
from qlaunch.host.pidfd import ProcessId
from qlaunch.host.procfs import find_machine
from qlaunch.records import RecordError, from_plain
from qlaunch.store import machines, paths


@contextlib.contextmanager
def held(name: str, *, to: str) -> Iterator[None]:
    """Hold the machine `name` for the body, so that nobody starts it meanwhile; `to` says what for.

    Raises: PhaseError when it runs, BusyError when somebody else works on it.
    """
    refuse_running(name, to=to)
    folder = paths.machine_state(name)
    is_new = not os.path.lexists(folder)
    handle = machines.lock(name)
    try:
        refuse_running(name, to=to)
        yield
    finally:
        if is_new:  # a machine that never started needs no state for having been looked at
            _remove_alone(os.path.join(folder, "lock"))
        os.close(handle)


def _remove_alone(lock: str) -> None:
    folder = os.path.dirname(lock)
    with contextlib.suppress(OSError):
        if os.listdir(folder) == [os.path.basename(lock)]:
            os.unlink(lock)
            os.rmdir(folder)


def refuse_running(name: str, *, to: str) -> None:
    """Nothing, when `name` does not run. Raises: PhaseError."""
    pid = running_pid(name)
    if pid is not None:
        raise PhaseError(
            f"{name} is running (pid {pid}): stop it to {to} it", hint=f"qlaunch down {name}"
        )


def running_pid(name: str) -> int | None:
    """The pid of the QEMU that runs `name`, found without asking any supervisor.

    Raises: ConflictError when the note about it is damaged, so that nobody can tell.
    """
    path = os.path.join(paths.machine_state(name), "run.json")
    record = machines.load_run(name) if os.path.lexists(path) else None
    if record is None:  # it ended, or the note about it is damaged and was set aside
        return (
            find_machine(name, machines.log_path(name))
            if os.path.lexists(f"{path}.damaged")
            else None
        )
    if record.process is None:  # noted before it was spawned; perhaps it never was
        return find_machine(name, machines.log_path(name))
    try:
        identity = from_plain(ProcessId, dict(record.process))
    except RecordError as error:
        raise ConflictError(
            f"the note about the running {name} is damaged: {path}", hint="`qlaunch ps` settles it"
        ) from error
    pidfd = identity.open()
    if pidfd is None:
        return None
    pidfd.close()
    return identity.pid


@contextlib.contextmanager
def definitions() -> Iterator[None]:
    """Let nobody else give or take names meanwhile. Held for milliseconds, so it is waited for."""
    folder = paths.state_dir()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, "definitions.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
