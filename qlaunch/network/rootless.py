"""`python -m qlaunch.network.rootless`: networks of a user without root.

The same service as root's, in a user and a network namespace, with pasta for the way out. Three
processes: one that holds the namespaces and sleeps, pasta, and the service in them. This one,
outside, looks after them. Each may be killed: the next start finds the others and goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import NoReturn

from qlaunch import records
from qlaunch.errors import BusyError, HostError, QlaunchError
from qlaunch.host.pidfd import Pidfd, ProcessId
from qlaunch.network import links, netd, spaces
from qlaunch.network.client import own_folder, rootless_socket
from qlaunch.network.files import Places
from qlaunch.network.netlink import Netlink
from qlaunch.network.own import READY
from qlaunch.store import files, paths

ENDS = 30.0
"""How long it goes on when nobody needs it."""
PASTA_PAUSE, LONGEST_PAUSE = 1.0, 60.0
WINNER_TIMEOUT = 20.0
WINNER_PAUSE = 0.02
# Where pasta answers names, by this computer's resolvers; a link-local address nobody else has.
RESOLVER = "169.254.1.53"


def main() -> int:
    """Serve until nobody needs it, or a signal. Tells `--ready-fd` that it listens, or why not."""
    parser = argparse.ArgumentParser(prog="qlaunch-network", description=__doc__)
    parser.add_argument("--ready-fd", type=int, default=-1, help="where to say that we listen")
    parser.add_argument("--ends", type=float, default=ENDS, help="seconds to wait for work")
    args = parser.parse_args()
    ready: int = args.ready_fd
    os.umask(0o077)
    try:
        if os.getuid() == 0:
            raise HostError("root's service is another one", hint="qlaunch net setup")
        paths.ensure_private(paths.runtime_dir())
        os.makedirs(own_folder(), mode=0o700, exist_ok=True)
        lock = _lock()
        if lock is not None:
            with contextlib.closing(_Keeper()) as keeper:
                return keeper.run(ready, args.ends)
        _tell(ready, READY)
    except QlaunchError as error:
        hint = f" ({error.hint})" if error.hint else ""
        _tell(ready, f"{error.message}{hint}")
        sys.stderr.write(f"qlaunch network: {error.message}{hint}\n")
        return error.exit_status
    return 0


def _lock() -> int | None:
    """The lock of the only service of this user; None when another has it and answers.

    Raises: BusyError, HostError.
    """
    deadline = time.monotonic() + WINNER_TIMEOUT
    while True:
        try:
            return files.take_lock(os.path.join(own_folder(), "service"), what="your networks")
        except BusyError:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
                if probe.connect_ex(rootless_socket()) == 0:
                    return None
            if time.monotonic() > deadline:
                raise
        time.sleep(WINNER_PAUSE)


class _Keeper:
    """Looks after the holder, pasta and the service."""

    def __init__(self) -> None:
        self._pasta = _found("pasta")
        self._pasta_since, self._pause = 0.0, PASTA_PAUSE
        self._holder = _found("holder") or _noted("holder", spaces.make())

    def close(self) -> None:
        for pidfd in (self._holder, self._pasta):
            if pidfd is not None:
                pidfd.close()

    def run(self, ready: int, ends: float) -> int:
        """Serve; what is outside ends with the service, where it has left nothing."""
        listener = netd.listen(rootless_socket(), mode=0o600)
        self._mind_pasta()
        pid = os.fork()
        if pid == 0:
            _serve(self._holder.pid, listener, ready, ends)
        listener.close()
        if ready >= 0:
            os.close(ready)
        with Pidfd.of(pid) as service:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda number, _: service.send_signal(number) and None)
            while not service.ended:
                self._wait(service)
                self._mind_pasta()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0 and not os.listdir(os.path.join(own_folder(), "wanted")):
            self._end()
        return abs(status)

    def _wait(self, service: Pidfd) -> None:
        """Return when the service or pasta has ended, or it is time for another pasta."""
        poll = select.poll()
        poll.register(service, select.POLLIN)
        if self._pasta is None:
            poll.poll(self._pause * 1000)
        else:
            poll.register(self._pasta, select.POLLIN)
            poll.poll()

    def _mind_pasta(self) -> None:
        """Have pasta run. One that ends at once is started again ever more rarely: there may be no
        way out of this computer at the moment."""
        if self._pasta is not None:
            if not self._pasta.ended:
                return
            with contextlib.suppress(ChildProcessError):  # an earlier keeper's
                os.waitpid(self._pasta.pid, os.WNOHANG)
            self._pasta.close()
            self._pasta = None
        lived = time.monotonic() - self._pasta_since
        if lived < self._pause:
            return
        self._pause = PASTA_PAUSE if lived > LONGEST_PAUSE else min(2 * self._pause, LONGEST_PAUSE)
        self._pasta_since = time.monotonic()
        identity = _start_pasta(self._holder.pid)
        self._pasta = None if identity is None else _noted("pasta", identity)

    def _end(self) -> None:
        """End pasta and the holder, and with it the namespaces."""
        if self._pasta is not None:
            self._pasta.send_signal(signal.SIGTERM)
        self._holder.send_signal(signal.SIGKILL)
        for name in ("pasta", "holder"):
            files.remove(_note(name), lasting=False)


def _start_pasta(holder: int) -> ProcessId | None:
    """A pasta for the namespaces of the process `holder`; None where it is not installed: guests
    reach each other then, and nothing outside."""
    program = shutil.which("pasta")
    if program is None:
        return None
    words = [program, "--config-net", "--no-map-gw", "--dns-forward", RESOLVER, "--quiet"]
    for option in ("-t", "-u", "-T", "-U"):
        words += [option, "none"]
    process = subprocess.Popen(
        [*words, "--foreground", str(holder)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    identity = ProcessId.of(process.pid)
    # Popen warns of a child that is left running: here that is the purpose.
    process.returncode = 0
    return identity


def _serve(holder: int, listener: socket.socket, ready: int, ends: float) -> NoReturn:
    """In a new process: be the service in the namespaces of `holder`."""
    status = 1
    try:
        spaces.enter(holder)
        spaces.end_with_parent()
        with Netlink() as netlink:
            netlink.do(links.set_link(socket.if_nametoindex("lo"), "lo", up=True))
        places = Places(
            run=own_folder(),
            lib=os.path.join(paths.state_dir(), "net"),
            networks=tuple(paths.network_dirs(system=False)),
            resolver=RESOLVER,
        )
        asyncio.run(netd.serve(places, listener, ends=ends, ready=lambda: _tell(ready, READY)))
        status = 0
    except (QlaunchError, OSError) as error:
        words = error.message if isinstance(error, QlaunchError) else str(error.strerror)
        with contextlib.suppress(OSError):
            _tell(ready, words)
        sys.stderr.write(f"qlaunch network: {words}\n")
    finally:
        sys.stderr.flush()
        os._exit(status)


def _tell(ready: int, words: str) -> None:
    if ready >= 0:
        os.write(ready, words.encode())
        os.close(ready)


def _note(name: str) -> str:
    return os.path.join(own_folder(), f"{name}.json")


def _found(name: str) -> Pidfd | None:
    """The process that an earlier service noted as `name`, if it lives."""
    identity = files.load_record(ProcessId, _note(name), 1)
    return None if identity is None else identity.open()


def _noted(name: str, identity: ProcessId) -> Pidfd:
    """Raises: HostError when it has ended already."""
    files.write_json(_note(name), records.to_plain(identity), lasting=False)
    found = identity.open()
    if found is None:
        raise HostError(f"the process that is to be the {name} has ended at once")
    return found


if __name__ == "__main__":
    sys.exit(main())
