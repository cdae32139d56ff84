"""Whether KVM works here, asked of the kernel itself.

/proc/cpuinfo is no witness: it may show neither vmx nor svm where KVM works, and the other way
round.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from qlaunch.facts import KvmFacts
from qlaunch.host.users import group_members, group_name, user_name

DEVICE = "/dev/kvm"

_GET_API_VERSION, _CREATE_VM, _CHECK_EXTENSION = 0xAE00, 0xAE01, 0xAE03
_CREATE_VCPU, _GET_MSRS, _SET_MSRS = 0xAE41, 0xC008AE88, 0x4008AE89
_API_VERSION = 12
# struct kvm_msrs with one entry: count, pad, index, reserved, data.
_MSRS = struct.Struct("=IIIIQ")
_ARCH_CAPABILITIES = 0x10A
_CAP_NR_VCPUS, _CAP_MAX_VCPUS, _CAP_X86_SMM = 9, 66, 117

_ENABLE = (
    "switch on virtualization (VT-x, AMD-V) in the firmware setup and load the module: "
    'sudo modprobe -a kvm_intel kvm_amd; or set accel = "tcg" (slow)'
)


def kvm_facts() -> KvmFacts:
    """Whether a machine can use KVM and what it offers; a problem is told, never raised."""
    try:
        with _opened() as device:
            return _ask(device)
    except OSError as error:
        return _refused(error)


@contextlib.contextmanager
def _opened() -> Iterator[int]:
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield device
    finally:
        os.close(device)


def _ask(device: int) -> KvmFacts:
    version = fcntl.ioctl(device, _GET_API_VERSION)
    if version != _API_VERSION:
        return KvmFacts(
            problem=f"{DEVICE} speaks version {version} of KVM, QEMU needs {_API_VERSION}"
        )
    machine = _create_vm(device)
    try:
        cpu_off = () if _takes_arch_capabilities(device, machine) else ("arch-capabilities",)
    finally:
        os.close(machine)
    most = fcntl.ioctl(device, _CHECK_EXTENSION, _CAP_MAX_VCPUS)
    return KvmFacts(
        usable=True,
        cpu_off=cpu_off,
        smm=fcntl.ioctl(device, _CHECK_EXTENSION, _CAP_X86_SMM) > 0,
        max_vcpus=most or fcntl.ioctl(device, _CHECK_EXTENSION, _CAP_NR_VCPUS),
    )


def _takes_arch_capabilities(device: int, machine: int) -> bool:
    """Whether a processor takes the MSR that KVM itself offers for it. Where it does not, QEMU 7.2
    with `-cpu host` ends with `Assertion ret == cpu->kvm_msr_buf->nmsrs failed`."""
    offered = bytearray(_MSRS.pack(1, 0, _ARCH_CAPABILITIES, 0, 0))
    try:
        if fcntl.ioctl(device, _GET_MSRS, offered) != 1:
            return True  # not offered, so QEMU leaves it alone
        processor = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    except OSError:
        return True
    try:
        return bool(fcntl.ioctl(processor, _SET_MSRS, offered) == 1)
    except OSError:
        return False
    finally:
        os.close(processor)


def _create_vm(device: int) -> int:
    while True:
        try:
            return fcntl.ioctl(device, _CREATE_VM, 0)
        except InterruptedError:  # a signal came; the kernel wants the question again
            continue


def _refused(error: OSError) -> KvmFacts:
    if error.errno == errno.ENOENT:
        return KvmFacts(problem=f"there is no {DEVICE} on this computer", hint=_ENABLE)
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return KvmFacts(problem=f"{DEVICE} is there, but no KVM module is behind it", hint=_ENABLE)
    if error.errno == errno.EBUSY:
        return KvmFacts(
            problem="another hypervisor uses the processor's virtualization",
            hint="stop it (VirtualBox and VMware keep it while a machine runs)",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return _not_allowed()
    return KvmFacts(problem=f"{DEVICE}: {os.strerror(error.errno or 0)}")


def _not_allowed() -> KvmFacts:
    user = user_name(os.geteuid())
    try:
        device = os.stat(DEVICE)
    except OSError as error:
        return KvmFacts(problem=f"{DEVICE}: {os.strerror(error.errno or 0)}")
    group = group_name(device.st_gid)
    mode = stat.S_IMODE(device.st_mode)
    owner = f"{DEVICE} belongs to {user_name(device.st_uid)}:{group} (mode {mode:04o})"
    if mode & 0o060 != 0o060:
        return KvmFacts(
            problem=f"{owner}, and you are {user}", hint=f"sudo setfacl -m u:{user}:rw {DEVICE}"
        )
    if user in group_members(device.st_gid):
        return KvmFacts(
            problem=f"{owner}; {user} is in group {group}, but this session began before that",
            hint="log out and in again",
        )
    return KvmFacts(
        problem=f"{owner}, and {user} is not in group {group}",
        hint=f"sudo usermod -aG {group} {user}, then log in again",
    )
