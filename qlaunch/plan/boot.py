"""What the guest starts from: boot indexes now and after the first reset, firmware, TPM."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from attrs import frozen

from qlaunch.facts import Firmware as FirmwareFacts
from qlaunch.plan.draft import Draft
from qlaunch.plan.model import BootPlan, Creation, Disk, Drive, Firmware, Layer, Nic
from qlaunch.profile.tables import BOOT_KINDS

DEFAULT_ORDER = ("disk", "cdrom", "floppy")


@frozen(kw_only=True)
class Candidates:
    """The devices that can be booted from: profile id -> device id, by kind."""

    kinds: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, disks: Sequence[Disk], drives: Sequence[Drive], nics: Sequence[Nic]) -> Candidates:
        return cls(
            kinds={
                "disk": tuple(disk.id for disk in disks),
                "cdrom": tuple(drive.id for drive in drives if drive.kind == "cdrom"),
                "floppy": tuple(drive.id for drive in drives if drive.kind == "floppy"),
                "network": tuple(nic.id for nic in nics),
            }
        )

    def expand(self, word: str) -> tuple[str, ...] | None:
        """The ids that `word`, a kind or an id, means; None when it is neither."""
        if word in self.kinds:
            return self.kinds[word]
        return (word,) if any(word in ids for ids in self.kinds.values()) else None

    def ids(self) -> list[str]:
        return [ident for ids in self.kinds.values() for ident in ids]


def network_boot(draft: Draft) -> bool:
    """Whether a network card is in the boot order."""
    ids = {nic.id for nic in draft.profile.nic}
    words = {*draft.profile.boot.order, draft.profile.boot.once or ""}
    return bool(words & (ids | {"network"}))


def order(draft: Draft, candidates: Candidates) -> tuple[list[str], list[str]]:
    """Device ids in boot order: for the first boot, and from the first reset on."""
    wish = draft.profile.boot
    later = _expand(draft, candidates, wish.order or DEFAULT_ORDER, "boot.order")
    if not wish.once or once_is_done(draft):
        return later, later
    first = _expand(draft, candidates, (wish.once,), "boot.once")
    if not first and wish.once in BOOT_KINDS:
        draft.notes.error(
            "boot.once",
            f"there is no {wish.once} to boot from",
            hint=f"add a [[{wish.once}]], or take boot.once out",
        )
    return [*first, *(ident for ident in later if ident not in first)], later


def once_is_done(draft: Draft) -> bool:
    """Whether the profile's `boot.once` has been used up by an earlier start. One given with
    `--set` counts again each time: the user asks for it now."""
    said_now = draft.profile.origins.get("boot.once", "").startswith("--set")
    return draft.leases.once_done == draft.profile.boot.once and not said_now


def _expand(draft: Draft, candidates: Candidates, words: Sequence[str], key: str) -> list[str]:
    found: list[str] = []
    for word in words:
        ids = candidates.expand(word)
        if ids is None:
            known = [*BOOT_KINDS, *candidates.ids()]
            close = difflib.get_close_matches(word, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            draft.notes.error(key, f"{word!r} is no device to boot from", hint=hint)
        found += [ident for ident in ids or () if ident not in found]
    return found


def boot_plan(draft: Draft, first: Sequence[str], later: Sequence[str]) -> BootPlan:
    """The boot options; the devices' own boot indexes are put on them by `resolve`."""
    wish = draft.profile.boot
    for key in ("kernel", "initrd"):
        path = getattr(wish, key)
        if path and not draft.facts.image(path).exists:
            draft.notes.error(f"boot.{key}", f"{path} is not there")
    if (wish.initrd or wish.append) and not wish.kernel:
        draft.notes.error(
            "boot.initrd" if wish.initrd else "boot.append",
            "has no effect without boot.kernel",
            hint="set boot.kernel",
        )
    changes = {f"{ident}-dev": number for number, ident in enumerate(later)}
    return BootPlan(
        menu=bool(wish.menu),
        menu_timeout=wish.menu_timeout,
        kernel=wish.kernel,
        initrd=wish.initrd,
        append=wish.append,
        once=wish.once if list(first) != list(later) else None,
        later=changes if list(first) != list(later) else {},
    )


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
    found = choose(draft.facts.host.firmware, draft.machine, secure=secure)
    if found is None:
        what = "UEFI firmware with Secure Boot" if secure else "UEFI firmware"
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
    if not draft.facts.image(own).exists:
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


def choose(
    descriptors: Sequence[FirmwareFacts], machine: str, *, secure: bool
) -> FirmwareFacts | None:
    """The first descriptor that fits: x86_64, this machine type, and Secure Boot with enrolled
    keys if asked for; without it one that needs no system management mode. Descriptors come in the
    order of priority that QEMU's interop/firmware.json lays down."""
    for entry in descriptors:
        fits = "x86_64" in entry.architectures and any(
            fnmatch.fnmatchcase(machine, pattern) for pattern in entry.machines
        )
        has_keys = {"secure-boot", "enrolled-keys"} <= entry.features
        plain = not entry.features & {
            "requires-smm",
            "enrolled-keys",
            "amd-sev",
            "amd-sev-es",
            "amd-sev-snp",
            "intel-tdx",
        }
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
