"""`python -m qlaunch.network.netd`: the network service, the one process with a capability.

As root it makes the networks of `/etc/qlaunch/networks` for whom `/etc/qlaunch/netd.toml` allows.
systemd hands it its socket (LISTEN_FDS); without, it makes its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable

from qlaunch.errors import ConflictError, HostError, QlaunchError
from qlaunch.host.computer import host_facts
from qlaunch.network import wire
from qlaunch.network.client import system_socket
from qlaunch.network.files import Places
from qlaunch.network.server import Server
from qlaunch.network.service import Networks
from qlaunch.network.uplink import Uplink
from qlaunch.plan.networks.access import RULES_FILE
from qlaunch.store import paths

RUN, LIB = "/run/qlaunch-netd", "/var/lib/qlaunch-netd"
BACKLOG = 64
_FIRST_FD = 3


def main() -> int:
    """Serve until SIGTERM or SIGINT; guests and networks go on without us."""
    args = _arguments()
    os.umask(0o022)
    places = Places(
        run=args.run,
        lib=args.lib,
        networks=tuple(args.networks or paths.network_dirs(system=True)),
        rules=args.rules,
        user="nobody" if os.getuid() == 0 and not args.same_user else None,
    )
    try:
        listener = handed_over() or listen(args.socket, mode=0o666)
        with contextlib.closing(Uplink(args.run)) as uplink:
            for bridge in uplink.recover():
                sys.stderr.write(f"qlaunch-netd: {bridge} was never confirmed: it was put back\n")
        asyncio.run(serve(places, listener))
    except QlaunchError as error:
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"qlaunch-netd: {error.message}{hint}\n")
        return error.exit_status
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="qlaunch-netd", description=__doc__)
    parser.add_argument("--socket", default=system_socket(), help="where to listen")
    parser.add_argument("--run", default=RUN, help="files that are gone after a reboot")
    parser.add_argument("--lib", default=LIB, help="files that stay")
    parser.add_argument("--rules", default=RULES_FILE, help="the allow list")
    parser.add_argument("--networks", action="append", help="folder of network files")
    parser.add_argument("--same-user", action="store_true", help="dnsmasq stays who it is")
    return parser.parse_args()


async def serve(
    places: Places,
    listener: socket.socket,
    *,
    ends: float = 0.0,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve `listener` until a signal, or until nobody needs it where `ends` says so; then nothing
    that no guest uses is left. Calls `ready` when it begins."""
    loop = asyncio.get_running_loop()
    networks = Networks(places, host_facts().machine_id)
    try:
        server = Server(networks, listener, ends=ends)
        task = asyncio.ensure_future(server.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGHUP, server.read_again)
        (ready or tell_ready)()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if ends:
            networks.let_go()
    finally:
        networks.close()


def handed_over() -> socket.socket | None:
    """The socket that systemd listens on for us (sd_listen_fds(3)), None when there is none.

    Raises: HostError when it is of another sort.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    os.set_inheritable(_FIRST_FD, False)  # noqa: FBT003
    sock = socket.socket(fileno=_FIRST_FD)
    if sock.family != socket.AF_UNIX or sock.type != wire.KIND:
        raise HostError("the socket from systemd is not of the sort ListenSequentialPacket=")
    return sock


def listen(path: str, *, mode: int) -> socket.socket:
    """Listen at `path`, where a socket that nobody listens on may lie.

    Raises: ConflictError when somebody does, HostError.
    """
    sock = socket.socket(socket.AF_UNIX, wire.KIND | socket.SOCK_CLOEXEC)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.fchmod(sock.fileno(), mode)
        if os.path.exists(path):
            with socket.socket(socket.AF_UNIX, wire.KIND) as probe:
                try:
                    probe.connect(path)
                    raise ConflictError(f"another network service listens at {path}")
                except ConnectionRefusedError:
                    os.unlink(path)
        sock.bind(path)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise HostError(f"cannot listen at {path}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def tell_ready() -> None:
    """Tell systemd (sd_notify(3)), where it has asked to be told."""
    path = os.environ.pop("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(b"READY=1", f"\0{path[1:]}" if path.startswith("@") else path)


if __name__ == "__main__":
    sys.exit(main())
