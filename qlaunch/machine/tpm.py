"""swtpm, the TPM's program: started before QEMU and connected to it by a socket pair."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from qlaunch.argv import confine
from qlaunch.errors import HostError
from qlaunch.host.process import Process


def start_swtpm(
    program: str,
    folder: str,
    control: socket.socket,
    log_fd: int,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start swtpm on the state in `folder`, controlled over `control` (its end of the pair).

    It ends by itself when QEMU, which holds the other end, is gone.

    Raises: HostError.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make {folder}: {error.strerror}") from error
    number = control.fileno()
    argv = [
        program, "socket", "--tpm2", "--tpmstate", "dir=.,mode=0600",
        "--ctrl", f"type=unixio,clientfd={number}", "--terminate", "--flags", "startup-none",
    ]  # fmt: skip
    # By its working directory: swtpm has no way to say a folder with a comma in its name.
    return Process.spawn(
        argv,
        pass_fds=[number],
        stdout_fd=log_fd,
        stderr_fd=log_fd,
        env=environment,
        cwd=folder,
        confinement=confine.swtpm(folder),
    )
