"""Network namespaces that a test makes, and being another user for a while."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define

NOBODY = 65534
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


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
