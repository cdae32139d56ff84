"""`python -m tests.bench`: measure qlaunch and print a table. `make bench` calls this.

    --quick     few rounds and at most 20 machines, to try it out
    --write     put the table into docs/benchmarks.md

Exit status: 0 when every figure is within its limit, 1 when one is over.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import figures
from tests.bench.figures import Figure
from tests.bench.measure import FULL, QUICK, measure
from tests.bench.place import Place

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: `make bench ARGS=--write` -->", "<!-- end of results -->"
INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure qlaunch.")
    parser.add_argument("--quick", action="store_true", help="few rounds, at most 20 machines")
    parser.add_argument("--write", action="store_true", help=f"write to {DOCUMENT.name}")
    args = parser.parse_args()
    if args.quick and args.write:
        parser.error("--quick is too rough to be written down")
    emulator = shutil.which("qemu-system-x86_64")
    if emulator is None:
        parser.error("there is no qemu-system-x86_64 here")
    where = figures.circumstances(emulator)
    effort = QUICK if args.quick else FULL
    found: list[Figure] = []
    begun = time.monotonic()
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with Place(max(effort.starts)) as place:
            found.extend(measure(place, effort, _say))
    except KeyboardInterrupt:
        print("interrupted; what was measured until then:", file=sys.stderr)
        print(figures.plain_table(found))
        return INTERRUPTED
    print(f"{where}\n\n{figures.plain_table(found)}\n")
    print(f"took {time.monotonic() - begun:.0f} s; medians, floor and qlaunch in turn")
    if args.write:
        write(DOCUMENT, where, found)
    return int(any(figure.verdict == "OVER" for figure in found))


def write(document: Path, where: str, found: Sequence[Figure]) -> None:
    """Replace what stands between the markers of `document`."""
    before, rest = document.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    results = f"{BEGIN}\n\n{where}.\n\n{figures.markdown_table(found)}\n\n{END}"
    document.write_text(f"{before}{results}{after}", encoding="utf-8")


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
