"""`qlaunch net create | edit | rm`: a network's file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qlaunch.cli import definitions, network_state, networks, output
from qlaunch.cli.definitions import wait_for
from qlaunch.cli.verbs import edit as editing
from qlaunch.errors import ConflictError, QlaunchError, RefusedError
from qlaunch.machine import texts
from qlaunch.profile.dump import toml_text
from qlaunch.profile.network_load import loads_network
from qlaunch.store import paths

if TYPE_CHECKING:
    import argparse
    from typing import Any

_WHAT = {
    "nat": "guests reach the outside behind this computer's address",
    "routed": "guests reach the outside with their own addresses; routers must know the way",
    "isolated": "guests reach each other and this computer, nothing else",
    "open": "guests reach everything; no rule of ours is between",
    "bridge": "guests are where the bridge is: its DHCP, its names",
    "uplink": "guests are where the interface is; `qlaunch net uplink` makes the bridge",
}
_MADE = ("nat", "routed", "isolated", "open")


def create(args: argparse.Namespace) -> int:
    name = networks.check_name(args.network)
    path = os.path.join(wait_for(networks.folder()), f"{name}.toml")
    text = _template(args)
    loads_network(text, path, name=name)
    if os.path.lexists(path):
        raise ConflictError(
            f"{path} exists already; it is not replaced", hint=f"`qlaunch net edit {name}`"
        )
    texts.write_new(path, text)
    if not args.json or args.up:
        output.note(f"wrote {definitions.shown(path)}", quiet=args.quiet or args.json)
    if args.edit:
        _edit(path, path, quiet=args.quiet or args.json)
    if args.up:
        args.network = [name]
        return network_state.up(args)
    if args.json:
        output.print_json({"name": name, "file": path})
    else:
        output.note(f"`qlaunch net up {name}` makes it", quiet=args.quiet)
    return 0


def _template(args: argparse.Namespace) -> str:
    """The text of a new file: what was said, and what a newcomer looks for."""
    made = args.mode in _MADE
    lines: list[tuple[str, Any, str]] = []
    if args.title:
        lines.append(("title", args.title, ""))
    lines.append(("mode", args.mode, _WHAT[args.mode]))
    if args.bridge:
        lines.append(("bridge", args.bridge, ""))
    if args.uplink:
        lines.append(("uplink", args.uplink, ""))
    if made or args.address:
        free = "this computer is .1 of the first /24 that nobody uses"
        said = args.address or "auto"
        lines.append(("address", said, free if said == "auto" else "this computer's own in it"))
    if made or args.ipv6:
        private = "and has a private prefix; guests get theirs by themselves"
        said = args.ipv6 or "auto"
        lines.append(("ipv6", said, private if said == "auto" else ""))
    if args.autostart:
        lines.append(("autostart", True, "as soon as the service runs"))
    text = "schema = 1\n" + "".join(_line(*line) for line in lines)
    if args.range:
        text += f"\n[dhcp]\n{_line('range', args.range, 'what guests may get')}"
    if args.domain:
        text += f"\n[dns]\n{_line('domain', args.domain, 'what follows the names of guests')}"
    return text


def _line(key: str, value: Any, comment: str) -> str:
    said = f"{key} = {'true' if value is True else toml_text(value)}"
    return f"{said:<25} # {comment}\n" if comment else f"{said}\n"


# ---- edit ---------------------------------------------------------------------------------------


def edit(args: argparse.Namespace) -> int:
    path = wait_for(networks.file_of(args.network))
    target = os.path.join(wait_for(networks.folder()), f"{args.network}.toml")
    changed = _edit(path, target, quiet=args.quiet or args.json)
    if args.json:
        output.print_json({"name": args.network, "file": target, "changed": changed})
    elif changed:
        output.note(f"`qlaunch net up {args.network}` makes it so", quiet=args.quiet)
    return 0


def _edit(path: str, target: str, *, quiet: bool) -> bool:
    """Whether the user has changed the file. Raises: as `qlaunch edit`."""
    name = os.path.basename(target).removesuffix(".toml")

    def check(copy: str, _target: str) -> list[dict[str, Any]]:
        try:
            with open(copy, "rb") as file:
                loads_network(file.read(), target, name=name)
        except QlaunchError as error:
            return definitions.finding_of(error)
        return []

    return editing.edit_file(path, target, check, quiet=quiet)


# ---- rm -----------------------------------------------------------------------------------------


def remove(args: argparse.Namespace) -> int:
    name = args.network
    path = wait_for(networks.file_of(name))
    if os.path.dirname(path) != wait_for(networks.folder()):
        raise RefusedError(
            f"the network {name} came with qlaunch: {path}",
            hint=f"a file of yours hides it: `qlaunch net edit {name}`",
        )
    definitions.confirm(f"Take the network {name} down and remove {path}?", yes=args.yes)
    done = wait_for(_taken_down(name, force=args.force))
    try:
        os.unlink(path)
    except OSError as error:
        raise texts.failed(path, error) from error
    if args.json:
        output.print_json({"name": name, "removed": path, "steps": done})
    else:
        left = paths.network_files(paths.network_dirs(system=os.getuid() == 0)).get(name)
        hidden = f"; {left} counts again" if left else ""
        output.note(f"removed {definitions.shown(path)}{hidden}", quiet=args.quiet)
    return 0


async def _taken_down(name: str, *, force: bool) -> list[str]:
    """What was done to take the network down, where a service has it at all."""
    for known in await networks.known_networks():
        if known.name == name and known.service is not None:
            if known.service.kind == "netd" and os.getuid():
                continue
            answer = await known.service.ask("down", {"network": name, "force": force})
            return list(answer["steps"])
    return []
