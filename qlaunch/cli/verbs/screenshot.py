"""`qlaunch screenshot`."""

from __future__ import annotations

import os
import sys

from qlaunch.cli import output, talk
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

FORMATS = ("png", "ppm")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Save a picture of the machine's screen."
    parser.epilog = (
        "examples:\n"
        "  qlaunch screenshot xp              into xp.png\n"
        "  qlaunch screenshot xp shot.ppm     the suffix says the format\n"
        "  qlaunch screenshot xp - | feh -    to the standard output"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("file", nargs="?", metavar="FILE", help="where to; - is standard output")
    parser.add_argument("--format", choices=FORMATS, help="png or ppm, when no suffix says it")


def run(args: argparse.Namespace) -> int:
    path = args.file or f"{args.name}.{args.format or 'png'}"
    form = args.format or _format(path)
    if path == "-" and args.json:
        raise UsageError("--json and the picture cannot share standard output")
    if path == "-" and sys.stdout.isatty():
        raise UsageError("a terminal cannot show a picture", hint="redirect it, or name a file")
    reply = talk.ask_machine("screenshot", args.name, {"format": form})
    import binascii

    picture = binascii.a2b_base64(reply["data"])
    if path == "-":
        sys.stdout.buffer.write(picture)
        sys.stdout.buffer.flush()
        return 0
    write_whole(path, picture)
    if args.json:
        about = {key: value for key, value in reply.items() if key != "data"}
        output.print_json({"name": args.name, "file": os.path.abspath(path), **about})
    else:
        output.note(f"{args.name}: the screen is in {path}", quiet=args.quiet)
    return 0


def _format(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower().lstrip(".")
    if suffix in FORMATS or path == "-":
        return suffix or "png"
    raise UsageError(
        f"{path}: a picture is {' or '.join(FORMATS)}",
        hint="let the name end in .png, or say --format png",
    )


def write_whole(path: str, content: bytes) -> None:
    """Write the file `path` in one step: a reader sees the old or the new one, never half."""
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:  # /dev/stdout, a pipe: nothing to replace
            device.write(content)
        return
    folder, name = os.path.split(os.path.realpath(path))
    part = os.path.join(folder, f".{name}.{os.getpid()}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.rename(part, os.path.join(folder, name))
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
