"""Somebody who uses qlaunch in the lab, and the machine `demo` of theirs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from tests.lab import HOME, PYTHON, ROOT_HOME, Lab

PATIENCE = 20.0
PROFILE = """
schema = 1
[machine]
type = "pc"
accel = "tcg"
smm = false
[memory]
size = "32MiB"
balloon = false
[display]
spice = false
[usb]
controller = "none"
[[disk]]
id = "disk0"
bus = "ide"
template = "@demo"
size = "1MiB"
[[serial]]
id = "serial0"
[lifecycle]
on_crash = "restart"
[limits]
memory = "512MiB"
cpu_quota = 150
cpus = "0"
io_weight = 50
tasks = 200
"""
SCOPE = "qlaunch-demo.scope"


@frozen
class Person:
    """Somebody in the lab who uses qlaunch: the ordinary user, or root."""

    lab: Lab
    root: bool

    @property
    def manager(self) -> str:
        return "--system" if self.root else "--user"

    def run(self, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.lab.run(*argv, root=self.root, **more)

    def qlaunch(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.run(PYTHON, "-P", "-m", "qlaunch", *words, **more)

    def ask(self, *words: str, **more: Any) -> dict[str, Any]:
        """What a verb says with --json."""
        answer: dict[str, Any] = json.loads(self.qlaunch(*words, "--json", **more).stdout)
        return answer

    def show(self, *names: str) -> dict[str, str]:
        """Properties of the machine's scope."""
        asked = self.run("systemctl", self.manager, "show", SCOPE, "-p", ",".join(names))
        return dict(line.split("=", 1) for line in asked.stdout.splitlines())

    def state(self) -> str:
        return self.show("ActiveState")["ActiveState"]

    def group(self, pid: int) -> str:
        """The control group of a process of the lab."""
        lines = self.lab.path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("0::"))

    @contextmanager
    def scope(self, *command: str, **properties: str) -> Iterator[subprocess.Popen[str]]:
        """A stranger's scope that has the machine's name."""
        words = [f"--property={name}={value}" for name, value in properties.items()]
        start = ("systemd-run", self.manager, "--scope", f"--unit={SCOPE}", *words, *command)
        argv = self.lab.command(start, root=self.root)
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert SCOPE in process.stderr.readline()
            yield process
            self.run("systemctl", self.manager, "stop", SCOPE, check=False)


def person_of(lab: Lab, *, root: bool) -> Person:
    """Somebody who has the profile of `demo`."""
    write = "mkdir -p ~/.config/qlaunch/profiles && cat >~/.config/qlaunch/profiles/demo.toml"
    argv = lab.command(["sh", "-c", write], root=root)
    subprocess.run(argv, input=PROFILE, text=True, check=True)
    return Person(lab, root)


@contextmanager
def user_of(lab: Lab, *, root: bool) -> Iterator[Person]:
    person, home = person_of(lab, root=root), ROOT_HOME if root else HOME
    yield person
    person.qlaunch("kill", "*", check=False)
    person.qlaunch("supervisor", "stop", check=False)
    person.run("rm", "-rf", f"{home}/.local", f"{home}/.config")
    left = ("pgrep", "-f", "qlaunch.supervisor|qemu-system")
    until(lambda: not person.run(*left, check=False).stdout)
    until(lambda: person.state() == "inactive")


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again; each question starts a program, so no pause is needed."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def read_console(person: Person, wanted: str, name: str = "demo") -> None:
    """Read the machine's console until it says `wanted`."""
    argv = person.lab.command([PYTHON, "-P", "-m", "qlaunch", "console", name], root=person.root)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as console:
        assert console.stdout
        text = b""
        while wanted.encode() not in text:
            byte = console.stdout.read(1)
            assert byte, text
            text += byte
        console.terminate()
