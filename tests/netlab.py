"""A computer with networks of ours, an outside with a server, and guests: each in a namespace.

    with Lab.opened(own_place) as lab:
        lab.network("lab", 'mode = "nat"')
        lab.start()
        guest = lab.guest("alpha", network="lab")
        guest.lease()
        assert lab.fetch(guest.space, lab.SERVER) == f"hello {lab.HOST}"

The computer (`lab.host`) and the outside (`lab.outside`) are joined by a cable; the outside knows
no way back to the networks of guests. The kernel removes all of it with its last process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from qlaunch.network import client
from qlaunch.network.client import Attached, Service
from qlaunch.plan.model import Attachment
from tests import leftovers, prerequisites
from tests.rig import TOP, end, until

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
NOBODY = 65534
PUMP = TOP / "tests" / "netlab_pump.py"
# What udhcpc does with an address; the file in the checkout is not executable.
UDHCPC = TOP / "tests" / "guest" / "udhcpc-script"


@define(kw_only=True, eq=False)
class Space:
    """A network namespace, held by a process."""

    name: str
    holder: subprocess.Popen[str]

    @classmethod
    def make(cls, name: str, command: Sequence[str] = (), **more: Any) -> Space:
        """A namespace in which `command` runs, which says a line when it is ready."""
        word = "import signal; print(flush=True); signal.pause()"
        holder = subprocess.Popen(
            ["unshare", "--net", *(command or (sys.executable, "-S", "-I", "-c", word))],
            stdout=subprocess.PIPE,
            text=True,
            **more,
        )
        assert holder.stdout
        assert holder.stdout.readline(), f"no namespace {name}"
        space = cls(name=name, holder=holder)
        space.ip("link set lo up")
        return space

    @property
    def path(self) -> str:
        return f"/proc/{self.holder.pid}/ns/net"

    def command(self, *words: str) -> list[str]:
        """A command line that runs `words` in it."""
        return ["nsenter", f"--net={self.path}", *words]

    def run(self, *words: str, check: bool = True) -> str:
        """What a program in it prints, also on stderr."""
        done = subprocess.run(
            self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=40, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(words)}: {done.stdout}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """`ip` with each of `lines`."""
        for line in lines:
            self.run("ip", *line.split())

    def show(self, *words: str) -> Any:
        """What `ip --json` says."""
        return json.loads(self.run("ip", "--json", *words) or "[]")

    def link(self, name: str) -> dict[str, Any] | None:
        found = [link for link in self.show("-d", "link", "show") if link["ifname"] == name]
        return found[0] if found else None

    def addresses(self, link: str) -> set[str]:
        """Its addresses that can be used, but no link-local ones."""
        return {
            at["local"]
            for each in self.show("address", "show", "dev", link)
            for at in each["addr_info"]
            if at["scope"] == "global" and not at.get("tentative")
        }

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that are made meanwhile belong to it."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self.path)
            yield
        finally:
            _enter(f"/proc/self/fd/{before}")
            os.close(before)

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()
        if self.holder.stdout:
            self.holder.stdout.close()


def _enter(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(handle)


@define(kw_only=True, eq=False)
class Guest:
    """A guest on a TAP: a namespace whose `eth0` is the card, and a process for the cable."""

    name: str
    mac: str
    attached: Attached
    space: Space
    script: str

    def lease(self, name: str | None = None) -> str:
        """Have busybox ask for an address; returns it."""
        hostname = ["-x", f"hostname:{name or self.name}"]
        self.space.run(
            "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "10", "-T", "1",
            "-s", self.script, *hostname,
        )  # fmt: skip
        return next(at for at in self.space.addresses("eth0") if "." in at)

    def address6(self) -> str:
        """The address that it makes of a router's advertisement."""
        found = until(
            lambda: next((a for a in self.space.addresses("eth0") if ":" in a), None),
            f"an IPv6 address of {self.name}",
        )
        # dnsmasq greets an address as soon as it can be, so this computer may think for a second
        # or two that nobody has it.
        router = ipaddress.IPv6Interface(f"{found}/64").network[1]
        until(lambda: self.pings(str(router)), f"{self.name} to reach {router}")
        return str(found)

    def resolve(self, name: str, server: str, kind: int = 1) -> str | None:
        """The address that the name server says for `name`, None when there is none."""
        with self.space.inside(), socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            labels = b"".join(bytes([len(w)]) + w.encode() for w in name.split("."))
            question = labels + b"\0" + bytes([0, kind, 0, 1])
            sock.sendto(b"ql\x01\0\0\x01\0\0\0\0\0\0" + question, (server, 53))
            answer = sock.recv(600)
        if not answer[7]:
            return None
        size = 4 if kind == 1 else 16
        family = socket.AF_INET if kind == 1 else socket.AF_INET6
        return socket.inet_ntop(family, answer[-size:])

    def pings(self, address: str) -> bool:
        """Whether an echo comes back."""
        return "1 packets received" in self.space.run(
            "busybox", "ping", "-c", "1", "-W", "3", address, check=False
        )

    def close(self) -> None:
        """End it, as its QEMU would."""
        self.space.close()


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@define(kw_only=True, eq=False)
class Lab:
    """See the module."""

    HOST, SERVER = "203.0.113.1", "203.0.113.2"
    HOST6, SERVER6 = "2001:db8:1::1", "2001:db8:1::2"

    place: Path
    host: Space
    outside: Space
    stack: contextlib.ExitStack
    netd: subprocess.Popen[bytes] | None = None
    guests: list[Guest] = field(factory=list)
    numbers: int = 0

    @classmethod
    @contextlib.contextmanager
    def opened(cls, place: Path) -> Iterator[Lab]:
        """A laboratory whose files are in `place`; nothing of it is left."""
        prerequisites.require("root", os.getuid() == 0, "only root joins namespaces like this")
        for word in ("dnsmasq", "nft", "busybox", "nsenter"):
            prerequisites.require("netns", prerequisites.find_program(word), f"no {word}")
        with contextlib.ExitStack() as stack:
            spaces = []
            for name in ("host", "outside"):
                spaces.append(Space.make(name))
                stack.callback(spaces[-1].close)
            lab = cls(place=place / "net", host=spaces[0], outside=spaces[1], stack=stack)
            lab._join()
            stack.callback(lab._clear_away)
            # Others than root ask the service, too.
            place.chmod(0o711)
            (lab.place / "networks").mkdir(parents=True)
            shutil.copy(UDHCPC, lab.script)
            os.chmod(lab.script, 0o755)
            yield lab

    def _join(self) -> None:
        self.host.ip(
            f"link add eth0 type veth peer name eth0 netns {self.outside.holder.pid}",
            f"address add {self.HOST}/24 dev eth0",
            f"address add {self.HOST6}/64 dev eth0 nodad",
            "link set eth0 up",
        )
        self.outside.ip(
            f"address add {self.SERVER}/24 dev eth0",
            f"address add {self.SERVER6}/64 dev eth0 nodad",
            "link set eth0 up",
        )
        self.host.ip(
            f"route add default via {self.SERVER}",
            f"-6 route add default via {self.SERVER6}",
        )

    def _clear_away(self) -> None:
        for guest in self.guests:
            guest.close()
        self.stop()
        for pid in leftovers.find(f"{self.place}/"):
            end(pid)

    @property
    def script(self) -> str:
        return str(self.place / "udhcpc-script")

    # ---- the service ----------------------------------------------------------------------------

    @property
    def socket(self) -> str:
        return str(self.place / "socket")

    @property
    def service(self) -> Service:
        return Service(kind="netd", path=self.socket)

    def network(self, name: str, text: str) -> None:
        """Write a network's file."""
        path = self.place / "networks" / f"{name}.toml"
        path.write_text(f"schema = 1\n{text}\n", encoding="utf-8")

    def rules(self, text: str) -> None:
        """Write the allow list."""
        (self.place / "netd.toml").write_text(f"schema = 1\n{text}\n", encoding="utf-8")

    def start(self, *more: str) -> None:
        """Start the service, and wait until it answers."""
        words = [sys.executable, "-m", "qlaunch.network.netd", "--socket", self.socket]
        words += ["--run", f"{self.place}/run", "--lib", f"{self.place}/lib"]
        words += ["--rules", f"{self.place}/netd.toml", "--networks", f"{self.place}/networks"]
        with open(self.place / "log", "ab") as log:
            self.netd = subprocess.Popen(
                self.host.command(*words, *more), stdout=log, stderr=log, cwd=TOP,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        until(self._answers, "the network service")

    def _answers(self) -> bool:
        assert self.netd
        assert self.netd.poll() is None, self.log()
        return asyncio.run(client.probe("netd", self.socket)) is not None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the service; networks and guests go on."""
        if self.netd is not None:
            self.netd.send_signal(number)
            self.netd.wait(30)
            self.netd = None

    def log(self) -> str:
        """All that the service said."""
        return (self.place / "log").read_text(encoding="utf-8")

    def ask(self, verb: str, **about: Any) -> dict[str, Any]:
        """The answer of the service. Raises: what it raised."""
        return asyncio.run(self.service.ask(verb, about))

    def up(self, name: str) -> dict[str, Any]:
        """Bring a network up; returns what it is."""
        net: dict[str, Any] = self.ask("up", network=name)["network"]
        return net

    # ---- guests ---------------------------------------------------------------------------------

    def attach(self, name: str, network: str, **more: Any) -> tuple[str, Attached]:
        """A card of `name` plugged in; its MAC address and what the service gave."""
        self.numbers += 1
        said = {"network": network, "mac": f"52:54:00:00:01:{self.numbers:02x}", "hostname": name}
        attachment = Attachment(**(said | more))
        return attachment.mac, asyncio.run(self.service.attach(name, "net0", attachment))

    def guest(self, name: str, network: str = "lab", **more: Any) -> Guest:
        """A guest that runs."""
        mac, attached = self.attach(name, network, **more)
        try:
            fd = attached.fds[0]
            command = [sys.executable, "-S", "-I", str(PUMP), str(fd), mac, str(attached.mtu)]
            space = Space.make(name, command, pass_fds=[fd])
        finally:
            attached.close()
        guest = Guest(name=name, mac=mac, attached=attached, space=space, script=self.script)
        self.guests.append(guest)
        return guest

    # ---- traffic --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def serving(self, space: Space, port: int = 80, address: str = "::") -> Iterator[None]:
        """A server in `space` that tells each who connects from where."""
        with space.inside():
            listener = socket.create_server(
                (address, port), family=_family(address), dualstack_ipv6=address == "::"
            )
        words = [sys.executable, "-S", "-I", "-c", _SERVER, str(listener.fileno())]
        server = subprocess.Popen(words, pass_fds=[listener.fileno()])
        listener.close()
        try:
            yield
        finally:
            server.kill()
            server.wait()

    def unreached(self, space: Space, address: str, port: int = 80) -> bool:
        """Whether a client in `space` does not get to the server at `address`."""
        return "hello" not in self.fetch(space, address, port, seconds=1)

    def fetch(
        self, space: Space, address: str, port: int = 80, *, seconds: float = 10, source: str = ""
    ) -> str:
        """What the server at `address` says to a client in `space`, or why it does not."""
        with space.inside():
            sock = socket.socket(_family(address), socket.SOCK_STREAM)
        with sock:
            sock.settimeout(seconds)
            try:
                if source:
                    sock.bind((source, 0))
                sock.connect((address, port))
                return sock.recv(200).decode()
            except OSError as error:
                return f"error {error.errno}" if error.errno else "error: no answer"


_SERVER = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    sock, peer = listener.accept()
    with sock:
        sock.sendall(b"hello " + peer[0].removeprefix("::ffff:").encode())
"""


@contextlib.contextmanager
def as_user(uid: int, groups: Sequence[int] = ()) -> Iterator[None]:
    """Be somebody else for a while, to whom we talk sees it so."""
    before = os.getgroups()
    os.setgroups(list(groups))
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)
