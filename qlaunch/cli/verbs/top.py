"""`qlaunch top`."""

from __future__ import annotations

import time

from qlaunch import units
from qlaunch.cli import output, talk
from qlaunch.cli.table import table
from qlaunch.cli.verbs.power import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

HEADER = ("NAME", "STATE", "CPU", "MEM", "READ/s", "WRITE/s")
RATES = ("cpu_seconds", "read", "written")
INTERVAL = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Watch what the machines that run use: processor (100 % is one core), memory, and what\n"
        "they read from and write to their disks in a second. Ctrl-C ends it."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch top                          all, every two seconds\n"
        "  qlaunch top 'web-*' --interval 10s\n"
        "  qlaunch top --json --count 5         five lines for a program"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; patterns work")
    parser.add_argument(
        "--interval", type=duration, default=INTERVAL, metavar="TIME", help="how often (2s)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after so many times")


def run(args: argparse.Namespace) -> int:
    from qlaunch.cli import watch

    before: dict[str, dict[str, Any]] = {}

    def show() -> None:
        rows = [_with_rates(row, before.get(row["name"])) for row in _look(args.names)]
        before.clear()
        before.update({row["name"]: row for row in rows})
        if args.json:
            output.print_json({"time": round(time.time(), 3), "machines": rows})
        else:
            print(table(HEADER, [_row(row) for row in rows]))

    watch.repeat(show, args.interval, args.count)
    return 0


def _look(names: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = talk.machines("usage")["machines"]
    return [row for row in rows if not names or any(talk.matches(word, row) for word in names)]


def _with_rates(row: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """`row` with what was used in a second since the look before; None the first time."""
    rates: dict[str, Any] = dict.fromkeys(f"{key}_rate" for key in RATES)
    if before is not None and before.get("pid") == row.get("pid"):
        seconds = max(row["at"] - before["at"], 1e-3)
        for key in RATES:
            if row[key] is not None and before[key] is not None:
                rates[f"{key}_rate"] = round(max(0, row[key] - before[key]) / seconds, 3)
    return {**row, **rates}


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    cpu, memory = row["cpu_seconds_rate"], row["memory"]
    return (
        row["name"],
        row["state"],
        "-" if cpu is None else f"{100 * cpu:.0f}%",
        "-" if memory is None else units.short_size(memory),
        *("-" if row[key] is None else units.short_size(row[key]) for key in _IO),
    )


_IO = ("read_rate", "written_rate")
