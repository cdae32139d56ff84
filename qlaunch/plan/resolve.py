"""profile + facts + leases -> plan. The one place where the parts are put together."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve, frozen

from qlaunch.errors import ProfileError
from qlaunch.facts import Facts
from qlaunch.plan import (
    board,
    boot,
    clashes,
    devices,
    disks,
    display,
    firmware,
    identity,
    lines,
    nics,
    rules,
    usb,
)
from qlaunch.plan.draft import Draft, is_q35
from qlaunch.plan.model import Board, BootPlan, Leases, Lifecycle, Places, Plan
from qlaunch.plan.notes import Finding, Notes
from qlaunch.plan.pci import Pci
from qlaunch.plan.seats import Seats
from qlaunch.profile.model import Profile
from qlaunch.profile.tables import Limits

_SLICE_PROPERTIES = {
    "memory": "MemoryMax",
    "cpu_quota": "CPUQuota",
    "cpus": "AllowedCPUs",
    "io_weight": "IOWeight",
    "tasks": "TasksMax",
}


@frozen(kw_only=True)
class Resolution:
    """A plan, the leases it makes, and all that was found wrong or doubtful on the way.

    The plan is there even when there are errors (`argv` shows it); nothing starts from it then.
    """

    plan: Plan
    leases: Leases
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "warning")

    def raise_errors(self) -> None:
        """Raise what keeps the machine from starting, all of it in one. What the author of the
        profile must mend comes first.

        Raises: ProfileError, HostError, ConflictError or RefusedError by the first finding.
        """
        if not self.errors:
            return
        first, *others = sorted(self.errors, key=lambda finding: finding.cause != "profile")
        raise first.to_error(
            tuple(ProfileError(item.where, item.message, hint=item.hint) for item in others)
        )


def resolve(
    profile: Profile,
    facts: Facts,
    leases: Leases,
    places: Places,
    heads: Mapping[str, str] | None = None,
) -> Resolution:
    """Decide everything about the machine that `profile` wishes for.

    `heads` are the images (absolute paths) that disks with snapshots are on now, by the disk's id.
    """
    notes = Notes(profile)
    asked, machine = board.machine_type(profile, facts, leases, notes)
    accel = board.accelerator(profile, facts, notes)
    draft = Draft(
        profile=profile,
        facts=facts,
        leases=leases,
        places=places,
        notes=notes,
        machine=machine,
        spice=display.spice_wanted(profile, facts, notes),
        pci=Pci(q35=is_q35(machine), notes=notes, leased=leases.places, said=profile.machine.pci),
        seats=Seats(notes=notes, leased=leases.places),
        heads=heads or {},
    )
    _give_addresses(draft)
    rules.check(draft)
    plan = _assemble(draft, board.board(draft, accel))
    clashes.check(draft, plan)
    leases = identity.leases(draft, asked, plan)
    return Resolution(plan=plan, leases=leases, findings=tuple(notes.findings))


def _give_addresses(draft: Draft) -> None:
    draft.pci.place([*usb.requests(draft), *devices.requests(draft), *disks.requests(draft)])
    draft.seats.usb_ports = usb.PORTS.get(usb.controller_of(draft), 0)
    draft.seats.place([*usb.seats(draft), *disks.seats(draft), *lines.seats(draft)])


def _assemble(draft: Draft, shape: Board) -> Plan:
    """The plan without its devices, and then with them."""
    profile = draft.profile
    plan = Plan(
        name=draft.name,
        title=profile.title,
        uuid=identity.uuid(draft),
        guest=draft.guest,
        profile=profile.file,
        emulator=draft.facts.qemu.path,
        qemu_version=draft.facts.qemu.version_text,
        places=draft.places,
        board=shape,
        boot=BootPlan(),
        lifecycle=_lifecycle(profile),
        display=display.display(draft),
        firmware=firmware.firmware(draft),
        tpm=firmware.tpm(draft),
        rng=bool(profile.machine.rng),
        scope=draft.facts.host.systemd_scope,
        limits=_limits(profile.limits),
        view=display.view(profile),
        ssh_user=profile.ssh.user,
        ssh_port=profile.ssh.port or 22,
        sandbox=profile.security.sandbox is not False,
        tcp=bool(profile.security.tcp),
        readable=profile.security.read,
        writable=profile.security.write,
        extra_args=profile.qemu.args,
    )
    return _with_devices(draft, _with_drives(draft, plan))


def _with_drives(draft: Draft, plan: Plan) -> Plan:
    """`plan` with all that can be booted from, each with its turn."""
    all_disks, all_drives = disks.disks(draft), disks.drives(draft)
    cards = nics.nics(draft, network_boot=boot.network_boot(draft))
    turns = boot.order(draft, boot.Candidates.of(all_disks, all_drives, cards))
    # With Secure Boot only code in system management mode may write the variables (OVMF README).
    secure = plan.firmware is not None and plan.firmware.secure
    flash = (("cfi.pflash01", "secure", "on"),) if secure else ()
    return evolve(
        plan,
        boot=boot.boot_plan(draft, turns),
        globals=(*flash, *turns.globals()),
        controllers=(
            *draft.pci.root_ports(),
            *usb.controllers(draft),
            *disks.controllers(draft),
        ),
        disks=tuple(evolve(disk, device=turns.of_device(disk.device)) for disk in all_disks),
        drives=tuple(evolve(drive, device=turns.of_device(drive.device)) for drive in all_drives),
        nics=tuple(evolve(nic, device=turns.of_device(nic.device)) for nic in cards),
    )


def _with_devices(draft: Draft, plan: Plan) -> Plan:
    """`plan` with everything else that is plugged in."""
    wires = lines.lines(draft)
    redir_chardevs, redirs = usb.redirections(draft)
    tpm_chardevs, tpm_devices = firmware.tpm_devices(draft)
    audio, sound = devices.sound(draft)
    return evolve(
        plan,
        shares=devices.shares(draft),
        chardevs=(*lines.monitors(draft), *wires.chardevs, *redir_chardevs, *tpm_chardevs),
        devices=(
            *devices.video(draft),
            *wires.devices,
            *usb.inputs(draft),
            *sound,
            *redirs,
            *usb.host_devices(draft),
            *devices.extras(draft),
            *tpm_devices,
        ),
        audio=audio,
        serials=tuple(wires.serials),
        agent=wires.agent,
    )


def _lifecycle(profile: Profile) -> Lifecycle:
    wish, plain = profile.lifecycle, Lifecycle()
    return Lifecycle(
        on_poweroff=wish.on_poweroff or plain.on_poweroff,  # type: ignore[arg-type]
        on_reboot=wish.on_reboot or plain.on_reboot,  # type: ignore[arg-type]
        on_crash=wish.on_crash or plain.on_crash,  # type: ignore[arg-type]
        watchdog_action=profile.machine.watchdog_action or plain.watchdog_action,
        stop_timeout=wish.stop_timeout or plain.stop_timeout,
        power_cycle=bool(wish.power_cycle),
        after=wish.after,
        start_delay=wish.start_delay or plain.start_delay,
    )


def _limits(wish: Limits) -> dict[str, str]:
    """The properties of the machine's systemd scope (systemd.resource-control(5))."""
    found = {}
    for name, scope_property in _SLICE_PROPERTIES.items():
        value = getattr(wish, name)
        if value is not None:
            found[scope_property] = f"{value}%" if name == "cpu_quota" else str(value)
    return found
