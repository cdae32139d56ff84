"""Whether QEMU may write a guest's memory to a file while the guest runs (userfaultfd(2))."""

from __future__ import annotations

import ctypes
import os

_SYSCALL = 323  # x86-64: userfaultfd
DEVICE = "/dev/userfaultfd"


def by_syscall() -> bool:
    """Whether this user gets a userfaultfd that sees faults in the kernel too, as QEMU up to 7.2
    asks for it: root does, others where vm.unprivileged_userfaultfd is 1."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = int(libc.syscall(_SYSCALL, os.O_CLOEXEC | os.O_NONBLOCK))
    if found < 0:
        return False
    os.close(found)
    return True


def by_device() -> bool:
    """Whether this user may open /dev/userfaultfd (Linux 6.1), which QEMU 8.0 and newer use."""
    return os.access(DEVICE, os.R_OK | os.W_OK, effective_ids=True)
