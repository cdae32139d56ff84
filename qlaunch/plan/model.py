"""The plan: a machine with every decision made. Frozen, complete, saved as JSON.

The saved plan of a running machine is the booted truth: stop, hot-plug, snapshots and adoption
read it and never the profile. Sizes are bytes, durations seconds, paths absolute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import field, frozen

from qlaunch.profile.model import Policy
from qlaunch.profile.tables import Secret

PLAN_VERSION = 1


@frozen(kw_only=True)
class Places:
    """The folders of one machine: disks and NVRAM, state files, sockets."""

    data: str
    state: str
    runtime: str


@frozen(kw_only=True)
class Leases:
    """What a machine was given once and keeps: nothing of it moves while the guest is installed.

    `machine_asked` is the name in the profile for which `machine_type` was pinned. `places` maps a
    device's id to `BUS/ADDRESS`. `buses` remembers the bus each disk was started on. `once_done` is
    the `boot.once` that has been used up, `rtc_offset` by how many seconds the guest has set its
    clock from the one that the profile says.
    """

    version: int = 1
    machine_asked: str | None = None
    machine_type: str | None = None
    uuid: str | None = None
    macs: Mapping[str, str] = field(factory=dict)
    places: Mapping[str, str] = field(factory=dict)
    buses: Mapping[str, str] = field(factory=dict)
    once_done: str | None = None
    rtc_offset: int = 0


@frozen(kw_only=True)
class Device:
    """One `-device`: QEMU's driver and its properties, typed as QEMU's JSON wants them."""

    id: str
    driver: str
    props: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Chardev:
    """One `-chardev`. `socket` is a unix socket that qlaunch binds at `path`; `spicevmc` and
    `spiceport` lead to the SPICE client as `name`; `qemu-vdagent` is QEMU's own end of the SPICE
    agent's line, for VNC; `tpm` is a socket connected to swtpm (`path` is
    where it would be for a command line by hand)."""

    id: str
    kind: Literal["socket", "spicevmc", "spiceport", "qemu-vdagent", "tpm"]
    name: str = ""
    path: str = ""


@frozen(kw_only=True)
class Layer:
    """One image of a backing chain: its format node and its file node.

    A lower layer that may be merged with its neighbours is `mergeable`: its file is opened for
    writing, though its format node is not. QEMU could not open it for writing later: where files
    are handed over by descriptor, the locks of the reading one stay (7.2 and 10.0).
    """

    node: str
    file_node: str
    path: str
    format: Literal["qcow2", "raw"]
    read_only: bool = False
    mergeable: bool = False

    @property
    def file_read_only(self) -> bool:
        """Whether the file itself is opened for reading only."""
        return self.read_only and not self.mergeable


@frozen(kw_only=True)
class Creation:
    """An image that is made before the start because it does not exist yet.

    A `template` is copied; otherwise an empty image of `size` is made, on `backing` if given.
    """

    path: str
    format: Literal["qcow2", "raw"]
    size: int | None = None
    backing: str | None = None
    backing_format: Literal["qcow2", "raw"] | None = None
    template: str | None = None
    template_format: Literal["qcow2", "raw"] | None = None


@frozen(kw_only=True)
class Disk:
    """A disk: a throttle node called after its id on top of its layers, active layer first.

    `image` is the one that the profile means; once there are snapshots it is one of the lower
    layers.
    """

    id: str
    bus: str
    image: str = ""
    layers: tuple[Layer, ...]
    device: Device
    create: Creation | None = None
    direct: bool = False
    no_flush: bool = False
    aio: str = "threads"
    discard: Literal["unmap", "ignore"] = "unmap"
    lock: bool = True
    snapshot: bool = True
    limits: Mapping[str, int] = field(factory=dict)


@frozen(kw_only=True)
class Drive:
    """A drive with a removable medium."""

    id: str
    kind: Literal["cdrom", "floppy"]
    device: Device
    medium: Layer | None = None


Filter = Literal["clean", "mac", "none"]
Backend = Literal["user", "passt", "netd", "rootless", "none"]


@frozen(kw_only=True)
class Attachment:
    """What a network card asks of the network that it is plugged into.

    `filter` says what the guest may send: `clean` its own MAC and IP addresses only and no DHCP or
    router of its own, `mac` its own MAC address, `none` anything. `ipv4` and `ipv6` are addresses
    that the profile reserves; without, the network gives it one by its MAC address. `forwards` are
    ports of this computer, each as `plan.forwards.Forward` writes it; those on loopback addresses
    are the supervisor's work. Cards without checksum offload (e1000, rtl8139, pcnet) have none.
    """

    network: str
    mac: str
    queues: int = 1
    ipv4: str | None = None
    ipv6: str | None = None
    filter: Filter = "clean"
    forwards: tuple[str, ...] = ()
    hostname: str = ""
    offload: bool = True


@frozen(kw_only=True)
class Nic:
    """A network card; `netdev` is the JSON of its `-netdev` for a command line by hand, None for a
    card without a cable.

    `attachment` is there where the cable is a TAP that netd, or the user's own network service
    (`rootless`), hands over; `program` where it is a program's, passt. `forwards` are as
    `plan.forwards.Forward` writes them.
    """

    id: str
    model: str
    mac: str
    device: Device
    netdev: Mapping[str, Any] | None = None
    forwards: tuple[str, ...] = ()
    backend: Backend = "user"
    attachment: Attachment | None = None
    program: str | None = None
    link: Literal["up", "down"] = "up"


@frozen(kw_only=True)
class Share:
    """A folder given to the guest by virtio-9p."""

    id: str
    path: str
    read_only: bool
    device: Device


@frozen(kw_only=True)
class Firmware:
    """UEFI: the code, and the machine's own variables."""

    code: Layer
    vars: Layer
    create: Creation | None
    secure: bool


@frozen(kw_only=True)
class Endpoint:
    """Where a display client finds the machine: a unix socket (`path`) or TCP (`host`, `port`),
    there with or without TLS."""

    protocol: Literal["spice", "vnc"]
    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False

    @property
    def uri(self) -> str:
        """The address in the spelling of remote-viewer."""
        if self.path:
            return f"{self.protocol}+unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f"?tls-port={self.port}" if self.tls else f":{self.port}"
        return f"{self.protocol}://{host}{port}"


@frozen(kw_only=True)
class Display:
    """SPICE and VNC as QEMU gets them, and where qlaunch lets clients in. With `ticket` nobody
    comes in over TCP until a ticket is made; `tls_names` are for the certificate. `web` is whether
    a browser's console can be handed in, which speaks VNC, whatever else there is."""

    spice: bool
    vnc: bool
    web: bool = False
    options: tuple[tuple[str, str], ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    password: Secret | None = None
    ticket: bool = False
    tls_names: tuple[str, ...] = ()

    @property
    def access(self) -> Literal["open", "password", "ticket"]:
        """What a client is asked for that comes over TCP."""
        return "ticket" if self.ticket else "password" if self.password else "open"


@frozen(kw_only=True)
class View:
    """What `qlaunch view` does unless it is told otherwise. `usb_filter` says which USB devices a
    viewer may take by itself, in its own spelling; empty is its own choice."""

    viewer: str = "auto"
    fullscreen: bool = False
    kiosk: bool = False
    resize: bool = True
    share: str | None = None
    usb: Literal["auto", "ask", "off"] = "auto"
    usb_filter: str = ""


@frozen(kw_only=True)
class Lifecycle:
    """Policies and the time limit of a graceful stop."""

    on_poweroff: Policy = "destroy"
    on_reboot: Policy = "restart"
    on_crash: Policy = "destroy"
    watchdog_action: str = "reset"
    stop_timeout: float = 90.0
    power_cycle: bool = False
    after: tuple[str, ...] = ()
    start_delay: float = 0.0


@frozen(kw_only=True)
class Board:
    """Machine, processors, memory and clock, as their options take them."""

    machine: str
    options: tuple[tuple[str, str], ...]
    accel: Literal["kvm", "tcg"]
    cpu: str
    cpu_flags: tuple[str, ...]
    cpus: int
    sockets: int
    cores: int
    threads: int
    memory: int
    memory_current: int
    rtc_base: Literal["utc", "localtime"]
    rtc_drift: Literal["none", "slew"]
    rtc_offset: int = 0


@frozen(kw_only=True)
class BootPlan:
    """Boot options. `later` is the boot index that devices get once the first boot is under way:
    it counts from the guest's first reset on. `once` is the profile's `boot.once` that this start
    uses up; one said for this start alone (`--set`) is not there, it changes no lease."""

    menu: bool = False
    menu_timeout: float | None = None
    kernel: str | None = None
    initrd: str | None = None
    append: str | None = None
    once: str | None = None
    later: Mapping[str, int] = field(factory=dict)


@frozen(kw_only=True)
class Plan:
    """All that is needed to start one machine and to look after it."""

    version: int = PLAN_VERSION
    name: str
    title: str | None
    uuid: str
    guest: str
    profile: str
    emulator: str
    qemu_version: str
    places: Places
    board: Board
    boot: BootPlan
    lifecycle: Lifecycle
    display: Display
    firmware: Firmware | None = None
    tpm: str | None = None
    globals: tuple[tuple[str, str, str], ...] = ()
    controllers: tuple[Device, ...] = ()
    disks: tuple[Disk, ...] = ()
    drives: tuple[Drive, ...] = ()
    nics: tuple[Nic, ...] = ()
    shares: tuple[Share, ...] = ()
    chardevs: tuple[Chardev, ...] = ()
    devices: tuple[Device, ...] = ()
    audio: Literal["spice", "none"] | None = None
    serials: tuple[str, ...] = ()
    agent: str | None = None
    rng: bool = False
    # Of what profile and QEMU it was made, in a word; what was said over that profile (--set), and
    # the folder where relative paths in there start.
    made_from: str = ""
    overrides: tuple[str, ...] = ()
    said_in: str | None = None
    scope: Literal["user", "system"] | None = None
    limits: Mapping[str, str] = field(factory=dict)
    view: View = field(factory=View)
    ssh_user: str | None = None
    ssh_port: int = 22
    sandbox: bool = True
    tcp: bool = False
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    extra_args: tuple[str, ...] = ()

    def layers(self) -> Iterator[Layer]:
        """Every image that QEMU opens, firmware and media included."""
        if self.firmware:
            yield self.firmware.code
            yield self.firmware.vars
        for disk in self.disks:
            yield from disk.layers
        yield from (drive.medium for drive in self.drives if drive.medium)

    def all_devices(self) -> Iterator[Device]:
        """Every device that is given to QEMU, in an order that it accepts."""
        yield from self.controllers
        yield from (disk.device for disk in self.disks)
        yield from (drive.device for drive in self.drives)
        yield from (nic.device for nic in self.nics)
        yield from (share.device for share in self.shares)
        yield from self.devices

    def creations(self) -> Iterator[Creation]:
        """Every image that has to be made before the start, in order."""
        if self.firmware and self.firmware.create:
            yield self.firmware.create
        yield from (disk.create for disk in self.disks if disk.create)

    def sockets(self) -> Iterator[Chardev]:
        """The chardevs whose socket qlaunch binds and QEMU inherits."""
        yield from (chardev for chardev in self.chardevs if chardev.kind == "socket")

    def chardev(self, ident: str) -> Chardev:
        """The chardev called `ident`. Raises: KeyError."""
        for chardev in self.chardevs:
            if chardev.id == ident:
                return chardev
        raise KeyError(ident)
