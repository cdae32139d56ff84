"""A user of the laboratory's computer who is not root, and its own networks."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from attrs import define

from qlaunch.network.client import Service
from tests import leftovers, prerequisites
from tests.netlab import Guest, Lab
from tests.netspace import as_user
from tests.rig import TOP, end, until


@define(kw_only=True, eq=False)
class Own:
    """Somebody with the number `uid`, at home in `home`."""

    lab: Lab
    uid: int
    home: Path

    @classmethod
    def make(cls, lab: Lab, uid: int = 12345) -> Own:
        prerequisites.require_users()
        prerequisites.require("netns", prerequisites.find_program("pasta"), "no pasta (passt)")
        own = cls(lab=lab, uid=uid, home=lab.place.parent / f"u{uid}")
        for folder in (own.home, *(own.home / each for each in _FOLDERS.values())):
            folder.mkdir(mode=0o700)
            os.chown(folder, uid, uid)
        lab.stack.callback(own._clear_away)
        return own

    def _clear_away(self) -> None:
        for pid in leftovers.find(f"{self.home}/"):
            end(pid)

    # ---- what it does ---------------------------------------------------------------------------

    def command(self, *words: str) -> list[str]:
        who = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return self.lab.host.command(*who, sys.executable, "-m", *words)

    @property
    def environment(self) -> dict[str, str]:
        folders = {name: str(self.home / folder) for name, folder in _FOLDERS.items()}
        said = {"HOME": str(self.home), "QLAUNCH_NETD": self.lab.socket, **folders}
        return os.environ | said

    def qlaunch(self, *words: str, check: bool = True) -> Any:
        """What `qlaunch --json` prints."""
        done = subprocess.run(
            self.command("qlaunch", "--json", *words),
            env=self.environment, cwd=TOP, text=True, capture_output=True, timeout=50, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.log()}"
        return json.loads(done.stdout)

    def write(self, folder: str, name: str, text: str) -> None:
        """Write a profile or a network."""
        path = self.home / "config" / "qlaunch" / folder / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def network(self, name: str, text: str) -> None:
        self.write("networks", name, f"schema = 1\n{text}\n")

    # ---- its service ----------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.home / "run" / "qlaunch" / "net"

    @property
    def service(self) -> Service:
        return Service(kind="rootless", path=str(self.folder / "socket"))

    def guest(self, name: str, network: str = "lab", **more: Any) -> Guest:
        return self.lab.guest(name, network, user=self.uid, service=self.service, **more)

    def ask(self, verb: str, **about: Any) -> dict[str, Any]:
        with as_user(self.uid):
            return asyncio.run(self.service.ask(verb, about))

    def log(self) -> str:
        path = self.home / "state" / "qlaunch" / "network.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def piece(self, name: str) -> int:
        """The number of a process of its service."""
        if name in ("holder", "pasta"):
            return int(json.loads((self.folder / f"{name}.json").read_text())["pid"])
        both = [
            pid
            for pid, line in leftovers.find(f"{self.home}/").items()
            if "network.rootless" in line
        ]
        keeper = next(pid for pid in both if _parent(pid) not in both)
        return keeper if name == "keeper" else next(pid for pid in both if pid != keeper)

    def processes(self) -> list[str]:
        return list(leftovers.find(f"{self.home}/").values())

    def gone(self) -> None:
        """Wait until nothing of it runs."""
        until(lambda: not self.processes(), "the end of all its processes")


_FOLDERS = {
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "XDG_RUNTIME_DIR": "run",
    "XDG_CACHE_HOME": "cache",
}


def _parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(stat.rpartition(")")[2].split()[1])
