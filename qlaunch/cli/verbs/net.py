"""`qlaunch net`: its actions and what each takes; the work is in `qlaunch.cli.network_*`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_MODES = ("nat", "routed", "isolated", "open", "bridge", "uplink")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Networks for machines: bridges with DHCP, names and a firewall, or a bridge that is\n"
        "there already. Root's service (netd) makes those of the computer, for whom its allow\n"
        "list names; other users have networks of their own, without root."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch net list\n"
        "  qlaunch net create lab             a network like libvirt's default one\n"
        "  qlaunch net up lab                 a machine that uses it does so, too\n"
        "  qlaunch net leases lab             who has which address\n"
        "  qlaunch net plan lab               what `up` would do"
    )


# ---- parsers ------------------------------------------------------------------------------------


def _list(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the networks that you may use, and those that are made of your files."
    )
    parser.epilog = "examples:\n  qlaunch net list\n  qlaunch net list --json"


def _show(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show a network: its addresses, who is plugged into it, and the addresses it has given."
    )
    parser.epilog = "examples:\n  qlaunch net show default\n  qlaunch net show lab --json"
    parser.add_argument("network", metavar="NETWORK", help="the network")


def _up(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make networks, or make them as their files are by now. What is right already is left as\n"
        "it is: guests and their connections do not notice."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch net up lab                 yours, without root\n"
        "  sudo qlaunch net up default        the computer's\n"
        "  qlaunch net up lab -v              says each step"
    )
    parser.add_argument("network", metavar="NETWORK", nargs="+", help="the networks")


def _down(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Remove networks: bridge, firewall rules, DHCP and names. The file stays, and so do the\n"
        "addresses that were given. A network that machines use is kept, unless --force."
    )
    parser.epilog = "examples:\n  qlaunch net down lab\n  qlaunch net down lab --force"
    parser.add_argument("network", metavar="NETWORK", nargs="+", help="the networks")
    parser.add_argument("--force", action="store_true", help="take it away from its machines")


def _create(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a network's file, short and commented. Root writes it for the computer, others for\n"
        "themselves. Nothing that exists is replaced."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch net create lab                                  nat, on a free subnet\n"
        "  qlaunch net create lab --address 192.168.150.1/24 --up\n"
        "  qlaunch net create quiet --mode isolated --ipv6 none    guests see only each other\n"
        "  sudo qlaunch net create lan --mode bridge --bridge br0  a bridge that is there"
    )
    parser.add_argument("network", metavar="NEWNAME", help="what it is called")
    parser.add_argument("--mode", choices=_MODES, default="nat", help="(default: nat)")
    parser.add_argument("--title", metavar="TEXT", help="a line for people")
    parser.add_argument("--address", metavar="ADDRESS", help="this computer's in it, with /LENGTH")
    parser.add_argument("--ipv6", metavar="ADDRESS", help="the same for IPv6; `none` for none")
    parser.add_argument("--bridge", metavar="BRIDGE", help="the bridge (default: ql-NETWORK)")
    parser.add_argument("--uplink", metavar="INTERFACE", help="with --mode uplink")
    parser.add_argument("--range", metavar="FIRST-LAST", help="addresses that DHCP may give")
    parser.add_argument("--domain", metavar="DOMAIN", help="what follows guests' names")
    parser.add_argument("--autostart", action="store_true", help="make it when the service starts")
    parser.add_argument("--edit", action="store_true", help="open it in an editor afterwards")
    parser.add_argument("--up", action="store_true", help="make the network, too")


def _edit(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open a network's file in your editor ($VISUAL, $EDITOR, vi or nano) and check it\n"
        "afterwards. Of a shipped network a copy is made. `net up` makes the network so."
    )
    parser.epilog = "examples:\n  qlaunch net edit lab\n  EDITOR=nano qlaunch net edit lab"
    parser.add_argument("network", metavar="NETWORK", help="the network")


def _rm(parser: argparse.ArgumentParser) -> None:
    parser.description = "Take a network down and remove its file."
    parser.epilog = "examples:\n  qlaunch net rm lab\n  qlaunch net rm lab --force --yes"
    parser.add_argument("network", metavar="NETWORK", help="the network")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true", help="take it away from its machines")


def _plan(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print what would be done: to make a network, or (without a name) to mend what is broken.\n"
        "Nothing is changed."
    )
    parser.epilog = "examples:\n  qlaunch net plan lab\n  sudo qlaunch net plan --json"
    parser.add_argument("network", metavar="NETWORK", nargs="?", help="the network")


def _leases(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the addresses that guests were given by DHCP."
    parser.epilog = "examples:\n  qlaunch net leases\n  qlaunch net leases lab --json"
    parser.add_argument("network", metavar="NETWORK", nargs="?", help="the network (default: all)")


def _setup(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Set root's network service up: units of systemd (or a process, where there is none) and\n"
        "/etc/qlaunch/netd.toml, the list of who may use which network. Do it again to allow\n"
        "somebody more, or after an upgrade. Networks and guests do not notice."
    )
    parser.epilog = (
        "examples:\n"
        "  sudo qlaunch net setup                               for whoever calls sudo\n"
        "  sudo qlaunch net setup --group vms --network default --network lab\n"
        "  qlaunch net setup --stdout                           only show what would be written\n"
        "  sudo qlaunch net setup --remove                      take all of it away"
    )
    parser.add_argument("--user", action="append", default=[], metavar="USER", help="allow a user")
    parser.add_argument("--group", action="append", default=[], metavar="GROUP", help="or a group")
    parser.add_argument(
        "--network", action="append", default=[], metavar="NETWORK",
        help="to use this one (again for more; default: default)",
    )  # fmt: skip
    parser.add_argument("--no-systemd", action="store_true", help="a process, also beside systemd")
    parser.add_argument("--stdout", action="store_true", help="print the files, change nothing")
    parser.add_argument("--remove", action="store_true", help="take networks and service away")
    parser.add_argument("--force", action="store_true", help="with --remove: from machines, too")


def _uplink(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a bridge over one of this computer's interfaces, so that guests are on the same\n"
        "network as it is: addresses and routes move to the bridge at once, connections go on. A\n"
        "guard puts everything back unless the gateway answers and you say so in time. Use it by\n"
        'a network with mode = "uplink", or "bridge".'
    )
    parser.epilog = (
        "examples:\n"
        "  sudo qlaunch net uplink br0 eth0                  asks whether it works\n"
        "  sudo qlaunch net uplink br0 eth0 --yes            the gateway's answer is enough\n"
        "  sudo qlaunch net uplink br0 --undo                eth0 has its addresses again"
    )
    parser.add_argument("bridge", metavar="BRIDGE", help="the bridge, such as br0")
    parser.add_argument("interface", metavar="INTERFACE", nargs="?", help="such as eth0")
    parser.add_argument("--timeout", metavar="TIME", help="for your answer (default: 10s)")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--undo", action="store_true", help="take the bridge away again")
    parser.add_argument(
        "--force", action="store_true", help="though somebody else looks after it, or is on it"
    )


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say whether networks can be made here, and who is in their way: Docker, firewalld, ufw,\n"
        "a resolver on port 53, a network with the same subnet. Each with what mends it."
    )
    parser.epilog = (
        "examples:\n"
        "  sudo qlaunch net doctor\n"
        "  sudo qlaunch net doctor --mend     opens the doors of Docker and firewalld\n"
        "\nexit status: 1 when a line says fail, else 0"
    )
    parser.add_argument("--mend", action="store_true", help="open the doors that there are")


ACTIONS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "list": ("list the networks", _list),
    "show": ("show one network and who is on it", _show),
    "up": ("make networks, or make them as their files are", _up),
    "down": ("remove networks; their files stay", _down),
    "create": ("write a new network's file", _create),
    "edit": ("open a network's file in an editor, then check it", _edit),
    "rm": ("take a network down and remove its file", _rm),
    "plan": ("print what would be done", _plan),
    "leases": ("list the addresses that guests were given", _leases),
    "uplink": ("move this computer's own address to a bridge, and back", _uplink),
    "doctor": ("say who is in the way of networks, and mend it", _doctor),
    "setup": ("set root's network service up", _setup),
}


def run(args: argparse.Namespace) -> int:
    from qlaunch.cli import (
        network_doctor,
        network_files,
        network_setup,
        network_state,
        network_uplink,
    )

    work: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": network_state.list_networks,
        "show": network_state.show,
        "up": network_state.up,
        "down": network_state.down,
        "plan": network_state.plan,
        "leases": network_state.leases,
        "create": network_files.create,
        "edit": network_files.edit,
        "rm": network_files.remove,
        "uplink": network_uplink.uplink,
        "doctor": network_doctor.doctor,
        "setup": network_setup.setup,
    }
    return work[args.action](args)
