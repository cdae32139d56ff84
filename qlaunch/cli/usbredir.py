"""A USB device brought to a machine by `usbredirect`, through this process."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading

from qlaunch.cli import output, talk
from qlaunch.errors import HostError, NotFoundError, RefusedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

PROGRAM = "usbredirect"
# How long it may take to find its device and to come.
COME_TIMEOUT = 20.0
END_TIMEOUT = 5.0
_BLOCK = 1 << 16
_LISTEN = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):([0-9]{1,5})")


def run(args: argparse.Namespace) -> int:
    """Be the way between the device and the machine until either ends. Raises: UsageError,
    HostError, NotFoundError, what the supervisor answers."""
    if (args.device is None) == (args.listen is None):
        raise UsageError("which device?", hint="vendor:product, a port, or --listen ADDRESS:PORT")
    if args.json:
        raise UsageError("--json is not for this: it lasts until it is interrupted")
    words = _usbredirect(args.device) if args.device else []
    with _listener(args.listen) as listener, talk.open_machine(args.name) as machine:
        told = machine.ask("usb-redirect", {"name": args.name})
        host, port = listener.getsockname()[:2]
        if not words:
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            _tell(args, f"{args.name} waits at {where} (its USB port {told['port']})")
            with _accept(listener, None) as client:
                _tell(args, "the device is there; Ctrl-C takes it away")
                _carry(client, machine.socket, machine.rest())
            _tell(args, "the device is gone")
            return 0
        program = subprocess.Popen(
            [*words, "--to", f"{host}:{port}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            with _accept(listener, program) as client:
                _tell(args, f"{args.device} is in {args.name}; Ctrl-C takes it back")
                _carry(client, machine.socket, machine.rest())
        finally:
            _end(program)
    _tell(args, f"{args.device} is here again")
    return 0


def _tell(args: argparse.Namespace, text: str) -> None:
    output.note(text, quiet=args.quiet)


def _usbredirect(device: str) -> list[str]:
    """The program with its device. Raises: HostError, NotFoundError, RefusedError."""
    from qlaunch.host.usb import usb_devices

    path = shutil.which(PROGRAM)
    if path is None:
        raise HostError(f"{PROGRAM} is not installed", hint=f"sudo apt install {PROGRAM}")
    found = next((each for each in usb_devices() if each.is_meant(device)), None)
    if found is None:
        raise NotFoundError(
            f"there is no USB device {device} here", hint="`qlaunch usb list` shows what there is"
        )
    if not found.usable:
        raise RefusedError(f"you may not use {found.ident} ({found.node})")
    bus, number = found.node.split("/")[-2:]
    return [path, "--device", f"{int(bus)}-{int(number)}"]


def _listener(where: str | None) -> socket.socket:
    """A socket that waits for one. Raises: UsageError, HostError."""
    match = _LISTEN.fullmatch(where or "127.0.0.1:0")
    if match is None:
        raise UsageError(f"{where!r} is no address and port", hint="such as 127.0.0.1:4000")
    host = match[1] or match[2]
    listener = socket.socket(socket.AF_INET6 if match[1] else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(match[3])))
        listener.listen(1)
    except (OSError, OverflowError) as error:
        listener.close()
        raise HostError(f"cannot listen at {where}: {error}") from error
    return listener


def _accept(listener: socket.socket, program: subprocess.Popen[bytes] | None) -> socket.socket:
    """Whoever comes first; where it is a `program` of ours, nobody else. Raises: HostError."""
    if program is None:
        return listener.accept()[0]
    listener.settimeout(0.1)
    for _ in range(int(COME_TIMEOUT / 0.1)):
        try:
            client, (host, port) = listener.accept()
        except TimeoutError:
            if program.poll() is not None:
                break
            continue
        if _is_ours(host, port):
            client.settimeout(None)
            return client
        client.close()
    raise HostError(f"{PROGRAM} could not use the device: its own words stand above")


def _is_ours(host: str, port: int) -> bool:
    """Whether the other end of a connection on this computer is this user's."""
    address = "".join(f"{int(number):02X}" for number in reversed(host.split(".")))
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return any(row[1] == f"{address}:{port:04X}" and row[7] == str(os.getuid()) for row in rows)


def _carry(client: socket.socket, machine: socket.socket, first: bytes) -> None:
    """Carry bytes both ways until one side hangs up; `first` has come from the machine already."""
    client.sendall(first)
    ways = [(client, machine), (machine, client)]
    threads = [threading.Thread(target=_copy, args=way, daemon=True) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_BLOCK):
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def _end(program: subprocess.Popen[bytes]) -> None:
    program.terminate()
    try:
        program.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
