"""`qlaunch export`."""

from __future__ import annotations

import os

from qlaunch.cli import definitions, output
from qlaunch.errors import UsageError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print a profile in the words of another program. With --libvirt it is a domain that\n"
        "`virsh define` takes. Keys that libvirt has no word for stand in its metadata, so that\n"
        "`qlaunch import` makes the same profile of it. Disks stay where they are."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch export xp --libvirt > xp.xml      for virsh define xp.xml\n"
        "  qlaunch export xp --libvirt -o xp.xml"
    )
    parser.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file's path")
    parser.add_argument("--libvirt", action="store_true", help="as a domain of libvirt")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write it there; nothing is replaced"
    )


def run(args: argparse.Namespace) -> int:
    from qlaunch.libvirt.export import export_domain
    from qlaunch.machine import texts
    from qlaunch.machine.prepare import with_shipped
    from qlaunch.profile.load import load

    if not args.libvirt:
        raise UsageError("say for whom: --libvirt")
    profile = with_shipped(load(paths.find_profile(args.profile)))
    name = profile.name or "machine"
    xml = export_domain(profile, paths.machine_data(name))
    target = None
    if args.output:
        target = os.path.abspath(os.path.expanduser(args.output))
        texts.write_new(target, xml)
        output.note(f"wrote {definitions.shown(target)}", quiet=args.quiet or args.json)
    if args.json:
        output.print_json({"name": name, "file": target, "xml": xml})
    elif target is None:
        output.print_text(xml.rstrip("\n"))
    return 0
