"""`qlaunch ip`."""

from __future__ import annotations

from qlaunch.cli import output, table, talk
from qlaunch.cli.verbs.nic import cable
from qlaunch.errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The addresses of a running guest, and from where each is known: what the network keeps\n"
        "for the card (reservation) or gave out (lease), what QEMU's user network or passt always\n"
        "gives, what the guest agent says, which is the guest's word alone, what the guest was\n"
        "seen to use (learnt), and who has answered lately (neighbour)."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch ip xp\n"
        "  qlaunch ip xp --one              the surest, alone: ping $(qlaunch ip xp --one)\n"
        "  qlaunch ip xp --json"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("--one", action="store_true", help="print the surest one and nothing else")


def run(args: argparse.Namespace) -> int:
    answer: dict[str, Any] = talk.ask_machine("ip", args.name)
    known = [(nic, at) for nic in answer["nics"] for at in nic["addresses"]]
    if args.one:
        # One that leads there comes before one behind QEMU's or passt's door.
        known.sort(key=lambda each: not each[0]["direct"])
        if not known:
            raise NotFoundError(f"{args.name}: no address of its guest is known yet")
        print(output.clean(known[0][1]["address"]))
        return 0
    if args.json:
        output.print_json(answer)
        return 0
    rows = [
        (nic["id"], at["address"], ", ".join(at["sources"]), cable(nic), nic["mac"])
        for nic, at in known
    ]
    if rows:
        print(table.table(("CARD", "ADDRESS", "KNOWN FROM", "CABLE", "MAC"), rows))
    else:
        output.note(f"{args.name}: no address of its guest is known yet", quiet=args.quiet)
    for nic in answer["nics"]:
        if nic["problem"]:
            output.note(f"  {nic['id']}: {nic['problem']}")
    if rows and not any(nic["direct"] for nic, _ in known):
        output.note(
            f"from here it is reached by forwards only: `qlaunch forward {args.name} 8080:80`,"
            f" `qlaunch ssh {args.name}`",
            quiet=args.quiet,
        )
    return 0
