"""Named places in work that must lose nothing when it is cut off: there, tests cut it off."""

from __future__ import annotations

import os
import signal

# `NAME` ends this process there, `NAME@qemu` the QEMU; `NAME@stop` has it wait for a SIGCONT
# there, the first time that it comes by.
VARIABLE = "QLAUNCH_TEST_CUT"

_cut, _, _whom = os.environ.get(VARIABLE, "").partition("@")


def step(name: str, qemu: int | None = None) -> None:
    """Be at the place called `name`; `qemu` is the pid of the machine that is worked on."""
    global _cut
    if name != _cut:
        return
    if _whom == "stop":
        _cut = ""
        os.kill(os.getpid(), signal.SIGSTOP)
    elif not _whom:
        os.kill(os.getpid(), signal.SIGKILL)
    elif qemu is not None:
        os.kill(qemu, signal.SIGKILL)
