"""Images enlarged and converted, for `qlaunch image`: no supervisor is asked."""

from __future__ import annotations

import os
import tempfile

from qlaunch.cli import definitions, output
from qlaunch.cli.images import file_of
from qlaunch.errors import ConflictError, HostError, NotFoundError, RefusedError, UsageError
from qlaunch.units import format_size, short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from qlaunch.facts import ImageFacts

RESIZE_TIMEOUT = 600.0
CONVERT_TIMEOUT = 86400.0
# What the end of a name says where the header of the file is not looked at.
_ENDINGS = {".vmdk": "vmdk", ".vdi": "vdi", ".vhdx": "vhdx", ".vhd": "vpc", ".qed": "qed"}


def resize(args: argparse.Namespace) -> int:
    from qlaunch.cli.verbs.disk import size_of
    from qlaunch.host.image_facts import chain_facts
    from qlaunch.host.image_rights import rights
    from qlaunch.host.tool import failure, run_tool
    from qlaunch.machine.claims import Claims, claimants
    from qlaunch.machine.plug_plan import standing_on

    path = file_of(args.file)
    facts = next(iter(chain_facts(path, want_write=True).values()))
    _check_free(path, facts.holder)
    if facts.problem or facts.format not in ("qcow2", "raw"):
        raise HostError(f"{path}: {facts.problem or 'is no image'}", hint=facts.hint)
    claims = Claims.of(claimants("", None))
    if (who := claims.who_names(path)) is not None:
        raise RefusedError(f"{path}: {who}", hint="qlaunch disk resize NAME DISK SIZE")
    if below := standing_on(path, claims.folders):
        raise RefusedError(f"{path}: {below[0]} stands on it", hint="enlarge that one")
    before = facts.virtual_size or 0
    size = size_of(args.size.removeprefix("+"), "SIZE")
    after = before + size if args.size.startswith("+") else size
    if after < before:
        raise UsageError(f"{path} has {format_size(before)}: an image cannot be made smaller")
    if after % 512:
        raise UsageError(f"{format_size(after)} is not a whole number of sectors (512 bytes)")
    words = [_qemu_img(), "resize", "-q", "-f", str(facts.format), "--", path, str(after)]
    mine = rights(words[0], write=[path], below=[path] if facts.format == "qcow2" else [])
    done = definitions.wait_for(run_tool(words, timeout=RESIZE_TIMEOUT, confinement=mine))
    if done.status:
        raise failure(f"{path} was not resized", done)
    if args.json:
        output.print_json({"file": path, "before": before, "after": after})
    else:
        text = (
            f"{definitions.shown(path)} has {format_size(after)} now, {short_size(before)} before"
        )
        output.note(text, quiet=args.quiet)
    return 0


def convert(args: argparse.Namespace) -> int:
    from qlaunch.cli.verbs.clone import Percent
    from qlaunch.host.image_facts import chain_facts
    from qlaunch.host.image_rights import rights
    from qlaunch.host.newfile import write_error
    from qlaunch.host.tool import failure, percentages, run_tool

    path = file_of(args.file)
    target = os.path.abspath(os.path.expanduser(args.target))
    if os.path.lexists(target):
        raise ConflictError(f"{target} exists already; it is not replaced")
    chain = chain_facts(path, want_write=True)
    for each in chain.values():
        _check_free(each.path, each.holder)
        _check_yours(path, each)
    source = args.source or _ENDINGS.get(os.path.splitext(path)[1].lower())
    source = source or chain[path].format or "raw"
    percent = Percent(quiet=args.quiet or args.json)
    try:
        with tempfile.TemporaryDirectory(prefix=".convert-", dir=os.path.dirname(target)) as folder:
            part = os.path.join(folder, "image")
            words = [_qemu_img(), "convert", "-p", "-f", source, "-O", args.format, "--"]
            heard = percentages(lambda done: percent(f"convert {os.path.basename(path)}", done))
            mine = rights(words[0], read=chain, make_in=folder)
            work = run_tool(
                (*words, path, part), timeout=CONVERT_TIMEOUT, on_output=heard, confinement=mine
            )
            done = definitions.wait_for(work)
            if done.status:
                raise failure(f"{path} was not converted", done)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.link(part, target)
    except FileExistsError:
        raise ConflictError(f"{target} exists already; it is not replaced") from None
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        percent.end()
    if args.json:
        output.print_json({"file": path, "from": source, "made": target, "format": args.format})
    else:
        output.note(f"made {definitions.shown(target)}, {args.format}", quiet=args.quiet)
    return 0


def _check_free(path: str, holder: str | None) -> None:
    """Raises: ConflictError when somebody writes to it."""
    if holder is not None:
        raise ConflictError(
            f"{path} is in use by {holder}", hint="stop the machine, or use `qlaunch disk`"
        )


def _check_yours(path: str, below: ImageFacts) -> None:
    """A stranger's image may name any file of yours as what it stands on.

    Raises: RefusedError.
    """
    if below.data_file is not None:
        raise RefusedError(f"{below.path} keeps its data in another file, {below.data_file!r}")
    elsewhere = os.path.dirname(below.path) != os.path.dirname(path)
    if below.path != path and elsewhere and below.format != "qcow2":
        raise RefusedError(
            f"{path} stands on {below.path}, which lies elsewhere and is no qcow2 image",
            hint="if that is right, move the two into one folder",
        )


def _qemu_img() -> str:
    import shutil

    found = shutil.which("qemu-img")
    if found is None:
        raise NotFoundError(
            "there is no qemu-img here", hint="on Debian and Ubuntu: sudo apt install qemu-utils"
        )
    return found
