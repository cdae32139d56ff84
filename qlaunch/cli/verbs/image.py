"""`qlaunch image`."""

from __future__ import annotations

import os

from qlaunch.cli import output
from qlaunch.errors import NotFoundError
from qlaunch.units import short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show an image and all that it stands on, and who uses each of them."
    parser.epilog = "examples:\n  qlaunch image chain xp_c.snap3.qcow2"
    parser.add_argument("action", choices=("chain",), help="what to show")
    parser.add_argument("file", metavar="FILE", help="the image")


def run(args: argparse.Namespace) -> int:
    rows = _chain(os.path.abspath(args.file))
    if args.json:
        output.print_json({"file": rows[0]["path"], "chain": rows})
        return 0
    for number, row in enumerate(rows):
        size = f", {short_size(row['virtual_size'])}" if row["virtual_size"] else ""
        used = f", {short_size(row['allocated'])} used" if row["allocated"] is not None else ""
        print(output.clean(f"{'   ' * number}{'└─ ' if number else ''}{row['path']}"
                           f"  ({row['format'] or 'missing'}{size}{used})"))  # fmt: skip
        for line in (row["problem"], row["holder"], row["named_by"]):
            if line:
                print(output.clean(f"{'   ' * (number + 1)}  {line}"))
    return 0


def _chain(path: str) -> list[dict[str, Any]]:
    """Raises: NotFoundError."""
    from qlaunch.host.image_facts import chain_facts
    from qlaunch.machine.claims import Claims, claimants

    if not os.path.exists(path):
        raise NotFoundError(f"there is no file {path}")
    claims = Claims.of(claimants("", None))
    return [
        {
            "path": facts.path,
            "format": facts.format,
            "virtual_size": facts.virtual_size,
            "allocated": facts.allocated,
            "problem": facts.problem or (None if facts.exists else "it is missing"),
            "holder": f"in use by {facts.holder}" if facts.holder else None,
            "named_by": claims.who_names(facts.path),
        }
        for facts in chain_facts(path, want_write=True).values()
    ]
