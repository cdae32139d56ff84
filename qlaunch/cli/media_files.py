"""A CD of files for `qlaunch media --files`: made here, kept in the machine's folder."""

from __future__ import annotations

import contextlib
import itertools
import os

from qlaunch.cli import definitions, output
from qlaunch.cli.verbs.clone import Percent
from qlaunch.errors import ConflictError
from qlaunch.host.iso import Made, Progress, make_iso
from qlaunch.store import paths
from qlaunch.units import short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


@contextlib.contextmanager
def made(args: argparse.Namespace, sources: list[str]) -> Iterator[str]:
    """The path of a new CD of `sources`; it is gone again if the block fails.

    Raises: NotFoundError, RefusedError, HostError.
    """
    percent = Percent(quiet=args.quiet or args.json)

    def progress(done: int, total: int) -> None:
        percent("making the CD", 100 * done / total if total else 100.0)

    folder = os.path.join(paths.machine_data(args.name), "media")
    try:
        iso = _make(sources, folder, progress)
    finally:
        percent.end()
    for text in iso.skipped[:10]:
        output.note(f"{args.name}: left out: {text}", quiet=args.quiet)
    if len(iso.skipped) > 10:
        output.note(f"{args.name}: and {len(iso.skipped) - 10} more", quiet=args.quiet)
    files = definitions.counted(iso.files, "file")
    output.note(f"{args.name}: a CD of {files}, {short_size(iso.size)}", quiet=args.quiet)
    try:
        yield iso.path
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(iso.path)
        raise


def _make(sources: list[str], folder: str, progress: Progress) -> Made:
    for number in itertools.count(1):
        path = os.path.join(folder, f"files-{number}.iso")
        if not os.path.lexists(path):
            with contextlib.suppress(ConflictError):  # somebody was quicker
                return make_iso(sources, path, progress)
    raise AssertionError("numbers do not end")
