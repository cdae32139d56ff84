"""The floor's machines: the argument lists of qlaunch's own plans, for `floor.py` to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from qlaunch.argv import Handles, build
from qlaunch.plan.model import Plan
from qlaunch.store import machines
from tests.bench.place import Place

# Six digits that no option has: floor.py puts the descriptors' real numbers there.
_FIRST = 990000


class Floor:
    """The process that starts the same machines without qlaunch. They must have run once, so that
    their plans and disks are there."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._specs: list[dict[str, Any]] = []
        # A session of its own: Ctrl-C is for the benchmark, which ends its children itself.
        self._process = subprocess.Popen(
            [place.python, "-P", str(Path(__file__).with_name("floor.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        for name in self._place.names:
            plan = machines.load_plan(name)
            assert plan is not None, f"{name} has not run yet"
            folder = self._place.sockets / "floor" / name
            folder.mkdir(parents=True)
            self._specs.append(_spec(plan, folder))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def up(self, count: int) -> float:
        """Start the first `count` machines at once. Returns: seconds until the last is greeted."""
        return self._do({"start": self._specs[:count]})

    def down(self) -> float:
        """Tell all to quit. Returns: seconds until the last one has ended."""
        return self._do({"stop": True})

    def _do(self, job: dict[str, Any]) -> float:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit("the floor's process has ended")
        return float(json.loads(answer)["seconds"])


def _spec(plan: Plan, folder: Path) -> dict[str, Any]:
    files: dict[str, list[Any]] = {}

    def number(kind: str, path: str, *flags: int) -> int:
        value = _FIRST + len(files)
        files[str(value)] = [kind, path, *flags]
        return value

    images: dict[str, int] = {}
    sets: dict[int, tuple[int, ...]] = {}
    for at, layer in enumerate(plan.layers()):
        modes = [os.O_RDONLY] if layer.read_only else [os.O_RDWR, os.O_RDONLY]
        images[layer.file_node] = at
        sets[at] = tuple(number("open", layer.path, mode | os.O_NONBLOCK) for mode in modes)
    sockets = {chardev.id: number("listen", str(folder / chardev.id)) for chardev in plan.sockets()}
    options = build(plan, Handles(images=images, sets=sets, sockets=sockets))
    return {
        "argv": [word for option in options for word in option],
        "files": files,
        "qmp": str(folder / "qmp"),
        "log": machines.log_path(plan.name),
    }
