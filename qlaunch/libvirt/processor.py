"""Processors, memory, features and the clock of a domain, and what it may take of the host."""

from __future__ import annotations

import math
import re

from qlaunch.libvirt import words
from qlaunch.libvirt.element import Element
from qlaunch.libvirt.wish import Wish

_MIB = 1 << 20
_MODES = {"host-passthrough": "host", "maximum": "max", "host-model": "host"}
_HYPERV = (
    "relaxed", "vapic", "vpindex", "runtime", "synic", "stimer", "reset", "frequencies",
    "reenlightenment", "tlbflush", "ipi", "evmcs", "avic", "emsr_bitmap", "xmm_input",
)  # fmt: skip
_KVM = {"hint-dedicated": "kvm-hint-dedicated", "poll-control": "kvm-poll-control"}
# libvirt's name of a CPU feature -> QEMU's, where they are not the same.
_FEATURES = {"pclmuldq": "pclmulqdq", "cmp_legacy": "cmp-legacy"}


def processor(domain: Element, wish: Wish) -> None:
    """Everything about processors, memory, features, clock and limits."""
    count = _count(domain, wish)
    _features(domain.within("features"), wish)
    _cpu(domain.first("cpu"), wish, count)
    _memory(domain, wish)
    _clock(domain.within("clock"), wish)
    _limits(domain, wish, count)


# ---- processors ---------------------------------------------------------------------------------


def _count(domain: Element, wish: Wish) -> int:
    vcpu = domain.within("vcpu")
    count = words.number(vcpu.words()) or 1
    current = words.number(vcpu.attribute("current"))
    if current is not None and 0 < current < count:
        what = f"the guest gets {current} processors; more cannot be added while it runs"
        wish.report.different(vcpu, what, attribute="current")
        count = current
    if cpuset := vcpu.attribute("cpuset"):
        found = words.cpus(cpuset)
        if found:
            wish.say(vcpu, "limits.cpus", words.cpu_list(found))
        else:
            wish.report.unsupported(vcpu, f"{cpuset[:40]!r} is no list", attribute="cpuset")
    return max(1, min(count, 1024))


def _cpu(cpu: Element | None, wish: Wish, count: int) -> None:
    cpu = cpu or Element("cpu", 0)
    mode, model = cpu.attribute("mode"), cpu.within("model")
    name = _MODES.get(mode) or model.words() or "qemu64"
    if mode == "host-model":
        what = "the whole processor of the host is shown (`host`)"
        wish.report.different(cpu, what, attribute="mode")
    model.words()
    if vendor := model.attribute("vendor_id"):
        wish.cpu_values.append(f"vendor={vendor}")
    for feature in cpu.each("feature"):
        flag = feature.attribute("name")
        flag = _FEATURES.get(flag, flag.replace("_", "-"))
        policy = feature.attribute("policy") or "require"
        if policy == "optional":
            what = "it is asked for; QEMU warns where the host has it not"
            wish.report.different(feature, what, attribute="policy")
        sign = "-" if policy in ("disable", "forbid") else "+"
        if re.fullmatch(r"[A-Za-z0-9.-]{1,40}", flag):
            wish.cpu_flags.append(f"{sign}{flag}")
        else:
            wish.report.unsupported(feature, "is no CPU feature")
    topology = cpu.within("topology")
    shape = [words.number(topology.attribute(key)) for key in ("sockets", "cores", "threads")]
    sockets, cores, threads = (each or 0 for each in shape)
    if not all((sockets, cores, threads)):
        sockets, cores, threads = count, 1, 1
    elif sockets * cores * threads != count:
        # Fewer processors than seats for them: libvirt leaves the last seats empty.
        per_socket = cores * threads
        what = f"{sockets} x {cores} x {threads} seats for {count} processors"
        wish.report.different(topology, what)
        sockets, rest = divmod(count, per_socket)
        if rest:
            sockets, cores, threads = count, 1, 1
    _say_cpu(cpu, wish, name, (sockets, cores, threads))


def _say_cpu(cpu: Element, wish: Wish, name: str, shape: tuple[int, int, int]) -> None:
    for key, value in zip(("sockets", "cores", "threads"), shape, strict=True):
        wish.say(cpu, f"cpu.{key}", value)
    wish.say(cpu, "cpu.count", math.prod(shape))
    wish.say(cpu, "cpu.model", name)


def features_of_cpu(domain: Element, wish: Wish) -> None:
    """The processor's features, which many elements ask for; to be called when all are read."""
    cpu = domain.first("cpu") or domain
    model = wish.get("cpu.model") or "qemu64"
    wish.say(cpu, "cpu.model", ",".join([model, *dict.fromkeys(wish.cpu_values)]))
    flags = tuple(dict.fromkeys(wish.cpu_flags))[:256]
    if flags:
        wish.say(cpu, "cpu.flags", flags)


# ---- features -----------------------------------------------------------------------------------


def _features(features: Element, wish: Wish) -> None:
    wish.say(features, "machine.acpi", features.first("acpi") is not None)
    features.first("pae")  # QEMU's processors have it, said or not
    apic = features.first("apic")
    if apic is not None and (eoi := apic.attribute("eoi")):
        wish.cpu_flags.append("+kvm-pv-eoi" if eoi == "on" else "-kvm-pv-eoi")
    smm = features.first("smm")
    if smm is not None:
        wish.say(smm, "machine.smm", smm.is_on("state", otherwise=True))
    vmport = features.first("vmport")
    if vmport is not None and vmport.attribute("state"):
        wish.args += ["-machine", f"vmport={'on' if vmport.is_on('state') else 'off'}"]
    pmu = features.first("pmu")
    if pmu is not None and pmu.attribute("state"):
        wish.cpu_flags.append("+pmu" if pmu.is_on("state") else "-pmu")
    _hyperv(features.within("hyperv"), wish)
    kvm = features.within("kvm")
    for child in kvm.each("hidden", *_KVM):
        on = child.is_on("state")
        if child.tag == "hidden":
            wish.cpu_flags += ["-kvm"] if on else []
        else:
            wish.cpu_flags += [f"+{_KVM[child.tag]}"] if on else []


def _hyperv(hyperv: Element, wish: Wish) -> None:
    if hyperv.attribute("mode") == "passthrough":
        wish.cpu_flags.append("+hv-passthrough")
    for child in hyperv.each(*_HYPERV, "spinlocks", "vendor_id"):
        if not child.is_on("state"):
            child.take()
            continue
        name = f"hv-{child.tag.replace('_', '-')}"
        if child.tag == "spinlocks":
            retries = words.number(child.attribute("retries")) or 8191
            wish.cpu_values.append(f"{name}={retries:#x}")
        elif child.tag == "vendor_id":
            wish.cpu_values.append(f"{name}={child.attribute('value')}")
        else:
            wish.cpu_flags.append(f"+{name}")
            if child.within("direct").is_on("state"):
                wish.cpu_flags.append("+hv-stimer-direct")


# ---- memory -------------------------------------------------------------------------------------


def _memory(domain: Element, wish: Wish) -> None:
    element = domain.within("memory")
    size = words.size(element.words(), element.attribute("unit"))
    element.attribute("dumpCore")
    if not size:
        wish.report.unsupported(element, "is no size of memory")
        return
    # libvirt gives whole MiB as well.
    size = -(-size // _MIB) * _MIB
    wish.say(element, "memory.size", size)
    current = domain.first("currentMemory")
    if current is not None:
        now = words.size(current.words(), current.attribute("unit"))
        if now is None:
            wish.report.unsupported(current, "is no size of memory")
        elif now < size:
            wish.say(current, "memory.current", max(_MIB, -(-now // _MIB) * _MIB))


# ---- clock --------------------------------------------------------------------------------------


def _clock(clock: Element, wish: Wish) -> None:
    offset = clock.attribute("offset") or "utc"
    base = "utc"
    if offset == "localtime" or (offset == "variable" and clock.attribute("basis") == "localtime"):
        base = "localtime"
    if offset == "timezone":
        what = "the clock shows UTC, or this computer's local time"
        wish.report.different(clock, what, attribute="timezone")
    elif offset == "absolute":
        wish.report.different(clock, "the clock shows the real time", attribute="start")
    adjustment = clock.attribute("adjustment")
    if adjustment not in ("", "0", "reset"):
        what = "the clock starts with the real time"
        wish.report.different(clock, what, attribute="adjustment")
    wish.say(clock, "clock.base", base)
    wish.say(clock, "clock.drift", "none")
    wish.say(clock, "machine.hpet", value=True)
    for timer in clock.each("timer"):
        _timer(timer, wish)


def _timer(timer: Element, wish: Wish) -> None:
    name, policy = timer.attribute("name"), timer.attribute("tickpolicy")
    present = timer.attribute("present")
    off = present == "no"
    if name == "rtc" and policy == "catchup":
        wish.say(timer, "clock.drift", "slew")
        catchup = timer.first("catchup")
        if catchup is not None:
            wish.report.different(catchup, "QEMU's own speed is taken")
    elif name == "hpet":
        wish.say(timer, "machine.hpet", not off)
    elif name == "pit" and policy == "discard":
        wish.args += ["-global", "kvm-pit.lost_tick_policy=discard"]
    elif name == "kvmclock":
        wish.cpu_flags += ["-kvmclock"] if off else []
    elif name == "hypervclock":
        wish.cpu_flags += [] if off else ["+hv-time"]
    elif name == "tsc":
        frequency = words.number(timer.attribute("frequency"))
        wish.cpu_values += [f"tsc-frequency={frequency}"] if frequency else []
    elif name not in ("rtc", "pit"):
        wish.report.unsupported(timer, "there is no such timer")
    if (track := timer.attribute("track")) and track not in ("guest", "boot"):
        wish.report.different(timer, "the clock follows this computer's", attribute="track")


# ---- limits -------------------------------------------------------------------------------------


def _limits(domain: Element, wish: Wish, count: int) -> None:
    tune = domain.within("cputune")
    period = words.number(tune.within("period").words()) or 100_000
    quota = words.number(tune.within("quota").words())
    whole = words.number(tune.within("global_quota").words())
    whole_period = words.number(tune.within("global_period").words()) or 100_000
    if quota is not None and quota > 0 and period > 0:
        percent = math.ceil(quota * 100 * count / period)
        wish.say(tune, "limits.cpu_quota", percent, f"{count} processors, {quota} of {period} us")
    if whole is not None and whole > 0 and whole_period > 0:
        wish.say(tune, "limits.cpu_quota", math.ceil(whole * 100 / whole_period))
    pinned: set[int] = set()
    for pin in tune.each("vcpupin"):
        pinned |= words.cpus(pin.attribute("cpuset")) or set()
        wish.report.different(pin, "all processors share these CPUs of the host (limits.cpus)")
    if pinned:
        wish.say(tune, "limits.cpus", words.cpu_list(pinned))
    weight = words.number(domain.within("blkiotune", "weight").words())
    if weight is not None:
        wish.say(domain.within("blkiotune"), "limits.io_weight", weight)
    hard = domain.within("memtune").first("hard_limit")
    if hard is not None:
        size = words.size(hard.words(), hard.attribute("unit"))
        if size is None:
            wish.report.unsupported(hard, "is no size")
        elif size < 1 << 50:  # libvirt writes endless numbers for "no limit"
            wish.say(hard, "limits.memory", size)
