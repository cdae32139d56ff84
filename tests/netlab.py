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
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

from qlaunch.network import client
from qlaunch.network.client import Attached, Service
from qlaunch.plan.model import Attachment
from tests import leftovers, prerequisites
from tests.netspace import Space, as_user
from tests.rig import TOP, end, until

KILLED = TOP / "tests" / "netlab_killed.py"
PUMP = TOP / "tests" / "netlab_pump.py"
# What udhcpc does with an address; the file in the checkout is not executable.
UDHCPC = TOP / "tests" / "guest" / "udhcpc-script"


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
        # dnsmasq gives root up and reads its files again and again.
        prerequisites.require_users()
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

    def start(self, *, killed_at: str = "") -> None:
        """Start the service, and wait until it answers. `killed_at` "3" has it killed when it has
        done three steps."""
        how = [str(KILLED), killed_at] if killed_at else ["-m", "qlaunch.network.netd"]
        words = [sys.executable, *how, "--socket", self.socket]
        words += ["--run", f"{self.place}/run", "--lib", f"{self.place}/lib"]
        words += ["--rules", f"{self.place}/netd.toml", "--networks", f"{self.place}/networks"]
        with open(self.place / "log", "ab") as log:
            self.netd = subprocess.Popen(
                self.host.command(*words), stdout=log, stderr=log, cwd=TOP,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        until(lambda: self._answers() or (killed_at and self._dead()), "the network service")

    def _dead(self) -> bool:
        return self.netd is not None and self.netd.poll() is not None

    def _answers(self) -> bool:
        if self._dead():
            assert self.netd
            assert self.netd.returncode == -signal.SIGKILL, self.log()
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

    def plan(self) -> list[str]:
        """What the service would do now."""
        return [step["about"] for step in self.ask("plan")["steps"]]

    def settled(self) -> None:
        """Wait until the service has nothing to do."""
        until(lambda: not self.plan(), "everything to be as it should be")

    def up(self, name: str) -> dict[str, Any]:
        """Bring a network up; returns what it is."""
        net: dict[str, Any] = self.ask("up", network=name)["network"]
        return net

    # ---- guests ---------------------------------------------------------------------------------

    def attach(
        self, name: str, network: str, *, service: Service | None = None, **more: Any
    ) -> tuple[str, Attached]:
        """A card of `name` plugged in; its MAC address and what the service gave."""
        self.numbers += 1
        said = {"network": network, "mac": f"52:54:00:00:01:{self.numbers:02x}", "hostname": name}
        attachment = Attachment(**(said | more))
        asked = service or self.service
        return attachment.mac, asyncio.run(asked.attach(name, "net0", attachment))

    def guest(self, name: str, network: str = "lab", *, user: int = 0, **more: Any) -> Guest:
        """A guest that runs, whose card `user` has asked for."""
        with as_user(user) if user else contextlib.nullcontext():
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
        """A server in `space` that tells each who connects from where, and then echoes."""
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

    @contextlib.contextmanager
    def stream(self, space: Space, address: str, port: int = 80) -> Iterator[Callable[[], None]]:
        """A connection that stays; call what is yielded to see that it still carries something."""
        with space.inside():
            sock = socket.socket(_family(address), socket.SOCK_STREAM)
        with sock:
            sock.settimeout(30)
            sock.connect((address, port))
            assert sock.recv(200).startswith(b"hello")

            def alive() -> None:
                sock.sendall(b"still there?")
                assert sock.recv(200) == b"still there?"

            alive()
            yield alive

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
import socket, sys, threading
def serve(sock, peer):
    with sock:
        sock.sendall(b"hello " + peer[0].removeprefix("::ffff:").encode())
        while data := sock.recv(4096):
            sock.sendall(data)
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    threading.Thread(target=serve, args=listener.accept(), daemon=True).start()
"""
