"""A machine whose memory and disk can be told apart: the demo guest's counter and its note.

The counter is in memory (and goes to the disk with the note); the note reaches the disk with Enter.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qlaunch.errors import NotFoundError
from qlaunch.store import paths
from qlaunch.store import timeline as store
from tests.rig import Console, Rig, until

SECOND_DISK = """
[[disk]]
id = "extra"
bus = "virtio"
size = "8MiB"
"""


class Traveller:
    """Talks to the demo guest `name` and to its supervisor about snapshots."""

    def __init__(self, rig: Rig, name: str = "demo") -> None:
        self.rig = rig
        self.name = name

    @contextlib.contextmanager
    def console(self) -> Iterator[Console]:
        """The serial port from now on, without what the guest has said before."""
        connection = self.rig.connect(self.name)
        earlier = connection.ask("console", {"name": self.name})["backlog"]
        received = connection.rest()
        while len(received) < earlier:
            received += connection.socket.recv(65536)
        with Console(connection, received[earlier:]) as console:
            yield console

    def say(self, text: str) -> None:
        """Have the guest read keys: `+` counts, text is a note, a CR saves both."""
        with self.console() as console:
            console.send(text)
            if text.endswith("\r"):
                console.expect("saved\r\n")

    def now(self) -> tuple[int, str]:
        """The counter and the note that the guest has in memory."""

        def answer() -> re.Match[str] | None:
            with self.console() as console:
                console.socket.settimeout(1.0)
                console.send("?")
                try:
                    return console.expect(r"up=\d+ boots=\d+ count=(\d+) note=([^\r]*)\r\n")
                except TimeoutError:
                    return None

        found = until(answer, "an answer of the guest")
        return int(found[1]), str(found[2])

    def settle(self) -> None:
        """Wait until no layers are being merged or removed."""
        until(lambda: not self.rig.ask("jobs", name=self.name)["jobs"], "the end of all merges")

    def create(self, snapshot: str | None = None, **args: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.rig.ask(
            "snapshot-create", name=self.name, snapshot=snapshot, **args
        )
        return answer

    def revert(self, snapshot: str, **args: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.rig.ask("revert", name=self.name, snapshot=snapshot, **args)
        with contextlib.suppress(NotFoundError):  # it does not run
            self.settle()  # an untouched present is removed behind it
        return answer

    def delete(self, snapshot: str, **args: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.rig.ask(
            "snapshot-delete", name=self.name, snapshot=snapshot, **args
        )
        return answer

    def layers(self) -> list[str]:
        """The images in the machine's folder."""
        return sorted(
            entry for entry in os.listdir(paths.machine_data(self.name)) if ".qcow2" in entry
        )

    def labels(self) -> list[str]:
        return [each.label for each in store.load(self.name).snapshots]

    def check_images(self) -> None:
        """Every image is without errors; leaks are none."""
        for entry in self.layers():
            path = os.path.join(paths.machine_data(self.name), entry)
            done = subprocess.run(
                ["qemu-img", "check", "-U", "-q", path], capture_output=True, text=True, check=False
            )
            assert done.returncode in (0, 3), (entry, done.stdout, done.stderr)

    def state_of_disk(self, image: str) -> bytes:
        """The sector in which the guest keeps its note, as the chain of `image` has it."""
        path = Path(paths.machine_data(self.name)) / image
        done = subprocess.run(
            ["qemu-io", "-U", "-r", "-f", "qcow2", "-c", "read -v 32k 512", str(path)],
            capture_output=True, check=True,
        )  # fmt: skip
        *sector, _, _, _ = done.stdout.split(b"\n")  # without how long it took
        assert len(sector) == 32, done.stdout
        return b"\n".join(sector)
