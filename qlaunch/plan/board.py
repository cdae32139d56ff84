"""The board: machine type, accelerator, processors, memory, clock."""

from __future__ import annotations

import difflib
import re
from typing import Literal

from attrs import frozen

from qlaunch.facts import Facts
from qlaunch.plan.draft import Draft
from qlaunch.plan.model import Board, Leases
from qlaunch.plan.notes import Notes
from qlaunch.profile.guests import defaults_of
from qlaunch.profile.model import Profile
from qlaunch.units import format_size, short_size

_FEATURE = re.compile(r"[+-]?\w[\w.-]*|\w[\w.-]*=[\w.-]+", re.ASCII)


def machine_type(profile: Profile, facts: Facts, leases: Leases, notes: Notes) -> tuple[str, str]:
    """The name asked for and the versioned type it means. Pinned at the first start: a guest
    keeps its board when QEMU is upgraded."""
    asked = profile.machine.type or defaults_of(profile.guest or "other").machine
    pinned = leases.machine_type if leases.machine_asked == asked else None
    wanted = pinned or asked
    if not facts.qemu.machines:
        return asked, wanted
    found = facts.qemu.machine(wanted)
    if found is not None:
        if not found.name.startswith("pc-"):
            notes.error(
                "machine.type",
                f"'{found.name}' is no PC: qlaunch knows the boards pc (i440fx) and q35",
                hint='set machine.type = "pc" or "q35"',
            )
        return asked, found.name
    names = [entry.name for entry in facts.qemu.machines]
    names += [entry.alias for entry in facts.qemu.machines if entry.alias]
    close = difflib.get_close_matches(wanted, names, 1)
    hint = f"did you mean '{close[0]}'?" if close else "`pc` and `q35` are always there"
    if pinned:
        hint = f"the machine was made with {pinned}; an older QEMU has it, or set machine.type anew"
    notes.error(
        "machine.type", f"QEMU {facts.qemu.version_text} has no machine '{wanted}'", hint=hint
    )
    return asked, wanted


def accelerator(profile: Profile, facts: Facts, notes: Notes) -> Literal["kvm", "tcg"]:
    """KVM or TCG: where KVM cannot be had, `kvm` is an error and `auto` a warning."""
    wish = profile.machine.accel or "auto"
    kvm = facts.host.kvm
    if wish == "tcg":
        return "tcg"
    if kvm.usable:
        return "kvm"
    problem = kvm.problem or "KVM cannot be used"
    if wish == "kvm":
        notes.error(
            "machine.accel",
            problem,
            hint=kvm.hint or 'accel = "auto" falls back to TCG',
            cause="host",
        )
        return "kvm"
    notes.warn(
        "machine.accel", f"{problem}; the guest is emulated (slow)", hint=kvm.hint, cause="host"
    )
    return "tcg"


@frozen(kw_only=True)
class Topology:
    cpus: int
    sockets: int
    cores: int
    threads: int


def topology(profile: Profile, notes: Notes) -> Topology:
    """Sockets, cores and threads whose product is the number of processors."""
    cpu = profile.cpu
    threads = cpu.threads or 1
    given = (cpu.sockets or 1) * (cpu.cores or 1) * threads
    # A base's number of processors makes way for a shape that the profile itself says.
    shaped = cpu.sockets or cpu.cores or cpu.threads
    count = given if shaped and profile.from_base("cpu.count") else cpu.count or given
    if cpu.sockets and cpu.cores:
        sockets, cores = cpu.sockets, cpu.cores
    elif cpu.cores:
        sockets, cores = max(1, count // (cpu.cores * threads)), cpu.cores
    else:
        sockets = cpu.sockets or 1
        cores = max(1, count // (sockets * threads))
    product = sockets * cores * threads
    if product != count:
        notes.error(
            "cpu.count",
            f"{sockets} sockets x {cores} cores x {threads} threads = {product},"
            f" but count = {count}",
            hint=f"set count = {product}, or leave sockets, cores and threads out",
        )
        count = product
    return Topology(cpus=count, sockets=sockets, cores=cores, threads=threads)


def _cpu(draft: Draft, accel: str) -> tuple[str, tuple[str, ...]]:
    wish = draft.profile.cpu
    text = wish.model or draft.defaults.cpu or ("host" if accel == "kvm" else "max")
    model, *features = text.split(",")
    known = draft.facts.qemu.cpu_models
    if known and model not in known:
        close = difflib.get_close_matches(model, sorted(known), 1)
        draft.notes.error(
            "cpu.model",
            f"QEMU {draft.facts.qemu.version_text} has no CPU model '{model}'",
            hint=f"did you mean '{close[0]}'?" if close else "try 'host', 'max' or 'qemu64'",
        )
    if model == "host" and accel == "tcg":
        draft.notes.warn(
            "cpu.model",
            "'host' needs KVM; 'max' is used",
            hint="leave cpu.model out to get what fits",
        )
        model = "max"
    for key, words in (("cpu.model", features), ("cpu.flags", wish.flags)):
        for word in words:
            if not _FEATURE.fullmatch(word):
                draft.notes.error(
                    key,
                    f"{word!r} is not a CPU feature",
                    hint="write +FEATURE or -FEATURE, and FEATURE=VALUE only after cpu.model",
                )
    off = draft.facts.host.kvm.cpu_off if accel == "kvm" and model in ("host", "max") else ()
    flags = [*(f"-{feature}" for feature in off), *features, *wish.flags]
    flags += ["-apic"] if draft.profile.machine.apic is False else []
    flags += ["-pae"] if draft.profile.machine.pae is False else []
    return model, tuple(flags)


def _memory(draft: Draft) -> tuple[int, int]:
    wish, host = draft.profile.memory, draft.facts.host
    size = wish.size or draft.defaults.memory
    if size % (1 << 20):
        draft.notes.error(
            "memory.size",
            f"{format_size(size)} is not a whole number of MiB",
            hint=f"write '{-(-size // (1 << 20))}MiB'",
        )
    current = wish.current or size
    if current > size:
        draft.notes.error(
            "memory.current",
            f"{format_size(current)} is more than memory.size, {format_size(size)}",
            hint="raise memory.size; it is the most the guest can have",
        )
    if current != size and "balloon0" not in draft.pci.places:
        draft.notes.error(
            "memory.current",
            "a lower current memory needs the balloon",
            hint="set memory.balloon = true",
        )
    if host.memory_total and size > host.memory_total:
        draft.notes.error(
            "memory.size",
            f"asks for {short_size(size)}, this computer has {short_size(host.memory_total)}",
            hint=f"{short_size(host.memory_available)} are free now",
            cause="refused",
        )
    elif host.memory_available and current > host.memory_available:
        draft.notes.warn(
            "memory.size",
            f"asks for {short_size(current)}, only {short_size(host.memory_available)} are free",
            hint="close something, or give the guest less",
            cause="host",
        )
    return size, current


def board(draft: Draft, accel: Literal["kvm", "tcg"]) -> Board:
    """The board's options."""
    wish, shape = draft.profile, topology(draft.profile, draft.notes)
    model, flags = _cpu(draft, accel)
    size, current = _memory(draft)
    found = draft.facts.qemu.machine(draft.machine)
    if found and shape.cpus > found.cpu_max:
        draft.notes.error(
            "cpu.count", f"machine {found.name} takes at most {found.cpu_max} processors"
        )
    elif accel == "kvm" and 0 < draft.facts.host.kvm.max_vcpus < shape.cpus:
        draft.notes.error(
            "cpu.count",
            f"this computer's KVM gives a machine at most"
            f" {draft.facts.host.kvm.max_vcpus} processors",
            cause="host",
        )
    return Board(
        machine=draft.machine,
        options=_options(draft, accel),
        accel=accel,
        cpu=model,
        cpu_flags=flags,
        cpus=shape.cpus,
        sockets=shape.sockets,
        cores=shape.cores,
        threads=shape.threads,
        memory=size,
        memory_current=current,
        rtc_base="localtime" if wish.clock.base == "localtime" else "utc",
        rtc_drift="slew" if wish.clock.drift == "slew" else "none",
        rtc_offset=draft.leases.rtc_offset,
    )


def _options(draft: Draft, accel: str) -> tuple[tuple[str, str], ...]:
    wish = draft.profile.machine
    smm = _smm(draft, accel)
    hpet = draft.defaults.hpet if wish.hpet is None else wish.hpet
    options = [("usb", "off"), ("dump-guest-core", "off")]
    options += [] if smm is None else [("smm", "on" if smm else "off")]
    options += [("acpi", "off")] if wish.acpi is False else []
    options += [] if hpet else [("hpet", "off")]
    return tuple(options)


def _smm(draft: Draft, accel: str) -> bool | None:
    """System management mode: on, off, or as QEMU decides."""
    wish, notes = draft.profile.machine, draft.notes
    missing = accel == "kvm" and not draft.facts.host.kvm.smm
    if missing and (wish.secure_boot or wish.smm):
        key = "secure_boot" if wish.secure_boot else "smm"
        what = "Secure Boot needs" if wish.secure_boot else "this asks for"
        notes.error(
            f"machine.{key}",
            f"{what} system management mode, and this computer's KVM has none",
            hint=f'set machine.{key} = false, or machine.accel = "tcg" (slow)',
            cause="host",
        )
    elif wish.secure_boot and wish.smm is False:
        notes.error(
            "machine.smm", "Secure Boot needs system management mode", hint="leave machine.smm out"
        )
    if missing:
        return False
    return True if wish.secure_boot else wish.smm
