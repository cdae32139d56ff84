"""Root's network service started and ended without systemd."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

from qlaunch.errors import HostError
from qlaunch.host.pidfd import Pidfd
from qlaunch.network import wire
from qlaunch.network.client import system_socket

LOG = "/var/log/qlaunch-netd.log"
START_TIMEOUT = 20.0
END_TIMEOUT = 10.0
_PAUSE = 0.02
_MODULE = b"qlaunch.network.netd"


def has_systemd() -> bool:
    """Whether systemd runs this computer."""
    return os.path.isdir("/run/systemd/system")


def start_netd() -> None:
    """Start it in the background, and wait until it listens. Raises: HostError."""
    try:
        with open(LOG, "ab") as log:
            began = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE.decode()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
    except OSError as error:
        raise HostError(f"the network service cannot be started: {error.strerror}") from error
    deadline = time.monotonic() + START_TIMEOUT
    while not _listens():
        if process.poll() is not None or time.monotonic() > deadline:
            raise HostError(f"the network service does not start: {_last_words(began)}")
        time.sleep(_PAUSE)
    # Popen warns of a child that is left running: here that is the purpose.
    process.returncode = 0


def end_netd() -> bool:
    """End one that was started so, and wait for its end; whether there was any."""
    pid = _listener()
    if not pid:
        return False
    try:
        pidfd = Pidfd.of(pid)
    except ProcessLookupError:
        return False
    with pidfd:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if _MODULE not in file.read().split(b"\0"):
                return False
        pidfd.send_signal(signal.SIGTERM)
        return bool(select.select([pidfd], [], [], END_TIMEOUT)[0])


def _listens() -> bool:
    return _listener() != 0


def _listener() -> int:
    """The process that listens at the socket; 0 when none does."""
    with socket.socket(socket.AF_UNIX, wire.KIND) as probe:
        try:
            probe.connect(system_socket())
        except OSError:
            return 0
        plain = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=3i", plain)[0])


def _last_words(began: int) -> str:
    with open(LOG, "rb") as log:
        log.seek(began)
        lines = log.read()[-4096:].decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
