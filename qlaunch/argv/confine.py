"""What a machine's programs may touch of this computer: decided by its plan alone.

Images, sockets, network cards and the saved memory are handed over as descriptors. What is left
are the programs' own files, a few devices, and what QEMU can only take by path.
"""

from __future__ import annotations

from collections.abc import Iterator

from qlaunch.facts.confinement import DEVICES, SYSTEM, Confinement, beside, program
from qlaunch.plan.model import Plan

# A USB device of this computer is looked for as long as the machine runs, and may come later.
_USB_READ = ("/sys/bus/usb", "/sys/class/usb_device", "/sys/devices", "/run/udev")
_USB = "/dev/bus/usb"
# slirp asks the servers named there, and looks again when the file has changed.
_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf")


def qemu(plan: Plan) -> Confinement | None:
    """What QEMU may touch, None where the profile wants it free."""
    if not plan.sandbox:
        return None
    has_usb = any(
        device.driver.endswith(("-ehci1", "-uhci", "-xhci")) for device in plan.controllers
    ) or any(d.driver == "usb-host" for d in plan.devices)
    shares = tuple(share.path for share in plan.shares if not share.read_only)
    return Confinement(
        read=(
            *SYSTEM,
            *beside(plan.emulator),
            *_boot(plan),
            *(share.path for share in plan.shares if share.read_only),
            *(_USB_READ if has_usb else ()),
            *(_RESOLVERS if uses_tcp(plan) else ()),
            *plan.readable,
        ),
        write=(*shares, *plan.writable, *_named(plan.extra_args)),
        # By userfaultfd a QEMU of 8.0 or newer saves memory behind a guest that runs on.
        devices=(*DEVICES, "/dev/kvm", "/dev/userfaultfd", *([_USB] if has_usb else [])),
        tcp=uses_tcp(plan),
    )


def uses_tcp(plan: Plan) -> bool:
    """Whether QEMU itself speaks TCP: for its guest, or because an argument of the profile's own
    may want it to."""
    return plan.tcp or any(nic.backend == "user" for nic in plan.nics) or bool(plan.extra_args)


def swtpm(folder: str) -> Confinement:
    """What the TPM of a machine may touch; its state is in `folder`."""
    return program(write=(folder,))


def _boot(plan: Plan) -> Iterator[str]:
    yield from (path for path in (plan.boot.kernel, plan.boot.initrd) if path)


def _named(words: tuple[str, ...]) -> Iterator[str]:
    """The absolute paths in arguments that the profile adds: who wrote them wants them used."""
    for word in words:
        for part in word.replace("=", ",").replace(":", ",").split(","):
            if part.startswith("/") and part != "/":
                yield part
