"""The tables of which a profile has one each: `[machine]`, `[cpu]`, `[memory]` and so on."""

from __future__ import annotations

from attrs import frozen

from qlaunch.profile import fields as key

# What is tried where the profile does not say it.
BOOT_ORDER = ("disk", "cdrom", "floppy")
BOOT_KINDS = ("disk", "cdrom", "floppy", "network")


@frozen(kw_only=True)
class Secret:
    """Where a secret is kept; exactly one of the three is set. Never the secret itself."""

    file: str | None = key.path(
        "A file that holds it; a newline at its end does not count.", example="~/.secrets/xp"
    )
    env: str | None = key.text(
        "A variable in the environment of `qlaunch up`.",
        pattern=r"[A-Za-z_][A-Za-z0-9_]{0,99}",
        pattern_words="the name of an environment variable, such as 'XP_PASSWORD'",
        example="XP_PASSWORD",
    )
    systemd_credential: str | None = key.text(
        "A credential that systemd hands to the service.",
        spelled="systemd-credential",
        pattern=r"[A-Za-z0-9_.@:-]{1,100}",
        pattern_words="the name of a systemd credential, such as 'xp-password'",
        example="xp-password",
    )


@frozen(kw_only=True)
class Machine:
    """The board: its type, its processor's accelerator, its firmware and small parts."""

    type: str | None = key.text(
        "Machine type as QEMU names it: `pc` (i440fx), `q35`, or a versioned name.",
        otherwise="`pc` for Windows XP and older guests, else `q35`;"
        " pinned to its version at the first start",
        example="pc-i440fx-7.2",
    )
    arch: str | None = key.choice(
        "Processor architecture of the guest.", "x86_64", "i386", otherwise="`x86_64`"
    )
    emulator: str | None = key.path(
        "The QEMU program to run.",
        otherwise="`qemu-system-ARCH` from PATH",
        example="/usr/bin/qemu-system-x86_64",
    )
    accel: str | None = key.choice(
        "How the guest's code runs: `kvm`, `tcg` (emulated, slow), or `auto`: KVM, else TCG with"
        " a warning.",
        "auto",
        "kvm",
        "tcg",
        otherwise="`auto`",
    )
    acpi: bool | None = key.boolean("ACPI tables and the power button.", otherwise="true")
    apic: bool | None = key.boolean("The processors' local APIC.", otherwise="true")
    pae: bool | None = key.boolean("Physical address extension of the processor.", otherwise="true")
    hpet: bool | None = key.boolean(
        "The high precision event timer.", otherwise="false for Windows, else true"
    )
    smm: bool | None = key.boolean(
        "System management mode.",
        otherwise="true where the accelerator has it; Secure Boot needs it",
    )
    firmware: str | None = key.choice(
        "What the guest boots with.", "bios", "uefi", otherwise="`bios`"
    )
    secure_boot: bool | None = key.boolean(
        "UEFI Secure Boot with the usual keys enrolled.",
        otherwise='false; needs `firmware = "uefi"`',
    )
    nvram: str | None = key.path(
        "The file of UEFI variables.",
        otherwise="`nvram.fd` (or .qcow2) beside the machine's disks",
        example="nvram.fd",
    )
    tpm: bool | None = key.boolean("A TPM 2.0 (emulated by swtpm).", otherwise="false")
    rng: bool | None = key.boolean(
        "A virtio random number generator.", otherwise="true for Linux, else false"
    )
    watchdog: str | None = key.choice(
        "A watchdog device.", "none", "i6300esb", "ib700", otherwise="`none`"
    )
    watchdog_action: str | None = key.choice(
        "What happens when the watchdog fires.",
        "reset", "shutdown", "poweroff", "pause", "inject-nmi", "none", otherwise="`reset`",
    )  # fmt: skip
    panic: bool | None = key.boolean(
        "A pvpanic device, by which the guest tells that it crashed.",
        otherwise="true for Linux, else false (Windows XP would show its new-hardware wizard)",
    )
    pci: tuple[str, ...] = key.words(
        "PCI addresses of parts that have no `address` of their own, as ID=ADDRESS: `balloon0`,"
        " `rng0`, `watchdog0`, the controllers `scsi0`, `ahci0` and `vser0` (channels), and a"
        " share's `ID-dev`. For a guest that was installed elsewhere, so that it notices nothing.",
        otherwise="chosen once, then kept",
        example='["balloon0=06.0", "vser0=05.0"]',
        pattern=rf"[a-z][a-z0-9_-]{{0,23}}={key.PCI_ADDRESS['pattern']}",
        pattern_words="an id and a PCI address, such as 'balloon0=06.0'",
    )
    generation_id: bool | None = key.boolean(
        "A VM generation id, by which a guest learns that it was reverted (Windows 8, Linux 5.18"
        " and later). Going back to a snapshot starts QEMU anew then.",
        otherwise="true for Windows 10 and 11, else false",
    )


@frozen(kw_only=True)
class Cpu:
    """The virtual processors."""

    model: str | None = key.text(
        "CPU model as QEMU names it, features may follow after commas: `kvm64`,"
        " `qemu64,model=3`, `host`, `max`.",
        otherwise="`host` with KVM, `max` with TCG; `qemu64` for Windows XP",
        example="qemu64,model=3",
    )
    flags: tuple[str, ...] = key.words(
        "CPU features to add or to take away.",
        example='["+ssse3", "-pni"]',
        pattern=r"[+-][A-Za-z0-9_.-]+(=[A-Za-z0-9_.-]+)?",
        pattern_words="a feature with + or - before it",
    )
    count: int | None = key.integer(
        "Number of virtual processors.",
        1,
        1024,
        otherwise="sockets x cores x threads, else 1; 2 for @linux and @windows",
    )
    sockets: int | None = key.integer("Sockets.", 1, 1024, otherwise="1 (what `count` leaves)")
    cores: int | None = key.integer("Cores in a socket.", 1, 1024, otherwise="what `count` leaves")
    threads: int | None = key.integer("Threads in a core.", 1, 16, otherwise="1")


@frozen(kw_only=True)
class Memory:
    """The guest's RAM."""

    size: int | None = key.size(
        "RAM of the guest, at most.",
        otherwise="512MiB for Windows XP, 2GiB for Linux, 4GiB for newer Windows, else 256MiB",
        example="2GiB",
        least=1 << 20,
    )
    current: int | None = key.size(
        "RAM that the guest keeps after the balloon took the rest.",
        otherwise="`size`",
        example="1GiB",
        least=1 << 20,
    )
    balloon: bool | None = key.boolean(
        "A virtio balloon, by which RAM can be taken back.",
        otherwise="true unless the guest is DOS",
    )


@frozen(kw_only=True)
class Clock:
    """The guest's real-time clock."""

    base: str | None = key.choice(
        "What the clock shows at start.",
        "utc",
        "localtime",
        otherwise="`localtime` for Windows and DOS, else `utc`",
    )
    drift: str | None = key.choice(
        "What happens to lost timer ticks: `slew` injects them again.",
        "none",
        "slew",
        otherwise="`slew` for Windows XP and 2000, else `none`",
    )


@frozen(kw_only=True)
class Boot:
    """What the guest starts from."""

    order: tuple[str, ...] = key.words(
        f"Devices in the order they are tried: kinds ({', '.join(BOOT_KINDS)}) or ids.",
        otherwise='`["disk", "cdrom", "floppy"]`',
        example='["cdrom", "disk"]',
    )
    once: str | None = key.text(
        "A kind or an id that is tried first until the guest restarts itself for the first time."
        " An installer's CD does not start again after its first reboot.",
        otherwise="nothing",
        example="cdrom",
    )
    menu: bool | None = key.boolean("Show the firmware's boot menu.", otherwise="false")
    menu_timeout: float | None = key.duration(
        "How long the boot menu waits.", otherwise="the firmware's own time", most=60, example="3s"
    )
    kernel: str | None = key.path(
        "A Linux kernel to start directly.",
        example="vmlinuz",
        otherwise="the guest boots from its devices",
    )
    initrd: str | None = key.path("The initial RAM disk for `kernel`.", example="initrd.img")
    append: str | None = key.text(
        "The command line for `kernel`.", example="console=ttyS0 root=/dev/vda1"
    )


@frozen(kw_only=True)
class Lifecycle:
    """What qlaunch does when the guest ends by itself, and how long a stop may take."""

    on_poweroff: str | None = key.choice(
        "The guest powered off.",
        "destroy",
        "restart",
        "preserve",
        otherwise="`destroy`: the machine is stopped",
    )
    on_reboot: str | None = key.choice(
        "The guest restarted.", "destroy", "restart", "preserve", otherwise="`restart`"
    )
    power_cycle: bool | None = key.boolean(
        "The guest's restart is a full power cycle once the profile or QEMU is another one.",
        otherwise="false",
    )
    on_crash: str | None = key.choice(
        "The guest panicked, or QEMU died. `dump` keeps its memory for a debugger, and ends it.",
        "destroy",
        "restart",
        "preserve",
        "dump",
        otherwise="`destroy`",
    )
    stop_timeout: float | None = key.duration(
        "How long `down` waits for the guest to power off.",
        otherwise="`90s`",
        least=1,
        most=86400,
        example="3min",
    )
    after: tuple[str, ...] = key.words(
        "Machines that start before this one and stop after it (`--all`, with the computer).",
        example='["dc"]',
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}",
        pattern_words="the name of a machine",
    )
    start_delay: float | None = key.duration(
        "How long this machine waits once those in `after` run.",
        otherwise="`0s`",
        least=0,
        most=3600,
        example="30s",
    )


@frozen(kw_only=True)
class Video:
    """The graphics card."""

    model: str | None = key.choice(
        "Graphics card.",
        "qxl",
        "std",
        "virtio",
        "cirrus",
        "none",
        otherwise="`qxl` for Windows with SPICE, `virtio` for Linux, else `std`",
    )
    vram: int | None = key.size(
        "Video memory (QXL: for surfaces).",
        otherwise="64MiB with QXL, 16MiB with std",
        least=1 << 20,
        most=1 << 32,
        example="64MiB",
    )
    ram: int | None = key.size("QXL's RAM bar.", otherwise="64MiB", least=1 << 20, most=1 << 32)
    vgamem: int | None = key.size(
        "QXL's frame buffer: bounds the resolution.", otherwise="16MiB", least=1 << 20, most=1 << 29
    )
    heads: int | None = key.integer("Number of screens.", 1, 16, otherwise="1")
    address: str | None = key.text(
        "PCI address.", otherwise="chosen once, then kept", example="02.0", **key.PCI_ADDRESS
    )


@frozen(kw_only=True)
class Sound:
    """The sound card."""

    model: str | None = key.choice(
        "Sound card. `hda` is Intel's HD Audio of ICH9, `ich6` its elder, which libvirt gave.",
        "none",
        "ac97",
        "hda",
        "ich6",
        "usb",
        otherwise="`ac97` for Windows XP, `hda` for newer Windows, else `none`",
    )
    address: str | None = key.text(
        "PCI address (USB port for `usb`).", otherwise="chosen once, then kept", example="04.0"
    )


@frozen(kw_only=True)
class Usb:
    """The USB controller and the slots for a client's USB devices."""

    controller: str | None = key.choice(
        "`ich9-ehci1` brings three UHCI companions (what Windows XP can drive), `xhci` is for"
        " newer guests.",
        "none",
        "piix3-uhci",
        "ich9-ehci1",
        "xhci",
        otherwise="`ich9-ehci1` for Windows XP and 7, else `xhci`; none for DOS",
    )
    address: str | None = key.text(
        "PCI address of the controller (EHCI: function 7, its companions take 0 to 2).",
        otherwise="chosen once, then kept",
        example="09.7",
        **key.PCI_ADDRESS,
    )
    redirect: int | None = key.integer(
        "Slots for USB devices of a SPICE client.",
        0,
        15,
        otherwise="4 for Windows with SPICE, else 0",
    )
    redirect_ports: tuple[int, ...] = key.numbers(
        "USB ports of the redirection slots, in order.",
        1,
        15,
        otherwise="free ports",
        example="[4, 5, 6, 3]",
    )
    filter: tuple[str, ...] = key.words(
        "Which devices a client may bring in, the first rule that fits counts and what none fits is"
        " refused: `allow` or `deny`, then `all`, what the device is for (`storage`, `hid`,"
        " `printer`, `audio`, `video`, `image`, `smartcard`, `communication`, `wireless`, `vendor`,"
        " `class 0xNN`), or which it is (`0951:1666`, `0951:*`). The viewer and QEMU both get it."
        " `allow all` is what old guides write: keyboards and mice go to the guest as well, yours"
        " too, as soon as the viewer takes devices by itself.",
        otherwise="any device, but a viewer takes no keyboard and no mouse by itself",
        example='["deny hid", "allow all"]',
        pattern=key.USB_RULE,
        pattern_words=key.USB_RULE_WORDS,
    )


@frozen(kw_only=True)
class Limits:
    """What the machine may take of the host. Needs systemd (a scope holds them)."""

    memory: int | None = key.size(
        "Host memory at most, QEMU's own included (MemoryMax).", example="3GiB", least=1 << 26
    )
    cpu_quota: int | None = key.integer(
        "Host CPU at most, in percent of one core (CPUQuota).", 1, 100000, example="150"
    )
    cpus: str | None = key.text(
        "Host CPUs it may use (AllowedCPUs).",
        pattern=r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*",
        pattern_words="CPU numbers, such as '0-3,6'",
        example="0-3",
    )
    io_weight: int | None = key.integer(
        "Share of the disk bandwidth (IOWeight).", 1, 10000, example="50"
    )
    tasks: int | None = key.integer("Threads at most (TasksMax).", 16, 100000, example="200")


@frozen(kw_only=True)
class Ssh:
    """How `qlaunch ssh` logs in."""

    user: str | None = key.text(
        "The user in the guest.",
        otherwise="as ssh decides: your own name, or what its configuration says",
        example="root",
        pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}",
        pattern_words="a user's name",
    )
    port: int | None = key.integer(
        "The guest's port of ssh.", 1, 65535, otherwise="22", example="2222"
    )


@frozen(kw_only=True)
class Qemu:
    """The way out: what the profile cannot say."""

    args: tuple[str, ...] = key.words(
        "Arguments that go last on QEMU's command line, as they are.",
        example='["-global", "PIIX4_PM.disable_s3=1"]',
    )
