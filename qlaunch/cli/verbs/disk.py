"""`qlaunch disk`."""

from __future__ import annotations

import os

from qlaunch.cli import output, talk
from qlaunch.cli.progress import Steps, took
from qlaunch.control import client
from qlaunch.errors import UsageError
from qlaunch.units import format_size, parse_size, short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

_BUSES = ("virtio", "scsi", "nvme", "usb")
_FORMATS = ("qcow2", "raw")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Work on disks: of a machine while it runs or is stopped, or on image files alone.\n"
        "What a running machine is given or loses counts for this run; --persist writes it to\n"
        "the profile as well, and keeps its comments."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch disk attach xp --size 20GiB      make a disk and plug it in\n"
        "  qlaunch disk detach xp disk1             take it out again\n"
        "  qlaunch disk resize xp hda +10GiB        running or stopped\n"
        "  qlaunch disk info xp                     every image of a machine\n"
        "  qlaunch disk compact xp                  give back the space that nobody uses"
    )


# ---- parsers ------------------------------------------------------------------------------------


def _attach(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Plug a disk into a running machine: an image that exists, or a new one with --size.\n"
        "It has a name and an address that stay the same over a restart. Without --persist it is\n"
        "there until the machine is stopped. IDE, SATA and floppy drives cannot be plugged in."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch disk attach xp data.qcow2                   until it is stopped\n"
        "  qlaunch disk attach xp data.qcow2 --persist         and in its profile\n"
        "  qlaunch disk attach xp --size 20GiB --bus usb       a new disk in its folder\n"
        "  qlaunch disk attach xp stick.img --format raw --bus usb --read-only\n"
        "  qlaunch disk attach xp --id hdb                     a disk that its profile has"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("file", nargs="?", metavar="FILE", help="the image")
    parser.add_argument("--bus", choices=_BUSES, help="where (default: as its profile's disks)")
    parser.add_argument("--id", metavar="ID", help="its name (default: the first free of disk1...)")
    parser.add_argument("--size", metavar="SIZE", help="make the image, as large as this")
    parser.add_argument("--format", choices=_FORMATS, help="of the image (default: qcow2)")
    parser.add_argument("--backing", metavar="FILE", help="the image that it stands on")
    parser.add_argument("--serial", metavar="TEXT", help="the serial number that the guest sees")
    parser.add_argument("--read-only", action="store_true", help="the guest cannot write")
    parser.add_argument("--persist", action="store_true", help="write it to the profile, too")


def _detach(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Take a disk out of a running machine. On virtio and nvme the guest is asked and must let\n"
        "go of it; on scsi and usb it is gone at once. Have the guest stop using it first: Linux\n"
        "lets go of a disk that is mounted, too, and loses what was not written."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch disk detach xp disk1\n"
        "  qlaunch disk detach xp disk1 --persist         and take it out of the profile\n"
        "  qlaunch disk detach xp disk1 --timeout 60s     for a guest that is slow"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("disk", metavar="DISK", help="the disk's id, as `qlaunch disk info` has it")
    parser.add_argument("--timeout", metavar="TIME", help="how long to wait (default: 15s)")
    parser.add_argument("--force", action="store_true", help="even the disk that it starts from")
    parser.add_argument("--persist", action="store_true", help="take it out of the profile, too")


def _resize(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a disk larger, while its machine runs or not; the guest is told. Partitions and\n"
        "file systems in it stay as they are. A disk cannot be made smaller. Snapshots keep the\n"
        "size that it had."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch disk resize xp hda 40GiB\n"
        "  qlaunch disk resize xp hda +10GiB\n"
        "  qlaunch disk resize xp hda 40GiB --persist     correct `size` in the profile, too"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("disk", metavar="DISK", help="the disk's id")
    parser.add_argument("size", metavar="SIZE", help="how large, or with a + how much larger")
    parser.add_argument("--persist", action="store_true", help="correct the profile's `size`, too")


def _move(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Move a disk's image to another folder or file, while its machine runs or not, and write\n"
        "the new place to the profile. The guest stands still for a moment at the end. The old\n"
        "image is removed last. Interrupted, the disk is where it was. A machine with snapshots\n"
        "cannot be moved so."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch disk move xp hda /srv/disks/               the same name in another folder\n"
        "  qlaunch disk move xp hda /srv/disks/xp.qcow2\n"
        "  qlaunch disk move xp hda /srv/disks/ --speed 50MiB     a second, at most"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("disk", metavar="DISK", help="the disk's id")
    parser.add_argument("file", metavar="FILE", help="the new image, or the folder for it")
    parser.add_argument("--speed", metavar="SIZE", help="bytes a second, at most; running only")


def _create(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make an image, empty and sparse: it takes space as it is written to. What exists is\n"
        "never replaced."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch disk create data.qcow2 20GiB\n"
        "  qlaunch disk create data.img 20GiB --format raw\n"
        "  qlaunch disk create try.qcow2 --backing golden.qcow2     golden.qcow2 is never written"
    )
    parser.add_argument("file", metavar="FILE", help="the image to make")
    parser.add_argument("size", nargs="?", metavar="SIZE", help="how large it looks to a guest")
    parser.add_argument("--format", choices=_FORMATS, default="qcow2", help="(default: qcow2)")
    parser.add_argument("--backing", metavar="FILE", help="an image that it stands on")


def _info(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show an image, or every disk of a machine: format, size, the space that it takes, what\n"
        "it stands on and who uses it. Nothing is locked and nothing is changed."
    )
    parser.epilog = "examples:\n  qlaunch disk info xp\n  qlaunch disk info ./data.qcow2"
    parser.add_argument("image", metavar="IMAGE", help="a machine, or an image file")


def _check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check the metadata of an image, or of all images of a machine. Leaks are space that\n"
        "nobody uses, after a crash for example: they are harmless. While the machine runs, only\n"
        "what it does not write to can be checked."
    )
    parser.epilog = "examples:\n  qlaunch disk check xp\n  qlaunch disk check ./data.qcow2 --repair"
    parser.add_argument("image", metavar="IMAGE", help="a machine, or an image file")
    parser.add_argument(
        "--repair", action="store_true", help="mend what is found; not while in use"
    )


def _compact(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write an image anew without zeros and without what the guest has given back (TRIM), so\n"
        "that it takes less space. The two are compared before the new one takes the old one's\n"
        "place; interrupted, nothing has changed. The machine must be stopped, and there must be\n"
        "room for both. Have the guest run `fstrim -a`, or defrag in Windows, before."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch disk compact xp           every disk of a machine\n"
        "  qlaunch disk compact xp hda       one of them\n"
        "  qlaunch disk compact ./data.qcow2"
    )
    parser.add_argument("image", metavar="IMAGE", help="a machine, or an image file")
    parser.add_argument("disk", nargs="?", metavar="DISK", help="one disk of the machine")


ACTIONS = {
    "attach": ("plug a disk into a running machine", _attach),
    "detach": ("take a disk out of a running machine", _detach),
    "resize": ("make a disk larger, running or stopped", _resize),
    "move": ("move a disk's image, running or stopped", _move),
    "create": ("make an image", _create),
    "info": ("show images and who uses them", _info),
    "check": ("check images, and mend them", _check),
    "compact": ("give back the space that an image does not use", _compact),
}


# ---- running ------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    asking: dict[str, Callable[[argparse.Namespace], int]] = {
        "attach": _run_attach, "detach": _run_detach, "resize": _run_resize,
        "move": _run_move,
    }  # fmt: skip
    if args.action in asking:
        return asking[args.action](args)
    from qlaunch.cli import images

    return {
        "create": images.create, "info": images.info, "check": images.check,
        "compact": images.compact,
    }[args.action](args)  # fmt: skip


def absolute(path: str | None) -> str | None:
    """`path` as the supervisor needs it."""
    return os.path.abspath(os.path.expanduser(path)) if path else None


def size_of(text: str, what: str) -> int:
    """Raises: UsageError."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from None


def _run_attach(args: argparse.Namespace) -> int:
    request = {
        "file": absolute(args.file),
        "backing": absolute(args.backing),
        "id": args.id,
        "bus": args.bus,
        "format": args.format,
        "serial": args.serial,
        "size": size_of(args.size, "--size") if args.size else None,
        "read_only": args.read_only,
        "persist": args.persist,
    }
    answer = talk.ask_machine(
        "disk-attach", args.name, request, Steps([args.name], quiet=args.quiet)
    )
    stays = "in its profile, too" if answer["persistent"] else "until it is stopped"
    text = (
        f"{args.name}: {answer['disk']} is plugged in ({answer['bus']}), {stays}"
        f" ({took(answer['seconds'])})"
    )
    return _answered(args, answer, text)


def _run_detach(args: argparse.Namespace) -> int:
    request = {"disk": args.disk, "force": args.force, "persist": args.persist}
    if args.timeout is not None:
        from qlaunch.units import parse_duration

        try:
            request["timeout"] = parse_duration(args.timeout)
        except ValueError as error:
            raise UsageError(f"--timeout: {error}") from None
    answer = talk.ask_machine(
        "disk-detach", args.name, request, Steps([args.name], quiet=args.quiet)
    )
    code = _answered(
        args, answer, f"{args.name}: {args.disk} is taken out ({took(answer['seconds'])})"
    )
    if not args.json:
        if answer["in_profile"] and not args.persist:
            output.note(
                "  its profile has it still: the next start brings it back", quiet=args.quiet
            )
        if answer["snapshots"]:
            output.note(
                f"  snapshots that hold it: {', '.join(answer['snapshots'])}; attach it with"
                f" --id {args.disk} before you go back to one",
                quiet=args.quiet,
            )
    return code


def _run_resize(args: argparse.Namespace) -> int:
    more = args.size.startswith("+")
    size = size_of(args.size.removeprefix("+"), "SIZE")
    request = {"disk": args.disk, "size": size, "more": more, "persist": args.persist}
    answer = client.ask(
        "disk-resize",
        {"name": args.name, **request},
        name=args.name,
        progress=Steps([args.name], quiet=args.quiet),
    )
    after = format_size(answer["after"])
    if answer["after"] == answer["before"]:
        text = f"{args.name}: {args.disk} has {after} already"
    else:
        told = "; the guest was told" if answer["live"] else ""
        text = (
            f"{args.name}: {args.disk} has {after} now, {short_size(answer['before'])} before{told}"
        )
    return _answered(args, answer, text)


def _run_move(args: argparse.Namespace) -> int:
    target = absolute(args.file)
    assert target is not None
    request = {
        "disk": args.disk,
        "target": os.path.join(target, "") if args.file.endswith("/") else target,
        "speed": size_of(args.speed, "--speed") if args.speed else None,
    }
    answer = client.ask(
        "disk-move",
        {"name": args.name, **request},
        name=args.name,
        progress=Steps([args.name], quiet=args.quiet),
    )
    text = f"{args.name}: {args.disk} is at {answer['new']} now ({took(answer['seconds'])})"
    if answer["stopped"] is not None:
        text += f"; the guest stood still for {took(answer['stopped'])}"
    return _answered(args, answer, text)


def _answered(args: argparse.Namespace, answer: dict[str, Any], text: str) -> int:
    if args.json:
        output.print_json(answer)
        return 0
    output.note(text, quiet=args.quiet)
    for warning in answer.get("warnings") or ():
        output.note(f"  warning: {warning}")
    return 0
