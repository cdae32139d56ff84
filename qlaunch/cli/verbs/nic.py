"""`qlaunch nic`."""

from __future__ import annotations

from qlaunch.cli import output, table, talk
from qlaunch.cli.progress import Steps, took
from qlaunch.errors import NotFoundError, PhaseError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

_MODELS = ("virtio", "e1000e", "e1000", "rtl8139", "pcnet")
_BACKENDS = ("auto", "user", "passt", "none")
_FILTERS = ("clean", "mac", "none")
_SETTINGS = ("link", "filter", "forward", "network")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Work on the network cards of a machine while it runs. What it is given or loses counts\n"
        "for this run; --persist writes it to the profile as well, and keeps its comments."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch nic attach xp --network lab      another card, on the network lab\n"
        "  qlaunch nic set xp net0 link=down        pull the cable out\n"
        "  qlaunch nic detach xp net1               take it out again\n"
        "  qlaunch nic list xp"
    )


# ---- parsers ------------------------------------------------------------------------------------


def _attach(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Plug a network card into a running machine. It has a name, a MAC address and a place on\n"
        "the bus that stay the same over a restart. Without --persist it is there until the\n"
        "machine is stopped. On q35 only virtio and e1000e can be plugged in."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch nic attach xp                              on QEMU's user network\n"
        "  qlaunch nic attach xp --network lab --persist      and in its profile\n"
        "  qlaunch nic attach xp --forward 2222:22 --model e1000\n"
        "  qlaunch nic attach xp --id net1                    a card that its profile has"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("--id", metavar="ID", help="its name (default: the first free of net0...)")
    parser.add_argument("--network", metavar="NETWORK", help="the network that it is plugged into")
    parser.add_argument("--backend", choices=_BACKENDS, help="without a network (default: user)")
    parser.add_argument("--model", choices=_MODELS, help="(default: as its profile's cards)")
    parser.add_argument("--mac", metavar="MAC", help="(default: made once, then kept)")
    parser.add_argument("--ipv4", metavar="ADDRESS", help="that the network keeps for it")
    parser.add_argument("--ipv6", metavar="ADDRESS", help="that it may use besides")
    parser.add_argument("--filter", choices=_FILTERS, help="what the guest may send")
    parser.add_argument("--queues", type=int, metavar="N", help="pairs of queues; virtio only")
    parser.add_argument(
        "--forward", action="append", metavar="FORWARD", help="PORT:GUESTPORT (again for more)"
    )
    parser.add_argument("--link", choices=("up", "down"), help="whether the cable is in")
    parser.add_argument("--restrict", action="store_true", help="the guest reaches nothing")
    parser.add_argument("--persist", action="store_true", help="write it to the profile, too")


def _detach(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Take a network card out of a running machine. The guest is asked and must let go of it;\n"
        "one that has just started, or has no driver, does so at its next reset."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch nic detach xp net1\n"
        "  qlaunch nic detach xp net1 --persist         and take it out of the profile\n"
        "  qlaunch nic detach xp net1 --timeout 60s     for a guest that is slow"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("nic", metavar="NIC", help="the card's id, as `qlaunch nic list` has it")
    parser.add_argument("--timeout", metavar="TIME", help="how long to wait (default: 15s)")
    parser.add_argument("--persist", action="store_true", help="take it out of the profile, too")


def _set(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Change a network card of a running machine: pull its cable out and put it in (link=down,\n"
        "link=up), let the guest send more or less into its network (filter=clean, mac or none),\n"
        "say all its port forwards (forward=8080:80,2222:22; nothing after the = for none), and\n"
        "move it from one network to another (network=lab): the guest sees its cable go out and\n"
        "in, and asks for an address anew. `qlaunch forward` adds and removes single forwards."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch nic set xp net0 link=down\n"
        "  qlaunch nic set xp net0 link=up filter=mac --persist     and in its profile\n"
        "  qlaunch nic set xp net0 network=lab\n"
        "  qlaunch nic set xp net0 forward=8080:80,2222:22"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("nic", metavar="NIC", help="the card's id")
    parser.add_argument(
        "settings", nargs="+", metavar="KEY=VALUE", help="link, filter, forward, network"
    )
    parser.add_argument("--persist", action="store_true", help="write it to the profile, too")


def _list(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List a machine's network cards and where their cables lead: as they are while it runs,\n"
        "or as the next start would have them."
    )
    parser.epilog = "examples:\n  qlaunch nic list xp\n  qlaunch nic list xp --json"
    parser.add_argument("name", metavar="NAME", help="the machine")


ACTIONS = {
    "attach": ("plug a network card into a running machine", _attach),
    "detach": ("take a network card out of a running machine", _detach),
    "set": ("change link, filter, forwards and network of a card", _set),
    "list": ("list a machine's network cards", _list),
}


# ---- running ------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    work: dict[str, Callable[[argparse.Namespace], int]] = {
        "attach": _run_attach, "detach": _run_detach, "set": _run_set, "list": _run_list,
    }  # fmt: skip
    return work[args.action](args)


def _run_attach(args: argparse.Namespace) -> int:
    keys = ("id", "network", "backend", "model", "mac", "ipv4", "ipv6", "filter", "queues",
            "forward", "link")  # fmt: skip
    wish = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    if args.restrict:
        wish["restrict"] = True
    request = {"wish": wish, "persist": args.persist}
    answer = _talk("nic-attach", args, request)
    stays = "in its profile, too" if answer["persistent"] else "until it is stopped"
    text = (
        f"{args.name}: {answer['nic']} is plugged in ({answer['model']} on {cable(answer)},"
        f" {answer['mac']}), {stays} ({took(answer['seconds'])})"
    )
    return answered(args, answer, text)


def _run_detach(args: argparse.Namespace) -> int:
    request: dict[str, Any] = {"nic": args.nic, "persist": args.persist}
    if args.timeout is not None:
        from qlaunch.units import parse_duration

        try:
            request["timeout"] = parse_duration(args.timeout)
        except ValueError as error:
            raise UsageError(f"--timeout: {error}") from None
    answer = _talk("nic-detach", args, request)
    text = f"{args.name}: {args.nic} is taken out ({took(answer['seconds'])})"
    code = answered(args, answer, text)
    if not args.json and answer["in_profile"] and not args.persist:
        output.note("  its profile has it still: the next start brings it back", quiet=args.quiet)
    return code


def _run_set(args: argparse.Namespace) -> int:
    request: dict[str, Any] = {"nic": args.nic, "persist": args.persist}
    for text in args.settings:
        key, equals, value = text.partition("=")
        if not equals or key not in _SETTINGS:
            raise UsageError(
                f"{text!r} is nothing that can be set",
                hint=f"{', '.join(_SETTINGS)}, such as link=down; for all else take the card out"
                " and plug it in again",
            )
        if key == "forward":
            request[key] = [each for each in value.split(",") if each]
        elif value:
            request[key] = value
        else:
            raise UsageError(f"{key} is what?", hint=f"{key}=VALUE")
    answer = _talk("nic-set", args, request)
    said = ", ".join(args.settings)
    stays = ", and in its profile" if answer["persistent"] else ""
    return answered(args, answer, f"{args.name}: {args.nic} has {said} now{stays}")


def _run_list(args: argparse.Namespace) -> int:
    state, nics = cards(args.name)
    if args.json:
        output.print_json({"name": args.name, "state": state, "nics": nics})
        return 0
    if not nics:
        output.note(f"{args.name} has no network card", quiet=args.quiet)
        return 0
    rows = [
        (
            each["id"], each["model"], each["mac"], cable(each), each["link"],
            each["filter"] or "-", each["address"] or "-", " ".join(each["forward"]) or "-",
        )
        for each in nics
    ]  # fmt: skip
    header = ("ID", "MODEL", "MAC", "CABLE", "LINK", "FILTER", "PLACE", "FORWARDS")
    print(table.table(header, rows))
    if state == "stopped":
        output.note(f"{args.name} does not run: so the next start would be", quiet=args.quiet)
    return 0


def cards(name: str) -> tuple[str, list[dict[str, Any]]]:
    """The machine's state and its cards: as they are, or as the next start would have them.

    Raises: NotFoundError, ProfileError.
    """
    try:
        status = talk.ask_machine("status", name)
        if "nics" in status:
            return str(status["state"]), status["nics"]
    except (NotFoundError, PhaseError):
        missing = talk.not_running(name)
        if isinstance(missing, NotFoundError):
            raise missing from None
    from qlaunch.cli import definitions
    from qlaunch.machine.rows import nic_row
    from qlaunch.store import paths

    plan = definitions.prepared(paths.find_profile(name), name=name).plan
    return "stopped", [nic_row(nic) for nic in plan.nics]


def cable(nic: dict[str, Any]) -> str:
    """Where a card's cable leads, in two words."""
    return f"{nic['network']} ({nic['backend']})" if nic["network"] else str(nic["backend"])


def _talk(verb: str, args: argparse.Namespace, request: dict[str, Any]) -> dict[str, Any]:
    progress = Steps([args.name], quiet=args.quiet)
    answer: dict[str, Any] = talk.ask_machine(verb, args.name, request, progress)
    return answer


def answered(args: argparse.Namespace, answer: dict[str, Any], text: str) -> int:
    """Print what was done."""
    if args.json:
        output.print_json(answer)
        return 0
    output.note(text, quiet=args.quiet)
    for warning in answer.get("warnings") or ():
        output.note(f"  warning: {warning}")
    return 0
