"""The facts that a plan is made from. All of it is plain, frozen data that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen


@frozen(kw_only=True)
class MachineType:
    """One machine that a QEMU binary offers (`query-machines`)."""

    name: str
    alias: str | None = None
    default: bool = False
    deprecated: bool = False
    cpu_max: int = 1


@frozen(kw_only=True)
class QemuFacts:
    """What one QEMU binary can do. Probed once per binary (path, size, mtime), then cached.

    `devices` are the names of all user-creatable QOM types that `-device`, `-object`, `-chardev`
    and `-audiodev` can use (`qom-list-types`, chardevs as `chardev-spicevmc`, audio backends as
    `audio-spice`); `options` are the command line options of `query-command-line-options`.
    """

    path: str
    version: tuple[int, int, int]
    package: str = ""
    machines: tuple[MachineType, ...] = ()
    cpu_models: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()

    @property
    def version_text(self) -> str:
        return ".".join(str(number) for number in self.version)

    @property
    def has_spice(self) -> bool:
        """The SPICE server is there: the option alone says nothing (its modules may be missing)."""
        return "spice" in self.options and "chardev-spicevmc" in self.devices

    def machine(self, name: str) -> MachineType | None:
        """The machine called `name`, by name or by alias."""
        return next((entry for entry in self.machines if name in (entry.name, entry.alias)), None)


@frozen(kw_only=True)
class KvmFacts:
    """Whether KVM can be used, found by opening /dev/kvm and asking it (never /proc/cpuinfo).

    `problem` is None when it can; otherwise the reason for a person and `hint` what mends it.
    `cpu_off` are the features that `-cpu host` must do without, because this KVM offers them and
    then refuses them (hypervisors inside hypervisors do that).
    """

    usable: bool = False
    problem: str | None = None
    hint: str | None = None
    smm: bool = False
    cpu_off: tuple[str, ...] = ()
    max_vcpus: int = 0


@frozen(kw_only=True)
class Firmware:
    """A UEFI firmware from a descriptor (QEMU docs: interop/firmware.json)."""

    descriptor: str
    description: str
    code: str
    code_format: str
    vars_template: str | None
    vars_format: str | None
    architectures: frozenset[str]
    machines: tuple[str, ...]
    features: frozenset[str]


@frozen(kw_only=True)
class ImageFacts:
    """What lies at a path that a profile names, read without running any QEMU code.

    `problem` says in a person's words why the file cannot be used (missing directory, no rights,
    not a regular file, damaged header); None when nothing is wrong or it simply does not exist.
    Sizes are bytes; `allocated` is what the file takes of the disk. `backing` is the name as the
    header has it, `backing_path` the absolute path that it means. `internal_snapshots` are counted.
    `missing_directory` would have to be made first; it is a `problem` for a
    reader, and for a writer who may not make it.
    `holder` names the process whose QEMU locks are in the way (`qemu-system-x86_64, pid 4711,
    machine xp`).
    """

    path: str
    exists: bool = False
    problem: str | None = None
    hint: str | None = None
    readable: bool = False
    writable: bool = False
    format: str | None = None
    virtual_size: int | None = None
    file_size: int | None = None
    allocated: int | None = None
    backing: str | None = None
    backing_path: str | None = None
    backing_format: str | None = None
    data_file: str | None = None
    corrupt: bool = False
    encrypted: bool = False
    internal_snapshots: int = 0
    holder: str | None = None
    free_space: int | None = None
    missing_directory: str | None = None


@frozen(kw_only=True)
class NetworkFacts:
    """Where a network card can be plugged in. All is unsaid where no card asks for a network.

    `netd` are the networks that root's service lets this user into (`*`: all), None where it does
    not answer. `rootless` says whether the user can have networks of its own, and
    `rootless_problem` why not. `passt` is the program.
    """

    netd: tuple[str, ...] | None = None
    rootless: bool = False
    rootless_problem: str | None = None
    passt: str | None = None


@frozen(kw_only=True)
class UsbDevice:
    """A USB device that is plugged into this computer; hubs do not count.

    `port` is the kernel's name for the place, `1-2.3`; `node` is the file by which it is used, and
    `usable` whether this user may. `kinds` are what its interfaces are for (class codes).
    """

    port: str
    vendor: int
    product: int
    name: str = ""
    serial: str = ""
    kinds: tuple[int, ...] = ()
    node: str = ""
    usable: bool = False

    @property
    def ident(self) -> str:
        """Vendor and product, as people write them."""
        return f"{self.vendor:04x}:{self.product:04x}"

    def is_meant(self, which: str) -> bool:
        """Whether `which` (a port, or vendor and product) means it."""
        return which.lower() in (self.port, self.ident)


@frozen(kw_only=True)
class HostFacts:
    """What this computer offers to its user. Sizes in bytes."""

    machine_id: str = ""
    user: str = ""
    uid: int = 0
    cpus: int = 1
    memory_total: int = 0
    memory_available: int = 0
    page_size: int = 4096
    kvm: KvmFacts = field(factory=KvmFacts)
    firmware: tuple[Firmware, ...] = ()
    swtpm: str | None = None
    qemu_img: str | None = None
    systemd_scope: Literal["user", "system"] | None = None
    bridges: frozenset[str] = frozenset()


@frozen(kw_only=True)
class Facts:
    """All that `plan.resolve` may know besides the profile and the leases. `usb` is looked at where
    the profile wants a device of this computer."""

    qemu: QemuFacts
    host: HostFacts
    images: Mapping[str, ImageFacts] = field(factory=dict)
    ports_in_use: Mapping[str, str] = field(factory=dict)
    network: NetworkFacts = field(factory=NetworkFacts)
    usb: tuple[UsbDevice, ...] = ()

    def image(self, path: str) -> ImageFacts:
        """What is known of `path`; a path nobody looked at counts as not existing."""
        return self.images.get(path) or ImageFacts(path=path)
