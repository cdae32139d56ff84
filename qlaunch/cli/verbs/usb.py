"""`qlaunch usb`."""

from __future__ import annotations

import os
import re

from qlaunch.cli import output, table, talk
from qlaunch.cli.progress import Steps, took
from qlaunch.cli.verbs.disk import absolute
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

_WHICH = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}|[1-9][0-9]*-[1-9][0-9]*(\.[1-9][0-9]*)*")
_FORMATS = ("raw", "qcow2")
_KINDS = {
    0x01: "audio", 0x02: "communication", 0x03: "input", 0x06: "image", 0x07: "printer",
    0x08: "storage", 0x0B: "smartcard", 0x0E: "video", 0xE0: "wireless",
}  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "USB of a running machine: devices of this computer, slots for those that the viewer's\n"
        "user plugs in at his desk, and files as sticks and CDs. What is plugged in counts for\n"
        "this run; --persist writes it to the profile as well."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch usb list                         what is plugged into this computer\n"
        "  qlaunch usb list xp                      and what the machine has\n"
        "  qlaunch usb attach xp 0951:1666          by vendor and product: survives re-plugging\n"
        "  qlaunch usb attach xp stick.img          a file as a stick\n"
        "  qlaunch usb detach xp 0951:1666\n"
        "  qlaunch usb slots xp +2                  two more for the viewer's user"
    )


# ---- parsers ------------------------------------------------------------------------------------


def _list(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the USB devices that are plugged into this computer, and with NAME what that\n"
        "machine has on USB."
    )
    parser.epilog = "examples:\n  qlaunch usb list\n  qlaunch usb list xp"
    parser.add_argument("name", nargs="?", metavar="NAME", help="a machine")


def _attach(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Give a running machine a USB device. By vendor and product, or by a port of this\n"
        "computer, it is a device that is plugged in here, or will be: the guest has it whenever\n"
        "it is there, also after it was pulled out. A file is a stick, or with --cd a CD in a\n"
        "drive of its own (so is NAME.iso)."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch usb attach xp 0951:1666\n"
        "  qlaunch usb attach xp 1-2.3 --persist          whatever is in that port, from now on\n"
        "  qlaunch usb attach xp stick.img --read-only\n"
        "  qlaunch usb attach xp drivers.iso"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("device", metavar="FILE", help="a device, a port or a file")
    parser.add_argument("--id", metavar="ID", help="its name (default: usb1, stick1, cd1...)")
    parser.add_argument("--cd", action="store_true", help="the file is a CD")
    parser.add_argument(
        "--format", choices=_FORMATS, help="of a stick (default: raw, qcow2 for NAME.qcow2)"
    )
    parser.add_argument("--read-only", action="store_true", help="the guest cannot write a stick")
    parser.add_argument("--persist", action="store_true", help="write it to the profile, too")


def _detach(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Take a USB device out of a running machine; this computer has it back then. USB does\n"
        "not ask the guest: have it eject a stick first, so that all is written."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch usb detach xp 0951:1666\n"
        "  qlaunch usb detach xp stick1 --persist         and take it out of the profile"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("device", metavar="FILE", help="its name, or what was attached")
    parser.add_argument("--persist", action="store_true", help="take it out of the profile, too")


def _slots(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the slots for USB devices of the viewer's user, or have more or fewer of them. A\n"
        "viewer that is connected can use a new one at once. Each takes a port of the machine's\n"
        "USB controller. When a viewer's devices are in all of them, there is one more by itself."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch usb slots xp           which are used\n"
        "  qlaunch usb slots xp 6         six of them\n"
        "  qlaunch usb slots xp +1        one more\n"
        "  qlaunch usb slots xp 6 --persist"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("count", nargs="?", metavar="COUNT", help="how many, or +how many more")
    parser.add_argument("--force", action="store_true", help="take used ones away, too")
    parser.add_argument("--persist", action="store_true", help="write it to the profile, too")


def _redirect(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Give a running machine a USB device through a connection, without SPICE: one of this\n"
        "computer, or with --listen one of another, where `usbredirect --device 0951:1666 --to\n"
        "HOST:PORT` brings it; go through ssh (-L), what is carried is not encrypted. It lasts\n"
        "until Ctrl-C, or until the device is pulled out."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch usb redirect xp 0951:1666\n"
        "  qlaunch usb redirect xp 1-2.3                    whatever is in that port\n"
        "  qlaunch usb redirect xp --listen 127.0.0.1:4000"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="vendor:product, or a port")
    parser.add_argument("--listen", metavar="ADDRESS:PORT", help="wait for another computer's")


ACTIONS = {
    "list": ("show what is plugged into this computer, or a machine", _list),
    "attach": ("give a machine a device, or a file as a stick or CD", _attach),
    "detach": ("take it out again", _detach),
    "redirect": ("give a machine a device through a connection, without SPICE", _redirect),
    "slots": ("have more or fewer slots for the viewer's devices", _slots),
}


# ---- running ------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    work: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _run_list, "attach": _run_attach, "detach": _run_detach, "slots": _run_slots,
        "redirect": _run_redirect,
    }  # fmt: skip
    return work[args.action](args)


def _run_list(args: argparse.Namespace) -> int:
    from qlaunch.host.usb import usb_devices

    here: list[dict[str, Any]] = [
        {
            "port": each.port,
            "device": each.ident,
            "name": each.name,
            "serial": each.serial,
            "for": [_KINDS.get(kind, f"0x{kind:02x}") for kind in each.kinds],
            "usable": each.usable,
        }
        for each in usb_devices()
    ]
    result: dict[str, Any] = {"host": here}
    if args.name:
        result |= talk.ask_machine("usb-look", args.name)
    if args.json:
        output.print_json(result)
        return 0
    if here:
        rows = [
            (each["port"], each["device"], ", ".join(each["for"]), each["name"],
             "" if each["usable"] else "you may not use it")
            for each in here
        ]  # fmt: skip
        print(table.table(("PORT", "DEVICE", "FOR", "NAME", ""), rows))
    else:
        output.note("nothing is plugged into this computer's USB", quiet=args.quiet)
    if args.name:
        _print_machine(args, result["devices"])
    return 0


def _print_machine(args: argparse.Namespace, devices: list[dict[str, Any]]) -> None:
    if not devices:
        output.note(f"{args.name} has nothing of it", quiet=args.quiet)
        return
    print(f"\n{args.name}")
    rows = [(each["id"], each["port"], _state(each), each["what"]) for each in devices]
    print(table.table(("ID", "PORT", "STATE", "WHAT"), rows))


def _state(each: dict[str, Any]) -> str:
    if each["kind"] == "slot":
        return "used" if each["attached"] else "free"
    return "there" if each["attached"] else "waited for"


def _run_attach(args: argparse.Namespace) -> int:
    request: dict[str, Any] = {"id": args.id, "persist": args.persist}
    if _WHICH.fullmatch(args.device) and not args.cd:
        if args.format or args.read_only:
            raise UsageError("--format and --read-only are for files")
        request["device"] = args.device
    else:
        _check_file(args.device)
        request["file"] = absolute(args.device)
        if not (args.cd or args.device.lower().endswith(".iso")):
            return _attach_stick(args, request)
    answer = talk.ask_machine("usb-attach", args.name, request)
    where = f"{answer['what']} is plugged in as {answer['id']}"
    if not answer["attached"]:
        where = f"{answer['what']} is {answer['id']}, and waited for"
    return _answered(args, answer, f"{args.name}: {where}, {_stays(answer)}")


def _check_file(word: str) -> None:
    """Raises: UsageError for a word that is neither a device nor a file."""
    path = os.path.expanduser(word)
    if os.path.lexists(path) or "/" in word:
        return
    raise UsageError(
        f"{word!r} is neither a USB device nor a file",
        hint="vendor and product such as 0951:1666, a port such as 1-2.3 (`qlaunch usb list`), or"
        " a file",
    )


def _attach_stick(args: argparse.Namespace, request: dict[str, Any]) -> int:
    qcow2 = args.device.lower().endswith(".qcow2")
    request |= {
        "bus": "usb",
        "stick": True,
        "format": args.format or ("qcow2" if qcow2 else "raw"),
        "read_only": args.read_only,
    }
    progress = Steps([args.name], quiet=args.quiet)
    answer = talk.ask_machine("disk-attach", args.name, request, progress)
    text = f"{args.name}: {answer['path']} is plugged in as {answer['disk']}, {_stays(answer)}"
    return _answered(args, answer, text)


def _stays(answer: dict[str, Any]) -> str:
    stays = "in its profile, too" if answer["persistent"] else "until it is stopped"
    return f"{stays} ({took(answer['seconds'])})"


def _run_detach(args: argparse.Namespace) -> int:
    stick = _stick(args.name, args.device)
    if stick is not None:
        request = {"disk": stick, "persist": args.persist}
        answer = talk.ask_machine("disk-detach", args.name, request)
    else:
        word = args.device
        if not _WHICH.fullmatch(word) and os.path.lexists(os.path.expanduser(word)):
            word = absolute(word)
        request = {"device": word, "persist": args.persist}
        answer = talk.ask_machine("usb-detach", args.name, request)
    text = f"{args.name}: {args.device} is taken out ({took(answer['seconds'])})"
    code = _answered(args, answer, text)
    if answer["in_profile"] and not args.json:
        output.note("  its profile has it still: the next start brings it back", quiet=args.quiet)
    return code


def _stick(name: str, word: str) -> str | None:
    """The stick of the machine that `word` means, by name or by file."""
    devices = talk.ask_machine("usb-look", name)["devices"]
    meant = {word, absolute(word)}
    sticks = [each for each in devices if each["kind"] == "stick"]
    return next((each["id"] for each in sticks if meant & {each["id"], each["what"]}), None)


def _run_slots(args: argparse.Namespace) -> int:
    count, more = None, False
    if args.count is not None:
        more = args.count.startswith("+")
        digits = args.count.removeprefix("+")
        if not digits.isdecimal():
            raise UsageError(f"{args.count!r} is no number of slots", hint="such as 6, or +1")
        count = int(digits)
    request = {"count": count, "more": more, "force": args.force, "persist": args.persist}
    answer = talk.ask_machine("usb-slots", args.name, request)
    if args.json:
        output.print_json(answer)
        return 0
    rows = [(each["id"], each["port"], _state(each)) for each in answer["slots"]]
    if rows:
        print(table.table(("SLOT", "PORT", "STATE"), rows))
    else:
        output.note(f"{args.name} has no slot for a client's devices", quiet=args.quiet)
    for warning in answer["warnings"]:
        output.note(f"  warning: {warning}")
    return 0


def _run_redirect(args: argparse.Namespace) -> int:
    from qlaunch.cli import usbredir

    return usbredir.run(args)


def _answered(args: argparse.Namespace, answer: dict[str, Any], text: str) -> int:
    if args.json:
        output.print_json(answer)
        return 0
    output.note(text, quiet=args.quiet)
    for warning in answer.get("warnings") or ():
        output.note(f"  warning: {warning}")
    return 0
