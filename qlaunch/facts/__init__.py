"""What this computer and its QEMU can do, as data; `qlaunch.host` finds it out."""

from qlaunch.facts.model import (
    Facts,
    Firmware,
    HostFacts,
    ImageFacts,
    KvmFacts,
    MachineType,
    NetworkFacts,
    QemuFacts,
    UsbDevice,
)

__all__ = [
    "Facts",
    "Firmware",
    "HostFacts",
    "ImageFacts",
    "KvmFacts",
    "MachineType",
    "NetworkFacts",
    "QemuFacts",
    "UsbDevice",
]
