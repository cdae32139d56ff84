"""`qlaunch image import`: an image from somewhere, read by a qemu-img that is confined."""

from __future__ import annotations

import os

from qlaunch.cli import definitions, output
from qlaunch.cli.verbs.clone import Percent
from qlaunch.errors import UsageError
from qlaunch.units import short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace) -> int:
    from qlaunch.host.image_import import FORMATS, import_image

    if args.format is not None and args.format not in FORMATS:
        raise UsageError(
            f"{args.format!r} is no format that is taken in", hint=f"one of {', '.join(FORMATS)}"
        )
    source = os.path.abspath(args.file)
    stem = os.path.splitext(os.path.basename(source))[0]
    path = os.path.abspath(args.new or f"{stem}.qcow2")
    percent = Percent(quiet=args.quiet or args.json)
    work = import_image(
        source,
        path,
        source_format=args.format,
        parts=[os.path.abspath(part) for part in args.part],
        progress=lambda done: percent(f"import {os.path.basename(source)}", done),
    )
    try:
        made = definitions.wait_for(work)
    finally:
        percent.end()
    if args.json:
        output.print_json(
            {"file": made.path, "source": made.source, "format": made.format, "size": made.size}
        )
        return 0
    output.note(
        f"made {definitions.shown(made.path)}: {short_size(made.size)}, from {made.format}",
        quiet=args.quiet,
    )
    return 0
