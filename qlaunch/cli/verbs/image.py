"""`qlaunch image`: image files, whoever's they are. What a machine has running is not touched."""

from __future__ import annotations

import os

from qlaunch.cli import output
from qlaunch.cli.verbs import disk
from qlaunch.errors import NotFoundError
from qlaunch.units import short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

SOURCES = ("qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc", "qed")
FORMATS = ("qcow2", "raw")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Work on image files: look at them, make, enlarge, convert and check them. What a\n"
        "running machine holds is refused; `qlaunch disk` works on the disks of machines."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch image chain xp_c.snap3.qcow2      a picture of what it stands on\n"
        "  qlaunch image convert old.vmdk xp.qcow2   from another program\n"
        "  qlaunch image resize data.qcow2 +10GiB"
    )


def _chain_parser(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show an image and all that it stands on, and who uses each of them."
    parser.epilog = "examples:\n  qlaunch image chain xp_c.snap3.qcow2"
    parser.add_argument("file", metavar="FILE", help="the image")


def _resize_parser(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make an image larger. One that a machine has is resized with `qlaunch disk resize`, also\n"
        "while it runs. An image cannot be made smaller: what is at its end would be lost."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch image resize data.qcow2 40GiB\n"
        "  qlaunch image resize data.qcow2 +10GiB"
    )
    parser.add_argument("file", metavar="FILE", help="the image")
    parser.add_argument("size", metavar="SIZE", help="how large, or with a + how much larger")


def _convert_parser(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write an image anew, whole and in another format: those of VMware (vmdk), VirtualBox\n"
        "(vdi) and Hyper-V (vhdx, vpc) are read, too. What it stands on is taken in. The old\n"
        "image stays, and what exists is never replaced."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch image convert old.vmdk xp.qcow2\n"
        "  qlaunch image convert xp.qcow2 xp.img --format raw\n"
        "  qlaunch image convert disk.bin xp.qcow2 --from raw"
    )
    parser.add_argument("file", metavar="FILE", help="the image")
    parser.add_argument("target", metavar="NEWFILE", help="the image to make")
    parser.add_argument("--format", choices=FORMATS, default="qcow2", help="(default: qcow2)")
    parser.add_argument(
        "--from",
        dest="source",
        choices=SOURCES,
        help="the old format (default: as its name ends, else as its header says)",
    )


def _import_parser(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Take an image from somebody else in, as a new qcow2 image: VMDK, VDI, VHDX and more.\n"
        "qemu-img reads it with rights to nothing but that file, and with limits to memory, time\n"
        "and size. An image that leads to other files is refused; `convert` is for your own."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch image import winxp.vmdk                  winxp.qcow2 here\n"
        "  qlaunch image import a.vmdk b.qcow2 --part a-s001.vmdk"
    )
    parser.add_argument("file", metavar="FILE", help="the image")
    parser.add_argument("new", metavar="NEW", nargs="?", help="the image to be made")
    parser.add_argument("--format", metavar="FORMAT", help="what FILE is")
    parser.add_argument(
        "--part", metavar="FILE", action="append", default=[],
        help="another file of which the image consists",
    )  # fmt: skip


ACTIONS = {
    "chain": ("show what an image stands on", _chain_parser),
    "info": ("show an image and who uses it", disk.ACTIONS["info"][1]),
    "create": ("make an image", disk.ACTIONS["create"][1]),
    "resize": ("make an image larger", _resize_parser),
    "import": ("take an image of another program in, confined", _import_parser),
    "convert": ("write an image anew in another format", _convert_parser),
    "check": ("check an image, and mend it", disk.ACTIONS["check"][1]),
}


def run(args: argparse.Namespace) -> int:
    if args.action == "chain":
        return _chain(args)
    from qlaunch.cli import image_files, image_import, images

    return {
        "info": images.info, "create": images.create, "check": images.check,
        "resize": image_files.resize, "convert": image_files.convert,
        "import": image_import.run,
    }[args.action](args)  # fmt: skip


def _chain(args: argparse.Namespace) -> int:
    rows = chain_of(os.path.abspath(args.file))
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


def chain_of(path: str) -> list[dict[str, Any]]:
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
