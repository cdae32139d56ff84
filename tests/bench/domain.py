"""How long the import of a domain of libvirt takes, as a whole process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import process
from tests.bench.figures import Figure, timed
from tests.bench.place import Place

LINES = 200
# Milliseconds.
LIMIT = 150.0
_SEED = Path(__file__).parents[1] / "domains" / "q35-linux.xml"
_NIC = """\
    <interface type='user'>
      <mac address='52:54:00:00:00:{:02x}'/>
      <model type='virtio'/>
    </interface>
"""


def measure(place: Place, rounds: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """Imports of a file of 200 lines."""
    say("import of a domain")
    with tempfile.NamedTemporaryFile("w", suffix=".xml", encoding="utf-8") as file:
        file.write(text())
        file.flush()
        argv = [place.qlaunch, "import", file.name, "--stdout", "--quiet"]
        runs = [process.run(argv) for _ in range(rounds)]
    what = f"`qlaunch import` of {LINES} lines"
    yield timed(f"{what}, wall time", [each.wall for each in runs], (), LIMIT)
    yield timed(f"{what}, CPU time", [each.cpu for each in runs])


def text() -> str:
    """A domain of at least 200 lines."""
    head, tail = _SEED.read_text(encoding="utf-8").split("  </devices>")
    count = 0
    while head.count("\n") + tail.count("\n") < LINES:
        head += _NIC.format(count)
        count += 1
    return f"{head}  </devices>{tail}"
