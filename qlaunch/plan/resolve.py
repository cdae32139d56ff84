"""profile + facts + leases -> plan. The one place where the parts are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from qlaunch.errors import ProfileError, QlaunchError
from qlaunch.facts import Facts
from qlaunch.plan import board, boot, devices, disks, display, rules, usb
from qlaunch.plan.draft import Draft, is_q35, stable_bytes
from qlaunch.plan.model import Board, Chardev, Device, Disk, Drive, Leases, Lifecycle, Places, Plan
from qlaunch.plan.notes import Finding, Notes
from qlaunch.plan.pci import Pci
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
        """Raise what keeps the machine from starting, all of it in one.

        Raises: ProfileError, HostError, ConflictError or RefusedError by the first finding.
        """
        if not self.errors:
            return
        first, *others = self.errors
        more = tuple(ProfileError(item.where, item.message, hint=item.hint) for item in others)
        error: QlaunchError = first.to_error(more)
        raise error


def resolve(profile: Profile, facts: Facts, leases: Leases, places: Places) -> Resolution:
    """Decide everything about the machine that `profile` wishes for."""
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
        pci=Pci(q35=is_q35(machine), notes=notes, leased=leases.places),
    )
    rules.check(draft)
    draft.pci.place(
        [
            *usb.requests(draft),
            *devices.requests(draft),
            *disks.request_controllers(draft),
            *disks.request_addresses(draft),
        ]
    )
    plan = _assemble(draft, shape=board.board(draft, accel))
    return Resolution(plan=plan, leases=_leases(draft, asked, plan), findings=tuple(notes.findings))


def _assemble(draft: Draft, shape: Board) -> Plan:
    profile, ports, positions = draft.profile, usb.Ports(draft=draft), disks.Positions(draft=draft)
    network_boot = boot.network_boot(draft)
    all_disks, all_drives = disks.disks(draft, positions), disks.drives(draft, positions)
    cards = devices.nics(draft, network_boot=network_boot)
    inputs = usb.inputs(draft, ports)
    redir_chardevs, redirs = usb.redirections(draft, ports)
    sound_port = ports.free("sound.model", "sound0") if profile.sound.model == "usb" else None
    audio, sound = devices.sound(draft, sound_port)
    lines = devices.lines(draft)
    firmware, tpm = boot.firmware(draft), boot.tpm(draft)
    first, later = boot.order(draft, boot.Candidates.of(all_disks, all_drives, cards))
    index = {f"{ident}-dev": number for number, ident in enumerate(first)}
    tpm_chardevs, tpm_devices = _tpm(draft, tpm)
    return Plan(
        name=draft.name,
        title=profile.title,
        uuid=_uuid(draft),
        guest=draft.guest,
        profile=profile.file,
        emulator=draft.facts.qemu.path,
        qemu_version=draft.facts.qemu.version_text,
        places=draft.places,
        board=shape,
        boot=boot.boot_plan(draft, first, later),
        lifecycle=_lifecycle(profile),
        display=display.display(draft),
        firmware=firmware,
        tpm=tpm,
        globals=_globals(firmware is not None and firmware.secure),
        controllers=(
            *draft.pci.root_ports(),
            *usb.controllers(draft),
            *disks.controllers(draft, all_disks, all_drives),
        ),
        disks=tuple(evolve(disk, device=_boot_index(disk.device, index)) for disk in all_disks),
        drives=tuple(
            evolve(drive, device=_boot_index(drive.device, index)) for drive in all_drives
        ),
        nics=tuple(evolve(nic, device=_boot_index(nic.device, index)) for nic in cards),
        shares=devices.shares(draft),
        chardevs=(*devices.monitors(draft), *lines.chardevs, *redir_chardevs, *tpm_chardevs),
        devices=(
            *devices.video(draft),
            *lines.devices,
            *inputs,
            *sound,
            *redirs,
            *devices.extras(draft),
            *tpm_devices,
        ),
        audio=audio,
        serials=tuple(lines.serials),
        agent=lines.agent,
        rng="rng0" in draft.pci.places,
        scope=draft.facts.host.systemd_scope,
        limits=_limits(profile.limits),
        viewer=profile.view.viewer or "auto",
        fullscreen=bool(profile.view.fullscreen),
        extra_args=profile.qemu.args,
    )


def _boot_index(device: Device, index: Mapping[str, int]) -> Device:
    if device.id not in index:
        return device
    return evolve(device, props={**device.props, "bootindex": index[device.id]})


def _globals(secure: bool) -> tuple[tuple[str, str, str], ...]:
    # With Secure Boot only code in system management mode may write the variables (OVMF README).
    return (("cfi.pflash01", "secure", "on"),) if secure else ()


def _tpm(draft: Draft, folder: str | None) -> tuple[tuple[Chardev, ...], tuple[Device, ...]]:
    if folder is None:
        return (), ()
    driver = "tpm-crb" if draft.q35 else "tpm-tis"
    draft.has("machine.tpm", driver)
    chardev = Chardev(id="tpm-chr", kind="tpm")
    return (chardev,), (Device(id="tpm0-dev", driver=driver, props={"tpmdev": "tpm0"}),)


def _lifecycle(profile: Profile) -> Lifecycle:
    wish, plain = profile.lifecycle, Lifecycle()
    return Lifecycle(
        on_poweroff=wish.on_poweroff or plain.on_poweroff,  # type: ignore[arg-type]
        on_reboot=wish.on_reboot or plain.on_reboot,  # type: ignore[arg-type]
        on_crash=wish.on_crash or plain.on_crash,  # type: ignore[arg-type]
        watchdog_action=profile.machine.watchdog_action or plain.watchdog_action,
        stop_timeout=wish.stop_timeout or plain.stop_timeout,
    )


def _limits(wish: Limits) -> dict[str, str]:
    """The properties of the machine's systemd scope (systemd.resource-control(5))."""
    found = {}
    for name, scope_property in _SLICE_PROPERTIES.items():
        value = getattr(wish, name)
        if value is not None:
            found[scope_property] = f"{value}%" if name == "cpu_quota" else str(value)
    return found


def _uuid(draft: Draft) -> str:
    if draft.profile.uuid:
        return draft.profile.uuid.lower()
    if draft.leases.uuid:
        return draft.leases.uuid
    raw = bytearray(
        stable_bytes("uuid", draft.facts.host.machine_id, str(draft.facts.host.uid), draft.name)[
            :16
        ]
    )
    # RFC 9562, version 8: sixteen bytes of our own making.
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _leases(draft: Draft, asked: str, plan: Plan) -> Leases:
    """What this start gives the machine for good. Devices that are gone for now keep their
    address: who comes back finds it."""
    return evolve(
        draft.leases,
        machine_asked=asked,
        machine_type=plan.board.machine,
        uuid=plan.uuid,
        macs={**draft.leases.macs, **{nic.id: nic.mac for nic in plan.nics}},
        places={**draft.leases.places, **_places(draft, plan.disks, plan.drives, plan.devices)},
        buses={**draft.leases.buses, **{disk.id: disk.bus for disk in plan.disks}},
        once_done=draft.leases.once_done
        if draft.leases.once_done == draft.profile.boot.once
        else None,
    )


def _places(
    draft: Draft, all_disks: Sequence[Disk], all_drives: Sequence[Drive], others: Sequence[Device]
) -> dict[str, str]:
    found = {ident: str(place) for ident, place in draft.pci.places.items()}
    items: tuple[Disk | Drive, ...] = (*all_disks, *all_drives)
    for item in items:
        bus, _, number = str(item.device.props.get("bus", "")).partition(".")
        if "scsi-id" in item.device.props:
            found[item.id] = f"scsi/{item.device.props['scsi-id']}"
        elif bus == "ide" and "unit" in item.device.props:
            found[item.id] = f"ide/{int(number) * 2 + int(item.device.props['unit'])}"
        elif bus in ("ide", "ahci0") and number.isdigit():
            found[item.id] = f"sata/{number}"
    for device in others:
        if device.props.get("bus") == "usb.0" and "port" in device.props:
            found[device.id] = f"usb/{device.props['port']}"
    return found
