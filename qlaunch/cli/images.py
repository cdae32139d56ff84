"""Images made, shown, checked and made smaller, for `qlaunch disk`: no supervisor is asked."""

from __future__ import annotations

import contextlib
import os
import sys

from qlaunch.cli import definitions, output
from qlaunch.cli.table import table
from qlaunch.errors import (
    NotFoundError,
    PhaseError,
    QlaunchError,
    RefusedError,
    UsageError,
)
from qlaunch.store import paths
from qlaunch.units import format_size, short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from qlaunch.machine.images import Checked
    from qlaunch.plan.model import Disk, Layer


# ---- what is meant ------------------------------------------------------------------------------


def is_machine(word: str) -> bool:
    """Whether `word` is a machine, and not an image file."""
    if "/" in word:
        return False
    try:
        known = os.path.isdir(paths.machine_state(paths.check_name(word)))
        return known or bool(paths.find_profile(word))
    except QlaunchError:
        return False


def file_of(word: str) -> str:
    """The image file `word`. Raises: NotFoundError."""
    path = os.path.abspath(os.path.expanduser(word))
    if not os.path.lexists(path):
        what = "image" if "/" in word or "." in word else "machine and no image"
        raise NotFoundError(
            f"there is no {what} {word!r}", hint="`qlaunch list` shows the machines"
        )
    return path


def disks_of(name: str) -> tuple[Disk, ...]:
    """The disks of a machine: as it runs, else as it would start. Raises: NotFoundError,
    ProfileError."""
    from qlaunch.machine.held import running_pid
    from qlaunch.store import machines

    if running_pid(name) is not None and (plan := machines.load_plan(name)) is not None:
        return plan.disks
    return definitions.prepared(definitions.machine_of(name).file or name).plan.disks


# ---- create -------------------------------------------------------------------------------------


def create(args: argparse.Namespace) -> int:
    from qlaunch.cli.verbs.disk import absolute, size_of
    from qlaunch.host.images import create_image, image_contents

    path, backing = absolute(args.file) or "", absolute(args.backing)
    size = size_of(args.size, "SIZE") if args.size else None
    if size is None and backing is None:
        raise UsageError("how large?", hint=f"qlaunch disk create {args.file} 20GiB")
    if size is not None and (size < 512 or size % 512):
        raise UsageError(f"{format_size(size)} is not a whole number of sectors (512 bytes)")
    form = None
    if backing is not None:
        facts = image_contents(backing)
        form = "qcow2" if facts.format == "qcow2" else "raw"
        if size is not None and facts.virtual_size and size < facts.virtual_size:
            raise UsageError(
                f"{format_size(size)} is less than {backing} has:"
                f" {format_size(facts.virtual_size)}",
                hint="leave SIZE out, and it is as large",
            )
    definitions.wait_for(
        create_image(
            path, image_format=args.format, size=size, backing=backing, backing_format=form
        )
    )
    made = image_contents(path)
    if args.json:
        output.print_json({"file": path, "format": args.format, "size": made.virtual_size,
                           "backing": backing})  # fmt: skip
        return 0
    on = f", on {definitions.shown(backing)}" if backing else ""
    output.note(
        f"made {definitions.shown(path)}: {format_size(made.virtual_size or 0)}, {args.format}{on}",
        quiet=args.quiet,
    )
    return 0


# ---- info ---------------------------------------------------------------------------------------


def info(args: argparse.Namespace) -> int:
    from qlaunch.machine.claims import Claims, claimants

    if is_machine(args.image):
        disks = disks_of(args.image)
        claims = Claims.of(claimants(args.image, definitions.machine_of(args.image).file))
        found = [
            {"disk": disk.id, "bus": disk.bus, "layers": _rows(disk, claims)} for disk in disks
        ]
        plain: dict[str, Any] = {"name": args.image, "disks": found}
    else:
        from qlaunch.host.image_facts import chain_facts
        from qlaunch.machine.plug_plan import standing_on

        path = file_of(args.image)
        claims = Claims.of(claimants("", None))
        layers = [_row(each, claims, None) for each in chain_facts(path, want_write=False)]
        found = [{"layers": layers}]
        plain = {"file": path, "layers": layers, "below": standing_on(path, claims.folders)}
    if args.json:
        output.print_json(plain)
        return 0
    for each in found:
        _print_disk(each, plain.get("name"))
    for above in plain.get("below", ()):
        print(f"  {output.clean(definitions.shown(above))} stands on it")
    return 0


def _rows(disk: Disk, claims: Any) -> list[dict[str, Any]]:
    rows = [_row(layer.path, claims, layer.format) for layer in disk.layers]
    if disk.create is not None and not os.path.lexists(disk.create.path):
        rows[0] |= {"size": disk.create.size, "problem": "the first start makes it"}
    return rows


def _row(path: str, claims: Any, form: str | None) -> dict[str, Any]:
    from qlaunch.host.image_facts import image_facts

    facts = image_facts(path, want_write=False)
    size = facts.file_size if form == "raw" else facts.virtual_size
    problem = facts.problem or (None if facts.exists else "it is not there (yet)")
    return {
        "path": path,
        "format": form or facts.format,
        "size": size,
        "allocated": facts.allocated,
        "problem": problem,
        "holder": facts.holder,
        "named_by": claims.who_names(path),
        "internal_snapshots": 0 if form == "raw" else facts.internal_snapshots,
    }


def _held(holder: str | None, own: str | None) -> str | None:
    """Who writes to an image, unless it is the machine that is asked about."""
    if holder is None or (own and holder.endswith(f"machine {own}")):
        return None
    return f"written by {holder}"


def _print_disk(disk: dict[str, Any], own: str | None) -> None:
    head = f"{disk['disk']} ({disk['bus']})" if "disk" in disk else ""
    rows = [
        (
            head if not at else "",
            f"{'  ' * at}{definitions.shown(row['path'])}",
            row["format"] or "-",
            short_size(row["size"]) if row["size"] is not None else "-",
            short_size(row["allocated"]) if row["allocated"] is not None else "-",
        )
        for at, row in enumerate(disk["layers"])
    ]
    headers = ("DISK", "IMAGE", "FORMAT", "SIZE", "USED")
    cut = 0 if head else 1
    print(table(headers[cut:], [row[cut:] for row in rows]))
    for row in disk["layers"]:
        told = [row["problem"], _held(row["holder"], own), row["named_by"]]
        if row["internal_snapshots"]:
            told.append(f"{row['internal_snapshots']} internal snapshots")
        for text in filter(None, told):
            print(output.clean(f"  {os.path.basename(row['path'])}: {text}"))


# ---- check --------------------------------------------------------------------------------------


def check(args: argparse.Namespace) -> int:
    found = list(_checks(args))
    bad = [each for each in found if not each.is_good]
    if args.json:
        output.print_json(
            {
                "images": [
                    {"path": each.path, "errors": each.errors, "leaks": each.leaks,
                     "repaired": each.repaired, "skipped": each.skipped or None}
                    for each in found
                ],
                "good": not bad,
            }
        )  # fmt: skip
    if bad:
        what = definitions.counted(len(bad), "image")
        hint = "make a copy of it, then: --repair" if not args.repair else "restore a backup"
        raise QlaunchError(f"{what} with errors", hint=hint)
    return 0


def _checks(args: argparse.Namespace) -> Iterator[Checked]:
    """Check one image after the other, and tell of each."""
    from qlaunch.machine import images

    with contextlib.ExitStack() as stack:
        for layer, live in _layers(args, stack):
            watched = sys.stderr.isatty() and not (args.json or args.quiet)
            words = f"checking {definitions.shown(layer.path)} ..."
            if watched:
                print(words, end="", file=sys.stderr, flush=True)
            if live:
                done = images.Checked(path=layer.path, skipped=live)
            else:
                work = images.check(layer.path, layer.format, repair=args.repair)
                done = definitions.wait_for(work)
            if watched:
                print("\r" + " " * len(words) + "\r", end="", file=sys.stderr, flush=True)
            if not args.json:
                print(output.clean(f"{definitions.shown(done.path)}: {_words(done)}"))
            yield done


def _layers(args: argparse.Namespace, stack: contextlib.ExitStack) -> Iterator[tuple[Layer, str]]:
    """The images to check, each with the reason why it cannot be."""
    from qlaunch.machine.held import held, running_pid
    from qlaunch.plan.model import Layer

    if not is_machine(args.image):
        from qlaunch.host.image_facts import image_contents

        path = file_of(args.image)
        form = image_contents(path).format
        yield (
            Layer(node="", file_node="", path=path, format="qcow2" if form == "qcow2" else "raw"),
            "",
        )
        return
    pid = running_pid(args.image)
    if pid is not None and args.repair:
        raise PhaseError(
            f"{args.image} is running (pid {pid}): nothing can be repaired now",
            hint=f"qlaunch down {args.image}",
        )
    if pid is None:
        stack.enter_context(held(args.image, to="check"))
    for disk in disks_of(args.image):
        for at, layer in enumerate(disk.layers):
            written = pid is not None and not at and not layer.read_only
            if disk.create is not None and not at and not os.path.lexists(layer.path):
                yield layer, "it has not been made yet"
            else:
                yield layer, "the running machine writes to it" if written else ""


def _words(done: Checked) -> str:
    if done.skipped:
        return f"not checked: {done.skipped}"
    parts = []
    if done.errors:
        parts.append(definitions.counted(done.errors, "error"))
    if done.leaks:
        parts.append(f"{definitions.counted(done.leaks, 'leak')}, which are harmless")
    if done.repaired:
        parts.append(f"{done.repaired} repaired")
    return ", ".join(parts) or "good"


# ---- compact ------------------------------------------------------------------------------------


def compact(args: argparse.Namespace) -> int:
    from qlaunch.cli.verbs.clone import Percent
    from qlaunch.machine import images

    rows = []
    with contextlib.ExitStack() as stack:
        for layer in _compactable(args, stack):
            percent = Percent(quiet=args.quiet or args.json)
            name = os.path.basename(layer.path)

            def progress(what: str, done: float, name: str = name, show: Percent = percent) -> None:
                show(f"{what} {name}", done)

            try:
                done = definitions.wait_for(images.compact(layer.path, layer.format, progress))
            finally:
                percent.end()
            rows.append({"path": done.path, "before": done.before, "after": done.after,
                         "won": done.before - done.after})  # fmt: skip
            if not args.json:
                output.note(_won(done.path, done.before, done.after), quiet=args.quiet)
    if args.json:
        output.print_json({"images": rows, "won": sum(row["won"] for row in rows)})
    return 0


def _won(path: str, before: int, after: int) -> str:
    if after == before:
        return f"{definitions.shown(path)}: nothing to win, it stays as it is"
    return (
        f"{definitions.shown(path)}: {short_size(after)}, {short_size(before)} before:"
        f" {short_size(before - after)} won"
    )


def _compactable(args: argparse.Namespace, stack: contextlib.ExitStack) -> list[Layer]:
    """The images to be compacted: those that their machines write to."""
    from qlaunch.host.image_facts import image_contents
    from qlaunch.machine.claims import Claims, claimants
    from qlaunch.machine.held import held
    from qlaunch.plan.model import Layer

    if is_machine(args.image):
        stack.enter_context(held(args.image, to="compact"))
        disks = [disk for disk in disks_of(args.image) if args.disk in (None, disk.id)]
        if not disks:
            known = ", ".join(disk.id for disk in disks_of(args.image)) or "none"
            raise NotFoundError(f"{args.image} has no disk {args.disk!r}", hint=f"it has {known}")
        return [
            disk.layers[0] for disk in disks if disk.create is None and not disk.layers[0].read_only
        ]
    if args.disk is not None:
        raise UsageError(f"there is no machine {args.image!r}")
    path = file_of(args.image)
    if (who := Claims.of(claimants("", None)).who_names(path)) is not None:
        # Whether it is raw, and who must not be started meanwhile, is the machine's to say.
        raise RefusedError(
            f"{path}: {who}", hint="compact it by its machine: qlaunch disk compact NAME"
        )
    facts = image_contents(path)
    form = "qcow2" if facts.format == "qcow2" else "raw"
    return [Layer(node="", file_node="", path=path, format="qcow2" if form == "qcow2" else "raw")]
