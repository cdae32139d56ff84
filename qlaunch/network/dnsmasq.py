"""One dnsmasq for each network. It goes on when we end.

The configuration's digest is in the name of its file, so a process's own command line says what it
was started with, and a pid that is somebody else's by now is never taken for one of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address

from qlaunch.errors import ConflictError, HostError
from qlaunch.host.pidfd import Pidfd
from qlaunch.host.ports import port_holder
from qlaunch.network.client import Lease
from qlaunch.network.files import Files
from qlaunch.plan.networks.model import Served
from qlaunch.plan.networks.names import digest

START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
_CONFIG = re.compile(rb"--conf-file=(.*)/dnsmasq-([0-9a-f]{16})\.conf")
_MOST_LEASES = 1 << 20
# Time, hardware address, address, name, client. The names are the guests' own.
_LEASE = re.compile(
    r"([0-9]{1,12}) (([0-9a-f]{2}:){5}[0-9a-f]{2}) ([0-9a-f.:]{2,45}) ([!-~]{1,255}) [!-~]+"
)
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
_SBIN = ":/usr/sbin:/sbin"


def parse_leases(network: str, data: bytes) -> list[Lease]:
    """The leases in a file of dnsmasq's; lines that are none do not count, and names that a guest
    made up of other letters are left out."""
    found = []
    for line in data.decode("ascii", errors="replace").split("\n"):
        if (match := _LEASE.fullmatch(line)) is None:
            continue
        when, mac, _, address, name = match.groups()
        try:
            address = str(ip_address(address))
        except ValueError:
            continue
        hostname = name if _NAME.fullmatch(name) else ""
        found.append(
            Lease(network=network, mac=mac, address=address, hostname=hostname, expires=float(when))
        )
    return found


class Dnsmasq:
    """The dnsmasq of the network `name`."""

    def __init__(self, name: str, files: Files) -> None:
        self.name = name
        self._files = files
        self._folders = files.places.folders(name)

    def running(self) -> Served | None:
        """The one that runs, None when none does."""
        with self._open() as found:
            return None if found is None else found[1]

    def open_pidfd(self) -> Pidfd | None:
        """A descriptor that tells of its end; the caller's to close."""
        pid = self._pid()
        if pid is None or self._config(pid) is None:
            return None
        try:
            return Pidfd.of(pid)
        except (OSError, HostError):
            return None

    def start(self, text: str) -> None:
        """Start it with the configuration `text`; one that runs is ended first.

        Raises: HostError, ConflictError that names who has its port.
        """
        self.stop()
        name = f"dnsmasq-{digest(text)}.conf"
        path = self._files.write_dns(self.name, name, text)
        for other in os.listdir(self._folders.run):
            if other.startswith("dnsmasq-") and other != name:
                os.unlink(os.path.join(self._folders.run, other))
        program = shutil.which("dnsmasq", path=os.environ.get("PATH", os.defpath) + _SBIN)
        if program is None:
            raise HostError("dnsmasq is not installed", hint="apt install dnsmasq-base")
        # A file and no pipe: the daemon keeps it open, and a pipe's end would never come.
        with tempfile.TemporaryFile() as said:
            try:
                done = subprocess.run(
                    [program, f"--conf-file={path}"],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    timeout=START_TIMEOUT,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise HostError(f"dnsmasq cannot be started: {error}") from error
            if done.returncode:
                said.seek(0)
                raise self._failed(said.read().decode(errors="replace"))

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        with self._open() as found:
            if found is None:
                return
            pidfd = found[0]
            pidfd.send_signal(signal.SIGTERM)
            if not select.select([pidfd], [], [], STOP_TIMEOUT)[0]:
                pidfd.send_signal(signal.SIGKILL)
                select.select([pidfd], [], [], STOP_TIMEOUT)

    def reload(self) -> None:
        """Have it read names and reservations again."""
        with self._open() as found:
            if found is not None:
                found[0].send_signal(signal.SIGHUP)

    def leases(self) -> list[Lease]:
        """What it gave to whom."""
        try:
            with open(os.path.join(self._folders.lib, "leases"), "rb") as file:
                return parse_leases(self.name, file.read(_MOST_LEASES))
        except OSError:
            return []

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Pidfd, Served] | None]:
        """Its pidfd and what it was started with, or None."""
        pid = self._pid()
        try:
            pidfd = None if pid is None else Pidfd.of(pid)
        except (OSError, HostError):
            pidfd = None
        if pid is None or pidfd is None:
            yield None
            return
        with pidfd:
            config = self._config(pid)  # looked at after opening: it is this very process
            if config is None or pidfd.ended:
                yield None
            else:
                yield pidfd, Served(network=self.name, config=config)

    def _pid(self) -> int | None:
        try:
            with open(os.path.join(self._folders.run, "pid"), encoding="ascii") as file:
                return int(file.read())
        except (OSError, ValueError):
            return None

    def _config(self, pid: int) -> str | None:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            return None
        for word in words:
            found = _CONFIG.fullmatch(word)
            if found and os.fsdecode(found[1]) == self._folders.run:
                return found[2].decode()
        return None

    def _failed(self, words: str) -> HostError | ConflictError:
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        told = lines[-1].removeprefix("dnsmasq: ") if lines else "no reason given"
        message = f"dnsmasq of the network {self.name} does not start: {told}"
        if "in use" not in told:
            return HostError(message)
        holder = port_holder(53)
        who = f": {holder} has port 53" if holder else ""
        return ConflictError(
            f"{message}{who}",
            hint="a dnsmasq of the system leaves our bridges alone with `bind-dynamic` and"
            " `except-interface=ql-*` in /etc/dnsmasq.d/qlaunch.conf",
        )
