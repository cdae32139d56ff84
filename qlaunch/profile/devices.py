"""The tables of which a profile has many, each with an `id`: `[[disk]]`, `[[nic]]` and so on."""

from __future__ import annotations

from attrs import frozen

from qlaunch.profile import fields as key


@frozen(kw_only=True)
class Disk:
    """A disk: an image file on a bus."""

    id: str = key.ident(
        "Its name: `hda`, `disk0`. The guest's device and QEMU's block node are called after it."
    )
    path: str | None = key.path(
        "The image file.",
        example="disks/hda.qcow2",
        otherwise="`ID.qcow2` (or `.raw`) in the machine's own folder",
    )
    format: str | None = key.choice(
        "Format of the image; never guessed.", "qcow2", "raw", otherwise="`qcow2`"
    )
    size: int | None = key.size(
        "Size of a disk that is made at the first start.",
        otherwise="an image that does not exist is an error",
        example="20GiB",
        least=512,
    )
    bus: str | None = key.choice(
        "Where it is plugged in.",
        "ide",
        "sata",
        "scsi",
        "virtio",
        "nvme",
        "usb",
        otherwise="`ide` for Windows XP, DOS and others on `pc`; `virtio` for Linux; `sata` for"
        " newer Windows",
    )
    address: str | None = key.text(
        "IDE: `CHANNEL.UNIT`; sata: port; scsi: target, or `TARGET.LUN`; virtio, nvme: PCI"
        " address; usb: port.",
        otherwise="chosen once, then kept",
        example="0.1",
        pattern=r"[0-9a-fA-F:.]{1,8}",
        pattern_words="an address such as '0.1', '3' or '05.0'",
    )
    backing: str | None = key.path(
        "The image this one stands on. A backing file that the profile does not allow is refused;"
        " a disk that does not exist is made on top of it.",
        otherwise="none is allowed, but for layers beside the disk made by qlaunch",
        example="base.qcow2",
    )
    template: str | None = key.path(
        "An image that a new disk starts as a copy of. `@demo` is the demo guest.",
        example="@demo",
    )
    cache: str | None = key.choice(
        "Host cache mode.",
        "none",
        "writeback",
        "writethrough",
        "directsync",
        "unsafe",
        otherwise="`writeback`",
    )
    aio: str | None = key.choice(
        "How I/O is given to the host.", "threads", "native", "io_uring", otherwise="`threads`"
    )
    discard: str | None = key.choice(
        "Whether the guest's TRIM reaches the image.", "unmap", "ignore", otherwise="`unmap`"
    )
    read_only: bool | None = key.boolean("The guest cannot write.", otherwise="false")
    serial: str | None = key.text(
        "Serial number that the guest sees.",
        example="WD-1234",
        pattern=r"[A-Za-z0-9_.+-]{1,20}",
        pattern_words="1 to 20 letters, digits and _.+-",
    )
    removable: bool | None = key.boolean(
        "A stick: the guest knows that it may be pulled out at any time. On `usb` only.",
        otherwise="false",
    )
    lock: bool | None = key.boolean(
        "QEMU's lock against a second user of the image. Switching it off can destroy the image.",
        otherwise="true",
    )
    snapshot: bool | None = key.boolean("Take part in snapshots.", otherwise="true")
    iops: int | None = key.integer("I/O operations a second, at most.", 1, 1 << 40, example="300")
    iops_read: int | None = key.integer("Reads a second, at most.", 1, 1 << 40, example="200")
    iops_write: int | None = key.integer("Writes a second, at most.", 1, 1 << 40, example="100")
    bps: int | None = key.size("Bytes a second, at most.", least=512, example="100MiB")
    bps_read: int | None = key.size("Bytes read a second, at most.", least=512, example="80MiB")
    bps_write: int | None = key.size("Bytes written a second, at most.", least=512, example="40MiB")


@frozen(kw_only=True)
class Cdrom:
    """A CD drive, empty or with an image in it."""

    id: str = key.ident("Its name: `cd0`.")
    path: str | None = key.path(
        "The ISO image in the drive.", otherwise="the drive is empty", example="~/iso/winxp.iso"
    )
    bus: str | None = key.choice(
        "Where it is plugged in.",
        "ide",
        "sata",
        "scsi",
        "usb",
        otherwise="`ide` on `pc`, `sata` on `q35`",
    )
    address: str | None = key.text(
        "As for a disk.",
        example="1.0",
        otherwise="the second channel on IDE",
        pattern=r"[0-9a-fA-F:.]{1,8}",
        pattern_words="an address such as '1.0' or '2'",
    )


@frozen(kw_only=True)
class Floppy:
    """A floppy drive, empty or with an image in it."""

    id: str = key.ident("Its name: `fd0`.")
    path: str | None = key.path(
        "The raw floppy image.", otherwise="the drive is empty", example="drivers.img"
    )
    read_only: bool | None = key.boolean("Write protected.", otherwise="false")


@frozen(kw_only=True)
class Nic:
    """A network card."""

    id: str = key.ident("Its name: `net0`.")
    network: str | None = key.text(
        "The network that it is plugged into: `networks/NAME.toml`, see `docs/network.md`.",
        example="default",
        otherwise="none, `backend` counts",
        pattern=key.NETWORK_NAME,
        pattern_words=key.NETWORK_NAME_WORDS,
    )
    backend: str | None = key.choice(
        "Where the cable goes where no `network` is said: `user` is QEMU's own NAT, `passt` the"
        " same by the program passt, with this computer's address in the guest, `none` is no cable."
        " `auto` is the network `default` where a network service answers or can be had without"
        " root, else `passt`, else `user`; `qlaunch status` says which.",
        "auto",
        "user",
        "passt",
        "none",
        otherwise="`user`: a guest's network does not change with what is installed here",
    )
    model: str | None = key.choice(
        "Card.",
        "rtl8139",
        "pcnet",
        "e1000",
        "e1000e",
        "virtio",
        otherwise="`rtl8139` for Windows XP and older, `e1000e` for newer Windows, else `virtio`",
    )
    mac: str | None = key.text(
        "MAC address.",
        example="52:54:00:12:34:56",
        otherwise="made from this computer's and the machine's name, then kept",
        **key.MAC_ADDRESS,
    )
    address: str | None = key.text(
        "PCI address.", otherwise="chosen once, then kept", example="03.0", **key.PCI_ADDRESS
    )
    ipv4: str | None = key.text(
        "IPv4 address that the network keeps for it.",
        example="192.168.150.10",
        otherwise="one that the network chooses by the MAC address, and keeps",
        pattern=r"[0-9.]{7,15}",
        pattern_words="an IPv4 address",
    )
    ipv6: str | None = key.text(
        "IPv6 address that it may use besides those that the network gives.",
        example="fd00:150::10",
        otherwise="none",
        pattern=r"[0-9a-fA-F:.]{2,45}",
        pattern_words="an IPv6 address",
    )
    filter: str | None = key.choice(
        "What the guest may send into the network: `clean` with its own MAC and IP addresses only,"
        " and nothing of a DHCP server or router; `mac` with its own MAC address; `none` anything.",
        "clean",
        "mac",
        "none",
        otherwise="`clean`",
    )
    queues: int | None = key.integer(
        "Pairs of queues of a virtio card on a network; as many of the guest's processors can work"
        " on it at once.",
        1,
        16,
        otherwise="1",
        example="2",
    )
    forward: tuple[str, ...] = key.words(
        "Ports of this computer that lead into the guest:"
        " `[tcp:|udp:][ADDRESS:]PORT:GUESTPORT`, on 127.0.0.1 unless said. An IPv6 address stands"
        " in brackets, and `8000-8009:80-89` is ten of them.",
        example='["2222:22"]',
        pattern=key.FORWARD,
        pattern_words="a forward such as '2222:22', 'udp:0.0.0.0:5353:53' or '8000-8009:80-89',"
        " ports 1 to 65535",
    )
    link: str | None = key.choice(
        "Whether the cable is in when the machine starts.", "up", "down", otherwise="`up`"
    )
    restrict: bool | None = key.boolean(
        "Keep the guest from everything but its forwards; with the backend `user`.",
        otherwise="false",
    )


@frozen(kw_only=True)
class Input:
    """A pointing device or keyboard besides the PS/2 ones that every PC has."""

    id: str = key.ident("Its name: `tablet0`.")
    model: str | None = key.choice(
        "Kind.",
        "usb-tablet",
        "usb-mouse",
        "usb-kbd",
        "ps2-mouse",
        "virtio-tablet",
        "virtio-keyboard",
        otherwise="`usb-tablet`",
    )
    address: str | None = key.text(
        "USB port or PCI address.",
        example="1",
        otherwise="chosen once, then kept",
        pattern=r"[0-9a-fA-F:.]{1,8}",
        pattern_words="an address such as '1' or '06.0'",
    )


@frozen(kw_only=True)
class Channel:
    """A virtio serial channel between guest and host."""

    id: str = key.ident("Its name: `vdagent0`.")
    type: str | None = key.choice(
        "`spicevmc` leads to the SPICE client, `guest-agent` to qlaunch, `socket` to a unix socket"
        " of its own.",
        "spicevmc",
        "guest-agent",
        "socket",
        otherwise="`spicevmc` where the name is SPICE's, `guest-agent` where it is the agent's,"
        " else `socket`",
    )
    name: str | None = key.text(
        "Name that the guest sees.",
        example="org.qemu.guest_agent.0",
        otherwise="`com.redhat.spice.0` or `org.qemu.guest_agent.0`",
        pattern=r"[A-Za-z0-9_.:-]{1,100}",
        pattern_words="letters, digits and _.:-",
    )
    port: int | None = key.integer(
        "Number of its port on the controller.", 1, 30, otherwise="chosen once, then kept"
    )


@frozen(kw_only=True)
class Serial:
    """A serial port; `qlaunch console` shows the first."""

    id: str = key.ident("Its name: `serial0`.")


@frozen(kw_only=True)
class Share:
    """A folder of this computer that the guest can mount (virtio-9p)."""

    id: str = key.ident("Its name; the mount tag unless said.")
    path: str | None = key.path("The folder.", required=True, example="~/shared")
    tag: str | None = key.text(
        "Mount tag: `mount -t 9p TAG /mnt`.",
        example="shared",
        otherwise="the id",
        pattern=r"[A-Za-z0-9_.-]{1,31}",
        pattern_words="1 to 31 letters, digits and _.-",
    )
    read_only: bool | None = key.boolean("The guest cannot write.", otherwise="false")


@frozen(kw_only=True)
class HostDevice:
    """A USB device of this computer that the guest has whenever it is plugged in here: it may be
    absent at the start, and may be pulled out and put in again."""

    id: str = key.ident("Its name: `scanner`.")
    device: str | None = key.text(
        "Which: vendor and product, as `qlaunch usb list` and `lsusb` show them, or a port of this"
        " computer, then it is whatever is plugged in there.",
        required=True,
        example="0951:1666",
        pattern=rf"{key.USB_ID}|{key.USB_PORT}",
        pattern_words="vendor and product such as '0951:1666', or a port such as '1-2' or '1-2.3'",
    )
    address: str | None = key.text(
        "The guest's USB port.",
        otherwise="chosen once, then kept",
        example="4",
        pattern=r"[0-9]{1,2}",
        pattern_words="the number of a port",
    )
