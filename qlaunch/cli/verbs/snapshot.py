"""`qlaunch snapshot`."""

from __future__ import annotations

import sys

from qlaunch.cli import output, table
from qlaunch.cli.progress import Steps, took
from qlaunch.control import client
from qlaunch.errors import UsageError
from qlaunch.units import short_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

_ACTIONS = (
    "create", "list", "tree", "show", "current", "rename", "edit", "delete", "merge", "prune",
    "sync",
)  # fmt: skip
_READING = ("list", "tree", "show", "current")
# Which take a snapshot's name, and which must have it.
_TAKES = ("create", "show", "rename", "edit", "delete", "merge")
_MUST = ("show", "rename", "edit", "delete", "merge")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A snapshot is a moment that the machine can go back to: its disks and, of a running\n"
        "machine, its memory. The guest runs on while it is taken. Snapshots make a tree; any of\n"
        "them can be reverted to and any can be deleted, while the machine runs. What is deleted\n"
        "is merged into what follows; Ctrl-C there loses nothing."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch snapshot create xp before-sp3 -m 'clean, activated'\n"
        "  qlaunch snapshot create xp --disks-only      without the memory, in a moment\n"
        "  qlaunch snapshot tree xp                     what comes from what, and where you are\n"
        "  qlaunch revert xp before-sp3                 go back\n"
        "  qlaunch snapshot delete xp before-sp3        its content stays in what follows\n"
        "  qlaunch snapshot prune xp --keep 10          all but the ten newest\n"
        "  qlaunch snapshot sync xp                     did somebody else work on the images?"
    )
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("snapshot", nargs="?", metavar="SNAPSHOT", help="its name, or #NUMBER")
    parser.add_argument("new_name", nargs="?", metavar="NEWNAME", help="rename: the other name")
    parser.add_argument("-m", dest="text", metavar="TEXT", help="create, edit: what it is for")
    parser.add_argument("--disks-only", action="store_true", help="create: without the memory")
    parser.add_argument(
        "--disk",
        action="append",
        default=[],
        metavar="ID",
        help="create: this disk (again for more)",
    )
    parser.add_argument(
        "--quiesce", action="store_true", help="create: have the guest flush its disks first"
    )
    parser.add_argument(
        "--internal", action="store_true", help="create: inside the images; the guest stands still"
    )
    parser.add_argument(
        "--children", action="store_true", help="delete: and all that was made from it"
    )
    parser.add_argument("--keep", type=int, metavar="N", help="prune: how many to keep")
    parser.add_argument("--dry-run", action="store_true", help="prune: only say what would go")
    parser.add_argument(
        "--take-over", action="store_true", help="sync: believe the images, whatever they say"
    )
    parser.add_argument("--ascii", action="store_true", help="tree: draw with plain letters")


def run(args: argparse.Namespace) -> int:
    _check(args)
    if args.action in _READING:
        return _read(args)
    verb, request = _request(args)
    steps = Steps([args.name], quiet=args.quiet)
    try:
        answer = client.ask(verb, {"name": args.name, **request}, progress=steps)
    except KeyboardInterrupt:
        if args.action in ("delete", "merge", "prune"):
            client.ask("jobs", {"name": args.name, "cancel": "all"})
        raise
    if args.json:
        output.print_json(answer)
    else:
        _tell(args, answer)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.snapshot is None and args.action in _MUST:
        raise UsageError("which snapshot?", hint=f"`qlaunch snapshot list {args.name}`")
    if args.snapshot is not None and args.action not in _TAKES:
        raise UsageError(f"`snapshot {args.action}` takes no snapshot's name")
    if (args.new_name is not None) != (args.action == "rename"):
        raise UsageError("`snapshot rename` takes the old name and the new one, no other two")
    if args.action == "edit" and args.text is None:
        raise UsageError("what shall it say?", hint="-m TEXT")
    if args.action == "prune" and (args.keep is None or args.keep < 0):
        raise UsageError("how many snapshots to keep?", hint="--keep 10")


def _request(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    if args.action == "create":
        return "snapshot-create", {
            "snapshot": args.snapshot,
            "text": args.text,
            "disks_only": args.disks_only,
            "disks": args.disk,
            "quiesce": args.quiesce,
            "internal": args.internal,
        }
    if args.action == "sync":
        return "snapshot-sync", {"take_over": args.take_over}
    if args.action == "prune":
        return "snapshot-prune", {"keep": args.keep, "dry_run": args.dry_run}
    more = {
        "rename": {"new_name": args.new_name},
        "edit": {"text": args.text},
        "delete": {"children": args.children},
        "merge": {"merge": True},
    }[args.action]
    verb = "snapshot-delete" if args.action == "merge" else f"snapshot-{args.action}"
    return verb, {"snapshot": args.snapshot, **more}


def _tell(args: argparse.Namespace, answer: dict[str, Any]) -> None:
    for warning in answer.get("warnings") or ():
        output.note(f"{args.name}: warning: {warning}", quiet=args.quiet)
    if args.action == "create":
        output.note(f"{args.name}: {_created(answer)}", quiet=args.quiet)
    elif args.action == "sync":
        _tell_drift(args, answer)
    elif "would_delete" in answer:
        labels = ", ".join(each["label"] for each in answer["would_delete"]) or "nothing"
        output.note(f"{args.name}: would delete {labels}", quiet=args.quiet)
    elif "deleted" in answer:
        labels = ", ".join(each["label"] for each in answer["deleted"]) or "nothing"
        freed = f", {short_size(answer['freed'])} freed" if answer.get("freed") else ""
        output.note(
            f"{args.name}: deleted {labels}{freed} ({took(answer['seconds'])})", quiet=args.quiet
        )
        for kept in answer.get("kept") or ():
            output.note(f"  {kept['layer']} stays: {kept['reason']}", quiet=args.quiet)
    else:
        output.note(f"{args.name}: {answer['snapshot']['label']} is changed", quiet=args.quiet)


def _tell_drift(args: argparse.Namespace, answer: dict[str, Any]) -> None:
    if not answer["drift"]:
        output.note(f"{args.name}: images and snapshots agree", quiet=args.quiet)
    for each in answer["drift"]:
        output.note(f"{args.name}: {each['text']}", quiet=args.quiet)
        done = each["taken_over"] if args.take_over else each["would"]
        output.note(f"  {done}", quiet=args.quiet)
    if answer["drift"] and not args.take_over:
        output.note(
            f"`qlaunch snapshot sync {args.name} --take-over` does all that", quiet=args.quiet
        )


def _created(answer: dict[str, Any]) -> str:
    made = answer["snapshot"]
    parts = [f"snapshot {made['label']}"]
    if made["kind"] == "memory":
        parts.append(f"disks and memory ({short_size(answer['memory_bytes'])})")
        parts.append(f"the guest stood still for {took(answer['stopped'])}")
    elif made["kind"] == "internal":
        parts.append(
            "inside the images, disks and memory" if made["memory"] else "inside the images"
        )
        if answer["stopped"] is not None:
            parts.append(f"the guest stood still for {took(answer['stopped'])}")
    else:
        parts.append("disks")
    if made["left_out"]:
        parts.append(f"without {', '.join(made['left_out'])}")
    return f"{', '.join(parts)}; {took(answer['seconds'])} in all"


# ---- reading ------------------------------------------------------------------------------------


def _read(args: argparse.Namespace) -> int:
    from qlaunch.cli import snapshots

    timeline, nodes, drift = snapshots.read(args.name)
    rows = [snapshots.plain(args.name, node, timeline) for node in nodes]
    if args.action == "show":
        node = snapshots.find(args.name, timeline, nodes, args.snapshot)
        found = snapshots.plain(args.name, node, timeline)
        print_data(found, args)
    elif args.action == "current":
        present = rows[-1]
        current = next((row for row in rows if row["id"] == present["parent"]), None)
        if args.json:
            output.print_json(current)
        elif current is not None:
            print(output.clean(current["label"]))
        else:
            output.note(f"{args.name} comes from no snapshot", quiet=args.quiet)
    elif args.json:
        output.print_json(
            {"name": args.name, "snapshots": rows[:-1], "here": rows[-1], "drift": list(drift)}
        )
    elif args.action == "list":
        _print_list(rows[:-1])
    else:
        _print_tree(args, rows)
    if args.action in ("list", "tree") and not args.json:
        _print_problems(rows, args)
        for text in drift:
            output.note(f"{args.name}: {text}", quiet=args.quiet)
        if drift:
            output.note(f"  `qlaunch snapshot sync {args.name}` says more", quiet=args.quiet)
    return 0


def print_data(found: dict[str, Any], args: argparse.Namespace) -> None:
    """A table of data, for a person or a program."""
    if args.json:
        output.print_json(found)
    else:
        print(table.outline(found))


def _print_list(rows: list[dict[str, Any]]) -> None:
    from qlaunch.cli.snapshots import ago

    labels = {row["id"]: row["label"] for row in rows}
    lines = [
        (
            f"{'*' if row['current'] else ' '} {row['label']}",
            row["kind"],
            ago(row["created"]),
            short_size(row["size"] + row["memory_size"]),
            labels.get(row["parent"], "-"),
            (row["text"].splitlines() or [""])[0],
        )
        for row in rows
    ]
    print(table.table(("  SNAPSHOT", "KIND", "TAKEN", "SIZE", "FROM", "TEXT"), lines))


def _print_tree(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    from qlaunch.cli import pictures
    from qlaunch.cli.snapshots import ago

    children: dict[int | None, list[int]] = {}
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        children.setdefault(row["parent"], []).append(row["id"])

    def label(number: int) -> str:
        row = by_id[number]
        if not number:
            return "you are here"
        text = (row["text"].splitlines() or [""])[0]
        size = short_size(row["size"] + row["memory_size"])
        parts = [row["label"], f"({row['kind']}, {size}, {ago(row['created'])})", text]
        return output.clean("  ".join(part for part in parts if part))

    signs = pictures.ASCII if args.ascii or not _unicode() else pictures.UNICODE
    print("\n".join(pictures.draw(children, label, 0, signs=signs)))


def _unicode() -> bool:
    return "utf" in (sys.stdout.encoding or "").lower()


def _print_problems(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    for row in rows:
        for problem in row["problems"]:
            label = row.get("label") or "the present"
            output.note(f"{args.name}: {label}: {problem}", quiet=args.quiet)
