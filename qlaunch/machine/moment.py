"""What is kept of a machine with each snapshot besides disks and memory: plan, profile, firmware.

The variables of the firmware and the state of the TPM are files beside the disks that no layer can
be put on: they are copied, and copied back before QEMU is started on that moment.
"""

from __future__ import annotations

import os

from qlaunch.host.newfile import write_error
from qlaunch.machine.bench import Bench
from qlaunch.plan.model import Plan
from qlaunch.store import files
from qlaunch.store import timeline as store


def has_firmware(plan: Plan) -> bool:
    """Whether the machine has variables or a TPM that go back with its disks."""
    return plan.firmware is not None or plan.tpm is not None


def keep(bench: Bench, number: int) -> None:
    """Keep what the machine is now with the snapshot `number`. Raises: HostError."""
    store.save_moment(bench.name, number, bench.plan, bench.leases, bench.profile)
    variables, tpm = _places(bench.plan)
    if variables is not None and os.path.exists(variables):
        _copy(variables, store.file_of(bench.name, number, "nvram"))
    if tpm is not None and os.path.isdir(tpm):
        _copy_folder(tpm, store.file_of(bench.name, number, "tpm"))


def bring_back(plan: Plan, number: int) -> None:
    """Put the firmware's variables and the TPM of the snapshot `number` where the stopped machine
    has them. It may be done again at any time. Raises: HostError."""
    variables, tpm = _places(plan)
    kept = store.file_of(plan.name, number, "nvram")
    if variables is not None and os.path.exists(kept):
        _copy(kept, variables)
    kept = store.file_of(plan.name, number, "tpm")
    if tpm is not None and os.path.isdir(kept):
        _copy_folder(kept, tpm)


def has_changed(bench: Bench) -> bool:
    """Whether firmware or TPM have written anything since the snapshot that the machine comes from:
    that would be lost with the present, even if no disk was written to."""
    if not has_firmware(bench.plan):
        return False
    if bench.timeline.current is None:
        return True
    variables, tpm = _places(bench.plan)
    kept = store.file_of(bench.name, bench.timeline.current, "nvram")
    if variables is not None and not _same(variables, kept):
        return True
    kept = store.file_of(bench.name, bench.timeline.current, "tpm")
    if tpm is None or not os.path.isdir(tpm):
        return False
    names = [entry.name for entry in os.scandir(tpm) if not entry.name.startswith(".")]
    return not all(_same(os.path.join(tpm, name), os.path.join(kept, name)) for name in names)


def _same(one: str, other: str) -> bool:
    import filecmp

    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _places(plan: Plan) -> tuple[str | None, str | None]:
    return plan.firmware.vars.path if plan.firmware is not None else None, plan.tpm


def _copy_folder(source: str, target: str) -> None:
    try:
        os.makedirs(target, mode=0o700, exist_ok=True)
        names = [entry.name for entry in os.scandir(source) if entry.is_file(follow_symlinks=False)]
        for name in names:
            if not name.startswith("."):  # swtpm's lock
                _copy(os.path.join(source, name), os.path.join(target, name))
    except OSError as error:
        raise write_error(target, error) from error


def _copy(source: str, target: str) -> None:
    """Put the content of `source` at `target`, at once and on the disk."""
    import shutil

    part = f"{target}.new"
    try:
        shutil.copyfile(source, part)
        handle = os.open(part, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.path.exists(target):
                os.fchmod(handle, os.stat(target).st_mode & 0o777)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(part, target)
        files.sync_dir(os.path.dirname(target))
    except OSError as error:
        raise write_error(target, error) from error
