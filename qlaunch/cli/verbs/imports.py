"""`qlaunch import`."""

from __future__ import annotations

from qlaunch.cli import output
from qlaunch.errors import ConflictError, NotFoundError, ProfileError, QlaunchError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Turn libvirt's XML into what qlaunch has for it, as a person would have written it: a\n"
        "domain into a profile, a network into a network's file, a snapshot's definition into the\n"
        "command that takes it, a device into the tables that a profile needs for it. A report\n"
        "tells of every element that has no effect here, and why. Nothing that exists is\n"
        "overwritten, and no libvirt is needed."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch import xp.xml                    a profile called as the domain is\n"
        "  qlaunch import xp.xml --name xp2         called xp2\n"
        "  qlaunch import xp.xml --stdout --quiet   look at it first\n"
        "  virsh dumpxml xp | qlaunch import -      from libvirt itself\n"
        "  sudo qlaunch import --from-libvirt       all that libvirt has defined here\n"
        "  qlaunch import --from-libvirt xp web     two of it"
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="libvirt's XML; - is standard input"
    )
    parser.add_argument("--name", help="what it is called, instead of its name in libvirt")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("-o", "--output", metavar="FILE", help="write it there")
    target.add_argument("--stdout", action="store_true", help="print it, and write nothing")
    parser.add_argument(
        "--strict", action="store_true", help="what is not supported is an error; nothing is made"
    )
    parser.add_argument(
        "--from-libvirt",
        action="store_true",
        help="domains and networks that libvirt has in /etc; FILE is a name then, none is all",
    )


def run(args: argparse.Namespace) -> int:
    from qlaunch.cli import importing

    if args.from_libvirt:
        if args.name or args.output:
            raise UsageError("--from-libvirt takes names as they are", hint="say one FILE instead")
        files = importing.defined(args.files)
    else:
        files = args.files
    if not files:
        raise UsageError("which file?", hint="virsh dumpxml NAME | qlaunch import -")
    if len(files) > 1 and (args.name or args.output):
        raise UsageError("--name and --output are for one file")
    made, failed = [], None
    for file in files:
        try:
            made.append(importing.one(args, file))
        except (ProfileError, ConflictError, NotFoundError) as error:
            if len(files) == 1:
                raise
            failed = failed or error
            output.complain(error)
    if args.json:
        output.print_json({"imports": made} if len(files) > 1 or args.from_libvirt else made[0])
    if failed is not None:
        told = f"{len(files) - len(made)} of {len(files)} were not imported"
        raise _summary(failed, told)
    return 0


def _summary(first: QlaunchError, told: str) -> QlaunchError:
    """The end of a long list, with the exit status of the first that failed."""
    if isinstance(first, ProfileError):
        return ProfileError("", told)
    return type(first)(told)
