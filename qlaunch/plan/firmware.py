"""UEFI and TPM: which firmware, whose variables, and the line to swtpm."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from typing import Literal, cast

from qlaunch.facts import Firmware as FirmwareFacts
from qlaunch.plan.draft import Draft
from qlaunch.plan.model import Chardev, Creation, Device, Firmware, Layer


def firmware(draft: Draft) -> Firmware | None:
    """The UEFI firmware, chosen from the descriptors that distributions install."""
    wish = draft.profile.machine
    if wish.firmware != "uefi":
        if wish.secure_boot:
            draft.notes.error(
                "machine.secure_boot",
                "Secure Boot needs UEFI",
                hint='set machine.firmware = "uefi"',
            )
        return None
    secure = bool(wish.secure_boot)
    if secure and not draft.q35:
        draft.notes.error(
            "machine.secure_boot",
            "Secure Boot needs the q35 board",
            hint='set machine.type = "q35"',
        )
        return None
    found = choose(draft.facts.host.firmware, draft.machine, draft.arch, secure=secure)
    if found is None:
        what = f"UEFI firmware{' with Secure Boot' if secure else ''} for {draft.arch}"
        draft.notes.error(
            "machine.firmware",
            f"no {what} is installed",
            hint="on Debian and Ubuntu: sudo apt install ovmf",
            cause="host",
        )
        return None
    fmt = cast('Literal["qcow2", "raw"]', found.vars_format or "raw")
    own = wish.nvram or os.path.join(
        draft.places.data, "nvram.qcow2" if fmt == "qcow2" else "nvram.fd"
    )
    create = None
    if not _nvram_exists(draft, own):
        create = Creation(path=own, format=fmt, template=found.vars_template, template_format=fmt)
    code_format = cast('Literal["qcow2", "raw"]', found.code_format)
    return Firmware(
        code=Layer(
            node="firmware",
            file_node="firmware-file",
            path=found.code,
            format=code_format,
            read_only=True,
        ),
        vars=Layer(node="nvram", file_node="nvram-file", path=own, format=fmt),
        create=create,
        secure=secure,
    )


def _nvram_exists(draft: Draft, path: str) -> bool:
    """Whether the variables are there already; what keeps them from being used is an error."""
    facts, key = draft.facts.image(path), "machine.nvram"
    if facts.problem:
        draft.notes.error(key, facts.problem, hint=facts.hint)
    elif facts.exists and not facts.writable:
        draft.notes.error(
            key, f"{path} cannot be written by {draft.facts.host.user}", hint=facts.hint
        )
    elif facts.holder:
        draft.notes.error(key, f"{path} is in use by {facts.holder}", cause="conflict")
    return facts.exists or facts.problem is not None


def choose(
    descriptors: Sequence[FirmwareFacts], machine: str, arch: str, *, secure: bool
) -> FirmwareFacts | None:
    """The first descriptor that fits: this architecture and machine type, and Secure Boot with
    enrolled keys if asked for; without it one that needs no system management mode. Descriptors
    come in the order of priority that QEMU's interop/firmware.json lays down."""
    for entry in descriptors:
        fits = arch in entry.architectures and any(
            fnmatch.fnmatchcase(machine, pattern) for pattern in entry.machines
        )
        has_keys = {"secure-boot", "enrolled-keys"} <= entry.features
        plain = not entry.features & {"requires-smm", "enrolled-keys"}
        if fits and entry.vars_template and (has_keys if secure else plain):
            return entry
    return None


def tpm(draft: Draft) -> str | None:
    """The folder of the TPM's state; None without a TPM."""
    if not draft.profile.machine.tpm:
        return None
    if draft.facts.host.swtpm is None:
        draft.notes.error(
            "machine.tpm",
            "a TPM needs the program swtpm",
            hint="on Debian and Ubuntu: sudo apt install swtpm",
            cause="host",
        )
    return os.path.join(draft.places.data, "tpm")


def tpm_devices(draft: Draft) -> tuple[tuple[Chardev, ...], tuple[Device, ...]]:
    """The TPM's line to swtpm and its device."""
    if not draft.profile.machine.tpm:
        return (), ()
    driver = "tpm-crb" if draft.q35 else "tpm-tis"
    device = draft.device("machine.tpm", "tpm0-dev", driver, {"tpmdev": "tpm0"})
    path = os.path.join(draft.places.runtime, "tpm.sock")
    return (Chardev(id="tpm-chr", kind="tpm", path=path),), (device,)
