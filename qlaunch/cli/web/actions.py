"""What the page may ask for, each as the command line does it: `up`, `down`, CDs, snapshots.

Blocking: called in threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from qlaunch.cli import definitions, talk
from qlaunch.control import client
from qlaunch.errors import QlaunchError, UsageError
from qlaunch.store import paths

Tell = Callable[[dict[str, Any]], None]
Work = Callable[[str, Mapping[str, Any], Tell], Any]

# The supervisor's verbs that take what the page sends, and which of its arguments they take.
_VERBS: Mapping[str, tuple[str, ...]] = {
    "down": ("force", "timeout"),
    "kill": (),
    "reset": (),
    "pause": (),
    "resume": (),
    "send-key": ("keys",),
    "type": ("text",),
    "snapshot-create": ("snapshot", "text", "disks_only"),
    "snapshot-delete": ("snapshot",),
    "revert": ("snapshot", "discard"),
    "status": (),
}


def overview() -> list[dict[str, Any]]:
    """Every machine and every profile of the user's own, by name.

    Raises: QlaunchError when the supervisor cannot be asked.
    """
    running = {each["name"]: each for each in talk.machines()["machines"]}
    found = [{**each, "running": True} for each in running.values()]
    for name, path in paths.profile_names().items():
        if name not in running and definitions.source_of(path) != "shipped":
            found.append({"name": name, "state": "stopped", "running": False})
    return sorted(found, key=lambda each: str(each["name"]))


def act(verb: str, name: str, args: Mapping[str, Any], tell: Tell) -> Any:
    """Do one thing to the machine `name`. Raises: QlaunchError."""
    paths.check_name(name)
    special = _SPECIAL.get(verb)
    if special is not None:
        return special(name, args, tell)
    takes = _VERBS.get(verb)
    if takes is None:
        raise UsageError(f"the page cannot {verb!r}")
    request = {"name": name, **{key: args[key] for key in takes if key in args}}
    return client.ask(verb, request, progress=tell)


def _up(name: str, _args: Mapping[str, Any], tell: Tell) -> Any:
    request = {"profile": paths.find_profile(name), "env": talk.environment(), "set": []}
    return client.ask("up", request, progress=tell)


def _restart(name: str, _args: Mapping[str, Any], tell: Tell) -> Any:
    return client.ask("restart", {"name": name, "env": talk.environment()}, progress=tell)


def _snapshots(name: str, _args: Mapping[str, Any], _tell: Tell) -> Any:
    from qlaunch.cli import snapshots

    timeline, nodes, problems = snapshots.read(name)
    return {
        "snapshots": [snapshots.plain(name, node, timeline) for node in nodes],
        "problems": list(problems),
    }


def _media(name: str, args: Mapping[str, Any], tell: Tell) -> Any:
    request: dict[str, Any] = {"name": name, "drive": args.get("drive")}
    request["force"] = args.get("force") is True
    file = args.get("file")
    if file:
        if not isinstance(file, str) or not os.path.isabs(file):
            raise UsageError("the file's whole path is needed", hint="such as /home/me/xp.iso")
        request["file"] = file
    elif args.get("eject") is True:
        request["eject"] = True
    return client.ask("media", request, progress=tell)


_SPECIAL: Mapping[str, Work] = {
    "up": _up,
    "restart": _restart,
    "snapshots": _snapshots,
    "media": _media,
}


def screenshot(name: str) -> bytes | None:
    """The machine's screen as a PNG; None when there is none to show now."""
    import base64

    try:
        answer = talk.ask_machine("screenshot", name, {"format": "png"})
    except QlaunchError:
        return None
    return base64.b64decode(answer["data"])
